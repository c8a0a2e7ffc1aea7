"""Makes the sets of Table 2: four updates of a model in training, by one party or by a center and two clients.

In each round the clients train the center's model on digits of their own and send what changed; the center sends the
mean. Senders know what receivers reconstruct, and go on from there, so that nothing is lost in between.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.suite.networks import Trainable, trainable
from conformance.suite.rows import Row
from conformance.suite.standins import Model
from conformance.suite.training import Data, Parameters, digits, epoch
from conformance.suite.whole import Made, approx_info, reconstructed
from nnc_core.approximator import part18 as approximator
from nnc_core.approximator.approximation import Approximation, with_codebook
from nnc_core.approximator.codebook import codebook_of
from nnc_core.approximator.data import ApproxData, DataBlock, SbtArgs, split
from nnc_core.bitstream import BitstreamWriter
from nnc_core.coder.encoder import CodedUnit, Coding, CodingBlock, Node, encode_block
from nnc_core.coder.history import Histories
from nnc_core.coder.payload import Effort
from nnc_core.syntax.model_parameter_set import ModelParameterSet

Tensors = Mapping[str, NDArray[Any]]

PARTIES = ("center", "client1", "client2")
ROUNDS = 4
_SHARE = 256
"""How many images each client has."""
_RATES = {"MobileNetV2": 2.0**-13, "ResNet18": 2.0**-13, "VGG11": 2.0**-10, "VGG16": 2.0**-10}


def encoded_sets(rows: Sequence[Row]) -> dict[str, list[Made]]:
    """The bitstreams of the rows of one training, by id."""
    first = rows[0]
    network = trainable(first.model)
    train = _federated if first.party else _alone
    made = train(network, first)
    return {row.id: made[row.party] for row in rows}


def _alone(network: Trainable, row: Row) -> dict[str, list[Made]]:
    sender, trained = Sender(network.model, row.configuration, device_id=0), _trained(network, row)
    p, data = network.start, digits().part(512, 2 * _SHARE)
    reached = sender.folded(_tensors(p, trained))
    for _ in range(ROUNDS):
        p = epoch(network.layers, p, data, _RATES[row.model], trained)
        change = _difference(sender.folded(_tensors(p, trained)), reached)
        reached = _sum(reached, sender.send(change))
    return {"": sender.sent}


def _federated(network: Trainable, row: Row) -> dict[str, list[Made]]:
    trained, data = _trained(network, row), digits().part(512, 2 * _SHARE)
    senders = {name: Sender(network.model, row.configuration, number) for number, name in enumerate(PARTIES)}
    both_ways = not row.configuration.get("unidirect_compress", False)
    p = network.start
    for _ in range(ROUNDS):
        shares = zip(PARTIES[1:], (data.part(0, _SHARE), data.part(_SHARE, _SHARE)), strict=True)
        changes = [_client(network, senders[name], p, share, row, trained) for name, share in shares]
        mean = {name: (changes[0][name] + changes[1][name]) / 2 for name in changes[0]}
        if both_ways:
            mean = senders["center"].send(mean)  # type: ignore[assignment]
        p = p | {name: p[name] + mean[name].astype(np.float64) for name in mean}
    return {name: sender.sent for name, sender in senders.items()}


def _client(
    network: Trainable, sender: Sender, p: Parameters, data: Data, row: Row, trained: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Train the center's model, send the change, and return what the center reconstructs."""
    after = epoch(network.layers, p, data, _RATES[row.model], trained)
    return sender.send(_difference(_tensors(after, trained), _tensors(p, trained)))


def _trained(network: Trainable, row: Row) -> list[str]:
    return network.trained(classifier_only=row.configuration["train_cf"])


def _tensors(p: Parameters, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
    return {name: p[name].astype(np.float32) for name in names}


def _difference(new: Tensors, old: Tensors) -> dict[str, NDArray[np.float32]]:
    return {name: new[name] - old[name] for name in new}


def _sum(a: Tensors, b: Tensors) -> dict[str, NDArray[np.float32]]:
    """The sum; what only one of both has is as it is."""
    return {**a, **b, **{name: a[name] + b[name] for name in a.keys() & b.keys()}}


@dataclass
class Sender:
    """One end of a chain of updates: codes what it is given, and knows what the receiver makes of it.

    There are two trees of units, one of residuals and one of plain updates; ``sent`` has for each bitstream the sum of
    all updates so far, which is what a decoder has after it.
    """

    model: Model
    configuration: Mapping[str, Any]
    device_id: int
    sent: list[Made] = field(default_factory=list)
    _trees: dict[bool, Histories] = field(default_factory=lambda: {False: {}, True: {}})
    _last: Tensors = field(default_factory=dict)

    def folded(self, tensors: Tensors) -> dict[str, NDArray[np.float32]]:
        """The tensors, with batch-norms folded where the row wants that: updates are then those of the folded model."""
        if not self.configuration.get("bn_folding"):
            return dict(tensors)
        data = ApproxData(parameters=dict(tensors), qp_density=2)
        approximator.fold_bn(deepcopy(self.model.info), data)
        return dict(data["parameters"])

    def send(self, change: Tensors) -> dict[str, NDArray[np.float32]]:
        """Code a change of the model; return what a decoder makes of it."""
        residual = self._is_residual()
        wanted = _difference(change, self._last) if residual else change
        data = self._approximated(
            _sparse(dict(wanted), self.configuration["sparsity"], self.configuration.get("filter_spars_gain", 0))
        )
        units = self._units(data, self._trees[residual])
        self._trees[residual] = self._after(units, self._trees[residual])
        decoded = {name: reconstructed(data, self.model)[name] for name in _names(units)}
        update = _sum(self._last, decoded) if residual else decoded
        self._last = update
        before = self.sent[-1].expected if self.sent else {}
        self.sent.append(Made(self._bitstream(units, residual), _sum(before, update)))
        return {name: update.get(name, np.zeros_like(values)) for name, values in change.items()}

    def _is_residual(self) -> bool:
        """All but the first, and with two directions the third, where the trees of both kinds part."""
        plain = (0,) if self.configuration.get("unidirect_compress", True) else (0, 2)
        return bool(self.configuration["pre"]) and len(self.sent) not in plain

    def _approximated(self, tensors: dict[str, NDArray[np.float32]]) -> ApproxData:
        info = approx_info(self.model, self.configuration)
        own = set(self.model.weights)
        info["qp"] |= {name: self.configuration["nonweight_qp"] for name in tensors if name not in own}
        info["dq_flag"] = {}
        info["sbt_args"] = self._sbt_arguments()
        data = ApproxData(parameters=dict(tensors), qp_density=self.configuration["qp_density"])
        if self.configuration.get("bn_folding"):
            data["compressed_parameter_types"] = _folded_types(self.model, tensors)
        return approximator.approx(info, self.model.info, data)

    def _sbt_arguments(self) -> SbtArgs:
        return SbtArgs(
            epoch=len(self.sent),
            n_epoch=self.configuration["n_epochs"],
            sbt_quantization_approach=self.configuration.get("sbt_quantization_approach", "combined"),
            sbt_subquantization_approach=self.configuration.get("sbt_quantization_subapproach", "random_round"),
            sbt_bn_quant=self.configuration["sbt_bn_quant"],
            sbt_mean_quant=self.configuration["sbt_mean_quant"],
        )

    def _units(self, data: ApproxData, before: Histories) -> list[CodedUnit]:
        blocks = split(self.model.info, data)
        return [unit for block in blocks for unit in encode_block(self._block(block, before), self._coding())]

    def _block(self, block: DataBlock, before: Histories) -> CodingBlock:
        names = {member: block.name(member) for member in block.members}
        members = {member: self._signalled(tensor) for member, tensor in block.members.items()}
        number = self.model.info["parameter_index"][block.block.weight]
        node = Node(True, self.device_id, number, parent_node_id_present_flag=True, parent_device_id=self.device_id)
        return CodingBlock(members, names, block.shape, node, before)

    def _signalled(self, tensor: Approximation) -> Approximation:
        """A tensor of two or three levels by a codebook, where the row wants that."""
        few = tensor.values.ndim > 1 and len(np.unique(tensor.values)) <= 3
        if not (few and self.configuration.get("bt_signaling")):
            return tensor
        return with_codebook(tensor, codebook_of(tensor.values))

    def _coding(self) -> Coding:
        c = self.configuration
        return Coding(
            qp_density=c["qp_density"],
            cabac_unary_length_minus1=c["cabac_unary_length_minus1"],
            effort=Effort(c["param_opt"], c["row_skip"], c["hdsp"]),
            blocks=bool(c["nnr_pt_block_enabled"]),
            temporal_context_modeling_flag=c["temporal_context"],
        )

    def _after(self, units: Sequence[CodedUnit], before: Histories) -> Histories:
        return {**before, **{name: left for unit in units for name, left in unit.histories(before).items()}}

    def _bitstream(self, units: Sequence[CodedUnit], residual: bool) -> bytes:
        stream, codebooks = io.BytesIO(), any(unit.header.codebook_present_flag for unit in units)
        mps = ModelParameterSet(
            mps_quantization_method_flags=3 if codebooks else 1,
            mps_qp_density=self.configuration["qp_density"],
            mps_quantization_parameter=0,
            mps_parent_signalling_enabled_flag=True,
            nnr_pre_flag=residual,
        )
        writer = BitstreamWriter(stream, mps)
        for unit in units:
            writer.data_unit(unit.header, unit.payload.data)
        return stream.getvalue()


def _names(units: Sequence[CodedUnit]) -> Iterator[str]:
    for unit in units:
        yield from unit.levels or {}


def _folded_types(model: Model, tensors: Tensors) -> dict[str, int]:
    """``compressed_parameter_types`` of the blocks whose batch-norm is folded: scaling and bias."""
    scaled = [name for name in model.weights if f"{name}_scaling" in tensors]
    return {model.info["block_identifier"].get(name, name): 0b1010 for name in scaled}


def _sparse(tensors: dict[str, NDArray[np.float32]], share: float, gain: float) -> dict[str, NDArray[np.float32]]:
    """Drop the smallest changes of all weights (G.1.5), then rows with little left (G.1.6); vectors keep all."""
    weights = [name for name, values in tensors.items() if values.ndim > 1]
    if not share or not weights:
        return tensors
    magnitudes = np.sort(np.concatenate([abs(tensors[name]).reshape(-1) for name in weights]), kind="stable")
    threshold = magnitudes[int(share * magnitudes.size)]
    kept = {name: np.where(abs(tensors[name]) < threshold, np.float32(0), tensors[name]) for name in weights}
    return tensors | {name: _without_poor_rows(values, gain) for name, values in kept.items()}


def _without_poor_rows(values: NDArray[np.float32], gain: float) -> NDArray[np.float32]:
    """A tensor without the rows that have less than ``gain`` times the mean of what all have."""
    left = abs(values.astype(np.float64)).reshape(len(values), -1).sum(1)
    poor = len(left) * left < gain * left.sum()
    return np.where(poor.reshape(-1, *[1] * (values.ndim - 1)), np.float32(0), values)
