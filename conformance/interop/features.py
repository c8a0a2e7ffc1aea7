"""Exchanges what is more than single tensors with the public codec NNCodec: blocks, folding, factors, updates.

For each feature: do both decoders give the same bits for our bitstreams, and for the peer's; and is ours never larger
than the peer's at equal settings? Where the peer cannot do one or the other, the table says why.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

import nnc_core
from conformance.support import peer_codec
from nnc_core import approximator
from nnc_core.approximator import ApproxData, ApproxInfo
from nnc_core.coder import part18 as coder
from nnc_core.coder.data import EncInfo
from nnc_core.coder.history import Histories
from nnc_core.file import NnrFile
from nnc_core.nnr_model import ModelInfo

Tensors = dict[str, NDArray[Any]]

QP, VECTOR_QP = -38, -75
_PEER_TYPES = {"conv.weight": "weight", "fc.weight": "weight", "conv.bias": "bias", "fc.bias": "bias"}
_NO_TOOL = "its interface for the history is not documented"
_NO_TRAINING = "it adds scalings in training only"
_NO_FACTORS = "it does not decompose"
_NO_PRODUCT = "it fails where factors are to be multiplied"


@dataclass(frozen=True)
class Feature:
    """What is coded, by us and by the peer; ``peer_encodes`` or ``peer_decodes`` say why it does not, if so."""

    name: str
    models: list[Tensors]
    info: ModelInfo = field(default_factory=ModelInfo)
    tools: tuple[str, ...] = ()
    enc_info: EncInfo = field(default_factory=EncInfo)
    approx_info: ApproxInfo = field(default_factory=ApproxInfo)
    options: Mapping[str, Any] = field(default_factory=dict)
    updates: bool = False
    history: bool = False
    peer_encodes: str = ""
    peer_decodes: str = ""


@dataclass
class FeatureResult:
    """Sizes in bytes of all bitstreams of a feature, and what went wrong."""

    feature: str
    ours: int
    theirs: int | None = None
    remarks: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def features() -> Iterator[Feature]:
    """All that the peer knows, alone or with us."""
    plain = model(bias=False, norm=False)
    yield Feature("bias", *model(bias=True, norm=False))
    yield Feature("batch-norm", *model(bias=False, norm=True))
    yield Feature("bias and batch-norm", *model(bias=True, norm=True))
    yield Feature("block scan 8 x 8", *model(bias=True, norm=True), **scan(1))
    yield Feature("no dq", *model(bias=True, norm=True), approx_info={"dq_flag": {}}, options={"use_dq": False})
    yield Feature("separate units", *model(True, True), enc_info={"nnr_pt_block_enabled_flag": 0}, peer_encodes="-")
    fold = {"tools": ("fold",), "options": {"bnf": True}}
    yield Feature("batch-norm folded", *model(bias=False, norm=True), **fold)
    yield Feature("batch-norm and bias folded", *model(bias=True, norm=True), **fold)
    yield Feature("local scaling", *model(bias=True, norm=True), tools=("scale",), peer_encodes=_NO_TRAINING)
    yield Feature("factors", *plain, tools=("decompose",), peer_encodes=_NO_FACTORS, peer_decodes=_NO_PRODUCT)
    yield Feature(
        "factors in a block",
        *model(True, True),
        tools=("decompose",),
        peer_encodes=_NO_FACTORS,
        peer_decodes=_NO_PRODUCT,
    )
    few = model(bias=True, norm=False, levels=9)
    codebook: Any = {"approx_info": {"approx_method": "codebook", "dq_flag": {}}}
    yield Feature("codebooks", *few, **codebook, options={"codebook_mode": 1, "use_dq": False})
    yield Feature(
        "codebooks of factors",
        *few,
        **codebook,
        tools=("decompose",),
        peer_encodes=_NO_FACTORS,
        peer_decodes=_NO_PRODUCT,
    )
    yield Feature("row skipping", *model(True, False, rows=0.4), options={"row_skipping": True})
    yield from updates()


def updates() -> Iterator[Feature]:
    """Chains of four updates."""
    contexts = {"tca": True, "compress_differences": True, "row_skipping": True}
    chain: Any = {"updates": True, "options": contexts, "approx_info": {"qp": {}}}
    steps, info = changes(bias=True, norm=False)
    yield Feature("updates: temporal contexts", steps, ModelInfo(), enc_info=update_info(), **chain)
    scans = {**chain, **scan(1), "options": {**contexts, "scan_order": 1}}
    yield Feature("updates: temporal contexts, scan", steps, ModelInfo(), enc_info=update_info(), **scans)
    history = {**chain, "history": True, "peer_encodes": _NO_TOOL, "peer_decodes": _NO_TOOL}
    yield Feature("updates: history", steps, ModelInfo(), enc_info=update_info(), **history)
    yield Feature("updates: blocks", steps, info, enc_info=update_info(), peer_encodes="-", **chain)


def update_info() -> EncInfo:
    return {"parent_node_id_present_flag": 1, "node_id_present_flag": 1, "temporal_context_modeling_flag": 1}


def scan(order: int) -> dict[str, Any]:
    return {"tools": ("scan",), "options": {"scan_order": order}}


def model(bias: bool, norm: bool, levels: int = 0, rows: float = 0.0) -> tuple[list[Tensors], ModelInfo]:
    """A convolution and a full connection, with what belongs to them."""
    random = np.random.default_rng(5)
    info = ModelInfo(parameter_type={}, block_identifier={}, parameter_index={})
    tensors: Tensors = {}
    for layer, shape in (("conv", (16, 8, 3, 3)), ("fc", (24, 40))):
        weight = random.laplace(0, 0.05, shape).astype(np.float32)
        if levels:
            weight = np.clip(np.round(weight * 20), -(levels // 2), levels // 2).astype(np.float32) / 20  # type: ignore[assignment]
        weight[random.random(len(weight)) < rows] = 0
        vectors = {"bias": f"{layer}.bias"} if bias else {}
        vectors |= {name: f"bn.{name}" for name in ("beta", "gamma", "mean", "var")} if norm else {}
        for name, kind in (("weight", f"{layer}.weight"), *vectors.items()):
            vector = np.abs(random.normal(0.5, 0.3, shape[0]).astype(np.float32)) + np.float32(0.01)
            tensors[f"{layer}.{name}"] = weight if name == "weight" else vector
            info["parameter_type"][f"{layer}.{name}"] = kind  # type: ignore[assignment]
            info["parameter_index"][f"{layer}.{name}"] = len(info["parameter_index"])
            if vectors:
                info["block_identifier"][f"{layer}.{name}"] = layer
    return [tensors], info


def changes(bias: bool, norm: bool) -> tuple[list[Tensors], ModelInfo]:
    """Updates that are sparse, and alike."""
    (tensors,), info = model(bias, norm)
    random = np.random.default_rng(6)
    often = {name: random.random(array.shape) for name, array in tensors.items()}

    def update() -> Tensors:
        moved = {name: random.random(array.shape) < often[name] ** 2 for name, array in tensors.items()}
        return {n: (random.normal(0, 0.01, a.shape) * moved[n]).astype(np.float32) for n, a in tensors.items()}

    return [update() for _ in range(4)], info


# --- both ways --------------------------------------------------------------------------------------------------------


def check(feature: Feature, folder: Path) -> FeatureResult:
    """Code and decode both ways."""
    ours = list(encoded(feature))
    result = FeatureResult(feature.name, sum(map(len, ours)))
    exchange("ours", ours, feature, folder, result, feature.peer_decodes)
    if feature.peer_encodes:
        result.remarks.append(f"peer does not encode: {feature.peer_encodes}" * (feature.peer_encodes != "-"))
        return result
    try:
        theirs = peer_encoded(feature, folder)
    except peer_codec.PeerError as error:
        result.failures.append(str(error))
        return result
    result.theirs = sum(map(len, theirs))
    exchange("theirs", theirs, feature, folder, result, feature.peer_decodes)
    if result.ours > result.theirs:
        result.failures.append("ours is larger")
    return result


def encoded(feature: Feature) -> Iterator[bytes]:
    """Our bitstreams."""
    histories: Histories = {}
    for tensors in feature.models:
        data = approximated(feature, tensors)
        coded = coder.encode_all(
            feature.enc_info, feature.info, data, histories=histories, hist_dep_sig_prob=feature.history
        )
        histories = coded.histories
        yield coded.bitstream


def approximated(feature: Feature, tensors: Tensors) -> ApproxData:
    order = feature.options.get("scan_order", 0)
    data = ApproxData(parameters=dict(tensors), qp_density=2, scan_order=dict.fromkeys(tensors, order))
    qp = {name: QP if array.ndim > 1 else VECTOR_QP for name, array in tensors.items()}
    settings = ApproxInfo(approx_method="uniform", qp=qp, dq_flag=dict.fromkeys(tensors, 1))
    settings |= {key: value or settings.get(key) for key, value in feature.approx_info.items()}  # type: ignore[typeddict-item]
    if feature.approx_info.get("dq_flag") == {}:
        settings["dq_flag"] = {}
    if "decompose" in feature.tools:
        approximator.decompose(feature.info, data, rank=5)
    if "fold" in feature.tools:
        approximator.fold_bn(feature.info, data, settings)
    if "scale" in feature.tools:
        scales = {n: np.linspace(0.5, 2, len(a)).astype(np.float32) for n, a in tensors.items() if a.ndim > 1}
        approximator.set_lsa(feature.info, data, scales)
        settings["qp"] |= {f"{name}_scaling": VECTOR_QP for name in scales}
        settings["dq_flag"] |= {f"{name}_scaling": 1 for name in scales}
    return approximator.approx(settings, feature.info, data)


def peer_encoded(feature: Feature, folder: Path) -> list[bytes]:
    """The peer's bitstreams."""
    files = []
    for number, tensors in enumerate(feature.models):
        source, target = folder / f"{number}.npz", folder / f"{number}.nnr"
        np.savez(source, **tensors)
        files.append((source, target))
    usual = {"qp": QP, "nonweight_qp": VECTOR_QP, "cabac_unary_length_minus1": 10, "use_dq": True}
    known = {"block_id_and_param_type": peer_info(feature.info)} if feature.info.get("block_identifier") else {}
    peer_codec.session("encode", files, {**usual, **known, **feature.options}, feature.updates)
    return [target.read_bytes() for _, target in files]


def peer_info(info: ModelInfo) -> dict[str, dict[str, str]]:
    """What the peer wants to know of blocks; it has one type for all weights, and one for all biases."""
    types = {name: _PEER_TYPES.get(kind, kind) for name, kind in info["parameter_type"].items()}
    return {"block_identifier": dict(info["block_identifier"]), "parameter_type": types}


def exchange(
    whose: str, bitstreams: list[bytes], feature: Feature, folder: Path, result: FeatureResult, impossible: str
) -> None:
    """Hold our decoder's tensors against the peer's."""
    if impossible:
        result.remarks.append(f"peer does not decode: {impossible}")
        return
    files = []
    for number, data in enumerate(bitstreams):
        source, target = folder / f"{whose}{number}.nnr", folder / f"{whose}{number}.npz"
        source.write_bytes(data)
        files.append((source, target))
    try:
        peer_codec.session("decode", files, {}, feature.updates)
        decoded = list(our_tensors(bitstreams, feature.updates))
    except (nnc_core.NncError, peer_codec.PeerError) as error:
        result.failures.append(f"{whose}: {error}")
        return
    for ours, (_, target) in zip(decoded, files, strict=True):
        with np.load(target) as archive:
            result.failures += differences(whose, ours, {name: archive[name] for name in archive.files})


def our_tensors(bitstreams: list[bytes], updates: bool) -> Iterator[Tensors]:
    histories: Histories | None = {} if updates else None
    for data in bitstreams:
        file = NnrFile(data, history=histories)
        yield dict(file.decode_all())
        histories = file.history_after() if updates else None


def differences(whose: str, ours: Tensors, theirs: Tensors) -> list[str]:
    if ours.keys() != theirs.keys():
        return [f"{whose}: different tensors, {sorted(ours)[:3]} and {sorted(theirs)[:3]} ..."]
    return [
        f"{whose}: {name} differs"
        for name, array in ours.items()
        if array.shape != theirs[name].shape or array.tobytes() != theirs[name].astype(array.dtype).tobytes()
    ]


def table_of(results: list[FeatureResult]) -> Table:
    table = Table(title="features, both directions", caption="bytes of all bitstreams of a feature")
    table.add_column("feature")
    for column in ("ours", "theirs", "difference"):
        table.add_column(column, justify="right")
    table.add_column("")
    for r in results:
        verdict = "[red]" + "; ".join(r.failures[:3]) if r.failures else "[green]ok"
        remark = "".join(f" [dim]({remark})" for remark in r.remarks if remark)
        difference = "-" if r.theirs is None else f"{r.ours - r.theirs:+}"
        table.add_row(r.feature, str(r.ours), "-" if r.theirs is None else str(r.theirs), difference, verdict + remark)
    return table
