"""Bitstreams beyond the tables of Part 18: for the syntax elements and branches that no row of theirs exercises."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.suite.descriptions import normalized
from conformance.suite.files import described
from conformance.suite.standins import integers
from conformance.suite.whole import Made
from nnc_core.approximator.approximation import Approximation, quantized, reconstructed, with_codebook
from nnc_core.approximator.codebook import Codebook
from nnc_core.bitstream import BitstreamWriter, Division
from nnc_core.bitstream.division import WHOLE
from nnc_core.coder.data import input_parameters_to_json
from nnc_core.coder.encoder import Coding, CodingBlock, Node, encode_block
from nnc_core.coder.history import Histories
from nnc_core.coder.metadata import pruning_of
from nnc_core.coder.payload import Effort
from nnc_core.coder.performance_maps import parameter_set_fields
from nnc_core.nnr_model import Topology
from nnc_core.nnr_model.model_info import ModelInfo
from nnc_core.syntax.context import InputParameters
from nnc_core.syntax.data_unit import TensorDimensionMapping
from nnc_core.syntax.layer_parameter_set import LayerParameterSet
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.syntax.topology import TopologyElementsIdsList
from nnc_core.syntax.units import unit_prefix
from nnc_core.tables.blocks import Member
from nnc_core.tables.code_points import (
    AggregateUnitType,
    DecompressedDataFormat,
    ParentNodeIdType,
    TopologyStorageFormat,
)

_DENSITY, _QP = 2, -16
Members = Mapping[Member, Approximation]


class _Stream:
    """A bitstream in the making, and what decoders must make of it."""

    def __init__(self, profile: int = 1, *, division: Division = WHOLE, references: Sequence[str] = (), **mps: Any):
        self.stream, self.expected, self.profile = io.BytesIO(), {}, profile
        fields = {
            "mps_quantization_method_flags": 3,
            "mps_qp_density": _DENSITY,
            "mps_quantization_parameter": 0,
            **mps,
        }
        self.writer = BitstreamWriter(
            self.stream, ModelParameterSet(**fields), profile, references=references, division=division
        )
        if references:
            self.expected |= described(ModelInfo(topology_elem_id_list=list(references)))

    def add(
        self, name: str, tensor: Approximation, *, density: int = _DENSITY, base_qp: int = 0, **header: Any
    ) -> None:
        """A tensor in a unit of its own; elements of its ``header`` can have other values than the encoder's."""
        coding = self._coding(density, base_qp)
        (unit,) = encode_block(CodingBlock({Member.WEIGHT: tensor}, {Member.WEIGHT: name}, tensor.values.shape), coding)
        self.writer.data_unit(replace(unit.header, **header), unit.payload.data)
        self.expected[name] = reconstructed(tensor, density).values

    def add_block(
        self, names: Mapping[Member, str], members: Members, shape: tuple[int, ...], *, together: bool
    ) -> None:
        coding = replace(self._coding(_DENSITY, 0), blocks=together)
        for unit in encode_block(CodingBlock(members, names, shape), coding):
            self.writer.data_unit(unit.header, unit.payload.data)
        self.expected |= {names[member]: reconstructed(tensor, _DENSITY).values for member, tensor in members.items()}

    def _coding(self, density: int, base_qp: int) -> Coding:
        return Coding(density, base_qp, self.profile, cabac_unary_length_minus1=9, effort=Effort(True, True, False))

    def made(self) -> Made:
        return Made(normalized(self.stream.getvalue(), stored=True), self.expected)


def _levels(seed: str, *shape: int, largest: int = 14) -> NDArray[np.int32]:
    """Integers of which most are small and half are zero."""
    numbers = integers(seed, int(np.prod(shape)))
    spread = 1 + abs(numbers) % largest
    levels = np.where(numbers % 2 == 0, 0, np.sign(numbers) * (1 + abs(numbers >> 5) % spread))
    return levels.astype(np.int32).reshape(shape)


def _tensor(seed: str, *shape: int, qp: int = _QP, scan_order: int = 0, largest: int = 14) -> Approximation:
    return Approximation(_levels(seed, *shape, largest=largest), qp, scan_order=scan_order)


def _dependent(seed: str, *shape: int, kept: Any = 1) -> Approximation:
    """Dependent quantization of values of which some rows are larger than others, and some may be zero."""
    rows = 2.0 ** (np.arange(shape[0]) % 8 - 14) * np.ravel(kept)
    values = integers(seed, int(np.prod(shape))).reshape(shape[0], -1) * rows[:, None] / 64
    return quantized(values.astype(np.float32).reshape(shape), _QP, _DENSITY, True)


# --- whole models -----------------------------------------------------------------------------------------------------


def _data_formats() -> Made:
    """Floats as they are, integers, and every data format that a tensor can ask for; a mask of what is zero."""
    s = _Stream(topology_carriage_flag=True)
    info = ModelInfo(sparse_bit_mask=[0, 1, 1, 0, 1], bit_mask_order_flag=True)
    container = pruning_of(info, ())
    assert container is not None
    s.writer.pruning(container)
    s.expected |= described(info)
    s.add("raw", Approximation(np.array([[np.nan, np.inf, -0.0], [1.5, -2e-40, 3e38]], np.float32)))
    s.add("int32", Approximation(_levels("int32", 4, 5, largest=1 << 16)))
    for wanted in DecompressedDataFormat:
        integer = "INT" in wanted.name
        largest = {"INT2": 1, "INT3": 3, "INT4": 7}.get(wanted.name, 100)
        tensor = _tensor(wanted.name, 3, 4, largest=largest, qp=_QP)
        asked = {"nnr_decompressed_data_format_present_flag": True, "nnr_decompressed_data_format": int(wanted)}
        s.add(f"as {wanted.name}", Approximation(tensor.values) if integer else tensor, **asked)
        dtype = {"INT2": "int8", "INT3": "int8", "INT4": "int8"}.get(wanted.name, wanted.name.lower())
        s.expected[f"as {wanted.name}"] = s.expected[f"as {wanted.name}"].astype(dtype)
    s.add("usual unary length", _tensor("usual", 1), cabac_unary_length_flag=False)
    return s.made()


def _inputs() -> Made:
    """Integers without any quantization in the parameter sets, and without input parameters: these come out of band."""
    s = _Stream(mps_quantization_method_flags=0, mps_qp_density=None, mps_quantization_parameter=None)
    absent = {f"{name}_flag": False for name in ("input_parameters_present", "tensor_dimensions", "cabac_unary_length")}
    s.add("outside", Approximation(_levels("outside", 5, 6)), **absent)
    s.add("inside", Approximation(_levels("inside", 5, 6)))
    known = {"outside": InputParameters((5, 6), 9)}
    return Made(s.stream.getvalue(), s.expected, input_parameters_to_json(known))


def _parameter_sets() -> Made:
    """Layer parameter sets replace the model's quantization, up to the next one or to the end of their aggregate."""
    s = _Stream(mps_quantization_parameter=-3)
    layer = {"lps_quantization_method_flags": 1, "lps_qp_density": 3, "lps_quantization_parameter": -7}
    s.add("before", _tensor("before", 4, 6), base_qp=-3)
    maps = parameter_set_fields({name: _MAPS[name] for name in list(_MAPS)[:3]}, layer=True)
    s.writer.layer_parameter_set(LayerParameterSet(**layer, **maps))
    s.add("inside", _tensor("inside", 4, 6), density=3, base_qp=-7)
    for entry_points in (False, True):
        with s.writer.aggregate(AggregateUnitType.NNR_AGG_SLF if entry_points else 0, entry_points=entry_points):
            s.writer.layer_parameter_set(LayerParameterSet(**{**layer, "lps_self_contained_flag": True}))
            s.add(f"aggregate {entry_points:d}", _tensor("aggregate", 3, 5), density=3, base_qp=-7)
        s.add(f"after {entry_points:d}", _tensor("after", 4, 6), density=3, base_qp=-7)
    for density in range(8):
        fields = {**layer, "lps_qp_density": density, "lps_quantization_parameter": -density}
        s.writer.layer_parameter_set(LayerParameterSet(**fields))
        s.add(f"density {density}", _tensor("density", 3, 4), density=density, base_qp=-density)
    s.writer.layer_parameter_set(LayerParameterSet())
    s.add("model's own", _tensor("own", 4, 6), base_qp=-3)
    return s.made()


_CLASSES: dict[str, Any] = {
    "nn_accuracy": [0.5, 0.25],
    "count_classes": [2, 1],
    "nn_class_accuracy": [[0.5, 0.75], [1.0]],
}
_MAPS: dict[str, Any] = {
    "sparsification": {
        "count_thresholds": 2,
        "sparsification_threshold": [0.125, 0.5],
        "non_zero_ratio": [0.75, 0.25],
        "class_bitmask": [5, 200],
        **_CLASSES,
    },
    "pruning": {"count_pruning_ratios": 2, "pruning_ratio": [0.5, 0.75], "class_bitmask": [3, 1], **_CLASSES},
    "unification": {
        "count_thresholds": 2,
        "reshaped_tensor_dimensions": [[64, 9], [300]],
        "super_block_dimensions": [[8, 3], [5]],
        "block_dimensions": [[4, 1], [2]],
        "unification_threshold": [0.5, 0.25],
        "class_bitmask": [3, 1],
        **_CLASSES,
    },
    "decomposition": {
        "count_thresholds": 2,
        "mse_threshold": [0.5, 0.25],
        "nn_reduction_ratio": [0.25, 0.5],
        **_CLASSES,
    },
}


def _metadata() -> Made:
    """All performance maps, descriptions of topology and quantization for all frameworks, what applications add."""
    info = ModelInfo(
        performance_maps=_MAPS,  # type: ignore[typeddict-item]
        sparse_bit_mask=[1, 0, 1],
        bit_mask_order_flag=False,
        prune_rep_type=1,
        prune_tpl_elem_ids=["w"],
        prune_tpl_count_dims=[2],
        prune_tpl_dims=[3, 5],
    )
    s = _Stream(
        topology_carriage_flag=True,
        base_model_id_present_flag=True,
        base_model_id="a base model",
        validation_set_performance_present_flag=True,
        metric_type_performance_map_valid_flag=True,
        performance_metric_type="top-1",
        validation_set_performance=0.75,
        **parameter_set_fields(_MAPS),
    )
    for number in TopologyStorageFormat:
        if number < TopologyStorageFormat.NNR_TPL_PRUN:
            s.writer.topology(Topology(number, b"topology " * (1 + 20 * (number % 2)), b"quantization " * (1 + number)))
    s.writer.topology(Topology(TopologyStorageFormat.NNR_TPL_ONNX, b"graph", None, b"private"))
    container = pruning_of(info, ())
    assert container is not None
    s.writer.pruning(container)
    s.stream.write(unit_prefix(63, b"", 3) + b"???")  # type: ignore[arg-type]  # private: skipped by its size
    s.add("w", _tensor("metadata", 4, 5))
    s.expected |= described(info)
    return s.made()


def _references() -> Made:
    """Names by index, in single units and in blocks; parts of topology, quantization and data units."""
    names = ["u.bias", "v", "u", "w"]
    s = _Stream(
        references=names,
        division=Division(max_unit_size=60),
        topology_carriage_flag=True,
        mps_topology_indexed_reference_flag=True,
    )
    letters = bytes(range(33, 120))
    info = ModelInfo(prune_rep_type=1, prune_tpl_elem_ids=["v"], prune_tpl_count_dims=[1], prune_tpl_dims=[3])
    container = pruning_of(info, names)
    assert container is not None
    s.writer.pruning(container)
    s.expected |= described(info | {"bit_mask_order_flag": container.order_flag})
    s.writer.topology(Topology(TopologyStorageFormat.NNR_TPL_NNEF, letters, letters))
    s.add("w", _tensor("w", 20, 12))
    members = {Member.BIAS: _tensor("bias", 6), Member.WEIGHT: _tensor("u", 6, 20)}
    s.add_block({Member.BIAS: "u.bias", Member.WEIGHT: "u"}, members, (6, 20), together=True)
    return s.made()


def _decomposition() -> Made:
    """Factors of a weight in one unit with scaling, bias and batch-norm, or with two codebooks, and on their own."""
    s = _Stream()
    for number, (together, booked) in enumerate(((True, False), (True, True), (False, False))):
        factors = {
            Member.G: _tensor(f"G {number}", 24, 3, scan_order=1),
            Member.H: _tensor(f"H {number}", 3, 30, scan_order=1),
        }
        if booked:
            factors = {member: _booked(tensor, 2) for member, tensor in factors.items()}
        vectors = [Member.SCALING, Member.BIAS, Member.BETA, Member.GAMMA, Member.MEAN, Member.VAR] * (number == 0)
        members = {member: _tensor(f"{member} {number}", 24) for member in vectors} | factors
        names = {member: f"{number}.{member.name.lower()}" for member in members}
        s.add_block(names, members, (24, 30), together=together)
    return s.made()


def _booked(tensor: Approximation, zero: int, egk: int | None = None) -> Approximation:
    """The tensor by a codebook of all its levels, ``zero`` being the place of the entry that level 0 stands for."""
    values = np.unique(tensor.values).astype(np.int32)
    return with_codebook(tensor, Codebook(values, min(zero, len(values) - 1), egk))


def _dimensions() -> Made:
    """A tensor whose first dimension moves, and tensors that are cut out of one and exchange their axes."""
    s = _Stream()
    for shift in (1, 2):
        tensor = _tensor(f"shift {shift}", 6, 4, 5)
        output = np.moveaxis(tensor.values, 0, shift).shape
        s.add(f"shift {shift}", tensor, tensor_dimensions=output, first_tensor_dimension_shift=shift)
        s.expected[f"shift {shift}"] = np.moveaxis(s.expected[f"shift {shift}"], 0, shift)
    s.add(
        "cut",
        _tensor("cut", 4, 9),
        nnr_multiple_topology_elements_present_flag=True,
        topology_elem_id=None,
        topology_elements_ids_list=TopologyElementsIdsList(("left", "middle", "right")),
        topology_tensor_dimension_mapping=TensorDimensionMapping(1, (2, 5), (((0, 1),), (), ((1, -1),))),
    )
    left, middle, right = np.split(s.expected.pop("cut"), (2, 5), 1)
    s.expected |= {"left": left.T, "middle": middle, "right": right.T}
    return s.made()


def _scans() -> Made:
    """Every scan order with both quantizations, rows that are skipped, one row of blocks and several."""
    s = _Stream()
    for scan_order in range(5):
        for rows in (8, 70):
            tensor = _tensor(f"scan {scan_order} {rows}", rows, 68, scan_order=scan_order)
            tensor.values[::3] = 0
            s.add(f"uniform {scan_order} {rows}", tensor)
            values = reconstructed(tensor, _DENSITY).values
            s.add(f"dependent {scan_order} {rows}", quantized(values, _QP, _DENSITY, True, scan_order))
    s.add("odd width", _dependent("odd width", 32, 67, kept=np.arange(32) % 3 > 0))
    return s.made()


def _codebooks() -> Made:
    """Codebooks with one, two and many entries, with the zero at either end and between them, and every code."""
    s = _Stream(mps_quantization_method_flags=2)
    for egk in range(16):
        s.add(f"code {egk}", _booked(_tensor(f"code {egk}", 4, 5, largest=9), 3, egk))
    for largest in (1, 2, 14, 60):
        tensor = _tensor(f"codebook {largest}", 30, 12, largest=largest)
        entries = len(np.unique(tensor.values))
        for zero in sorted({0, entries // 2, entries - 1}):
            s.add(f"codebook {largest} {zero}", _booked(tensor, zero))
    for values in (np.zeros((5, 6), np.int32), np.full(7, 3, np.int32)):
        s.add(f"constant {values.ndim}", _booked(Approximation(values, _QP), 0))
    return s.made()


def _extremes(profile: int) -> Made:
    """Levels of every size, for all contexts; unary lengths from 1 to 256; qp_density and step at their ends."""
    s = _Stream(profile)
    powers = [sign * (2**bits + offset) for bits in range(31) for sign in (1, -1) for offset in (-1, 0, 11)]
    powers = [level for level in powers if abs(level) < 1 << 31] + [(1 << 31) - 1, -(1 << 31) + 1]
    s.add("powers", Approximation(np.array(powers, np.int32), -128))
    for pattern in (0, 1, 2):  # to be larger after nothing, after something negative, after something positive
        s.add(f"after {pattern}", _tensor(f"after {pattern}", 60, 20, largest=30 + 10 * pattern))
    s.add("dependent", _dependent("dependent extremes", 64, 24))
    s.add("dependent, vector", _dependent("dependent vector", 300))
    s.add("integers", Approximation(np.array(powers, np.int32)))
    return s.made()


# --- updates ----------------------------------------------------------------------------------------------------------


def _updates(tensors: Callable[[int], dict[str, Approximation]], nodes: Sequence[Node], coding: Coding) -> list[Made]:
    """Four updates of the same tensors; ``nodes`` are their places in the parameter update tree."""
    histories: Histories = {}
    model: dict[str, NDArray[Any]] = {}
    made = []
    for number, node in enumerate(nodes):
        stream = _Stream(mps_parent_signalling_enabled_flag=True)
        left: dict[str, Any] = {}
        for index, (name, tensor) in enumerate(tensors(number).items()):
            place = replace(node, parameter_id=index)
            block = CodingBlock({Member.WEIGHT: tensor}, {Member.WEIGHT: name}, tensor.values.shape, place, histories)
            for unit in encode_block(block, coding):
                stream.writer.data_unit(unit.header, unit.payload.data)
                left |= unit.histories(histories)
                values = reconstructed(tensor, _DENSITY).values
                model[name] = model[name] + values if name in model else values
        histories = {**histories, **left}
        made.append(Made(stream.stream.getvalue(), dict(model)))
    return made


_CONTEXTS = Coding(cabac_unary_length_minus1=9, effort=Effort(True, True, True), temporal_context_modeling_flag=True)
_UPDATE = Node(True, 3, parent_node_id_present_flag=True, parent_device_id=3)


def _contexts() -> list[Made]:
    """Temporal contexts and the history, with uniform and dependent quantization, block scans, codebooks, integers."""

    def tensors(number: int) -> dict[str, Approximation]:
        some = np.array([[1], [0], [1], [2]])[(np.arange(64) + number) % 4]  # rows that change now and then
        masked = {}
        for name, scan_order in (("uniform", 0), ("blocks", 2)):
            tensor = _tensor(f"{name} {number // 2}", 64, 20, scan_order=scan_order, largest=40)
            masked[name] = replace(tensor, values=(tensor.values * some).astype(np.int32))
        sparse = _dependent(f"{number // 2}", 64, 40, kept=some)
        codebook = _booked(_tensor(f"book {number}", 40, 12, largest=5), 4)
        vector = _tensor(f"vector {number // 2}", 50, largest=20)
        integer = Approximation(_levels(f"integers {number // 3}", 30, 12, largest=30))
        return {**masked, "dependent": sparse, "codebook": codebook, "vector": vector, "integers": integer}

    return _updates(tensors, [_UPDATE] * 4, _CONTEXTS)


def _parents() -> list[Made]:
    """A base model, then parents by digest and number, without the unit's own number; an update of one tensor only."""
    nodes = [
        replace(_UPDATE, parent_node_id_present_flag=False),
        replace(_UPDATE, parent_node_id_type=ParentNodeIdType.ICNN_NDU_PL_SHA256),
        replace(_UPDATE, node_id_present_flag=False),
        replace(_UPDATE, parent_node_id_type=ParentNodeIdType.ICNN_NDU_PL_SHA512),
    ]

    def tensors(number: int) -> dict[str, Approximation]:
        changing = {"always": _tensor(f"always {number}", 6, 10)}
        return changing if number == 1 else changing | {"often": _tensor(f"often {number}", 5)}

    return _updates(tensors, nodes, _CONTEXTS)


SUPPLEMENT: dict[str, Callable[[], list[Made]]] = {
    "data_formats": lambda: [_data_formats()],
    "inputs_out_of_band": lambda: [_inputs()],
    "parameter_sets": lambda: [_parameter_sets()],
    "metadata": lambda: [_metadata()],
    "references": lambda: [_references()],
    "decomposition": lambda: [_decomposition()],
    "dimensions": lambda: [_dimensions()],
    "scans": lambda: [_scans()],
    "codebooks": lambda: [_codebooks()],
    "levels": lambda: [_extremes(1)],
    "levels_2022": lambda: [_extremes(0)],
    "contexts": _contexts,
    "parents": _parents,
}
"""By what stands in the ids of the rows, the bitstreams of the rows."""
