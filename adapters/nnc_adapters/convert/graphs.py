"""What the weights of ONNX and NNEF are, from the operations that use them; both in the order of use."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from nnc_adapters.nnef import syntax
from nnc_core.errors import MissingDependencyError
from nnc_core.limits import Limits

if TYPE_CHECKING:
    from onnx import TensorProto

    from nnc_adapters.onnx.dataflow import Dataflow, Operation, Use

__all__ = ["nnef_kinds", "onnx_kinds"]

Shapes = Mapping[str, tuple[int, ...]]

_ONNX: dict[tuple[str, int], str] = {
    ("Conv", 1): "conv",
    ("Conv", 2): "bias",
    ("ConvTranspose", 1): "deconv",
    ("ConvTranspose", 2): "bias",
    ("Gemm", 0): "dense",
    ("Gemm", 1): "dense_input_first",
    ("Gemm", 2): "bias",
    ("MatMul", 0): "dense",
    ("MatMul", 1): "dense_input_first",
    ("Gather", 0): "embedding",
    ("BatchNormalization", 1): "scale",
    ("BatchNormalization", 2): "shift",
    ("BatchNormalization", 3): "mean",
    ("BatchNormalization", 4): "variance",
    **{(kind, 1): "scale" for kind in ("InstanceNormalization", "LayerNormalization", "GroupNormalization", "PRelu")},
    **{(kind, 2): "shift" for kind in ("InstanceNormalization", "LayerNormalization", "GroupNormalization")},
    **{("Add", slot): "bias" for slot in (0, 1)},
    **{("Mul", slot): "scale" for slot in (0, 1)},
}
_CELLS = {"LSTM": "lstm", "GRU": "gru", "RNN": "rnn"}
_PLACES = {1: "input", 2: "state", 3: "bias"}
_TURNED = {"dense": "dense_input_first", "dense_input_first": "dense"}
_VECTORS = ("bias", "shift", "scale", "mean", "variance")


def onnx_kinds(topology: bytes, shapes: Shapes, limits: Limits) -> dict[str, str | None]:
    """The kind of every tensor, None where the operations do not tell, in the order of the first use."""
    try:
        from nnc_adapters.onnx.dataflow import Dataflow, Value
        from nnc_adapters.onnx.reader import parsed
        from nnc_adapters.onnx.scopes import scopes, sites
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "onnx", "onnx", "the format ONNX") from error
    found = scopes(parsed(topology), limits)
    flow = Dataflow(found)
    order = {operation: index for index, operation in enumerate(dict.fromkeys(flow.producers.values()))}
    kinds: dict[str, tuple[tuple[int, int], str | None]] = {}
    for site in (site for scope in found for site in sites(scope)):
        name = _stub_name(site.tensor)
        if name in shapes:
            uses = flow.uses(Value(site.scope, site.name))
            # an operation may make nothing: then it is none of the producers
            places = ((order.get(use.operation, len(order)), use.slot) for use in uses)
            kinds[name] = min(places, default=(len(order), 0)), _onnx_kind(uses, shapes[name], flow)
    return {name: kinds[name][1] for name in sorted(kinds, key=lambda name: kinds[name][0])}


def _stub_name(tensor: TensorProto) -> str:
    from onnx import TensorProto

    from nnc_adapters.onnx import stubs

    copy = TensorProto()
    copy.CopyFrom(tensor)
    return stubs.undo(copy) if stubs.is_stub(tensor) else ""


def _onnx_kind(uses: list[Use], shape: tuple[int, ...], flow: Dataflow) -> str | None:
    kinds = {_kind_of_use(use, shape, flow) for use in uses}
    if kinds == {"dense", "embedding"}:  # tied: both are canonical
        return "dense"
    return kinds.pop() if len(kinds) == 1 else None


def _kind_of_use(use: Use, shape: tuple[int, ...], flow: Dataflow) -> str | None:
    operation, slot = use.operation, use.slot
    if operation.kind in _CELLS and slot in _PLACES:
        return f"{_cell(operation)}.{_PLACES[slot]}" if use.plain and not use.transposed else None
    kind = _ONNX.get((operation.kind, slot))
    if kind in _VECTORS:
        return kind if prod(shape) == max(shape, default=1) and _has_data(operation, slot, flow) else None
    if kind in _TURNED:
        turned = bool(operation.attribute("transA" if slot == 0 else "transB")) != use.transposed
        kind = _TURNED[kind] if turned else kind
        return kind if use.plain and len(shape) == 2 else None
    if kind == "embedding" and operation.attribute("axis"):
        return None
    return kind if use.plain and not use.transposed else None


def _has_data(operation: Operation, slot: int, flow: Dataflow) -> bool:
    """Whether the other operand of an addition or multiplication is computed, so that this one is a parameter."""
    other = operation.input(1 - slot) if operation.kind in ("Add", "Mul") else operation.input(0)
    return other is not None and (other in flow.producers or other.name in other.scope.inputs)


def _cell(operation: Operation) -> str:
    reset_before = operation.kind == "GRU" and not operation.attribute("linear_before_reset")
    return "gru_reset_before" if reset_before else _CELLS[operation.kind]


_NNEF: dict[tuple[str, str], str] = {
    **{(kind, "filter"): "conv" for kind in ("conv", "depthwise_conv")},
    ("deconv", "filter"): "deconv",
    ("linear", "filter"): "dense",
    ("matmul", "A"): "dense",
    ("matmul", "B"): "dense_input_first",
    **{(kind, "bias"): "bias" for kind in ("conv", "deconv", "linear")},
    ("batch_normalization", "mean"): "mean",
    ("batch_normalization", "variance"): "variance",
    ("batch_normalization", "offset"): "shift",
    ("batch_normalization", "scale"): "scale",
    ("prelu", "alpha"): "scale",
    **{("add", slot): "bias" for slot in "xy"},
    **{("mul", slot): "scale" for slot in "xy"},
}


def nnef_kinds(graph: bytes, shapes: Shapes) -> dict[str, str | None]:
    """The kind of every variable by its label, None where the operations do not tell, in the order of the first use."""
    variables: dict[object, str] = {}
    found: dict[str, set[str | None]] = {}
    for operation in syntax.parsed(graph).operations:
        name = operation.arguments.get("label")
        if operation.name == "variable" and isinstance(name, str):
            variables |= dict.fromkeys(operation.results, name)
            continue
        for slot, argument in operation.arguments.items():
            label = variables.get(argument) if isinstance(argument, syntax.Value) else None
            if label is not None and label in shapes:
                kind = _nnef_kind(operation.name, slot, operation.arguments, shapes[label])
                found.setdefault(label, set()).add(kind)
    kinds = {label: next(iter(kinds)) if len(kinds) == 1 else None for label, kinds in found.items()}
    return {**kinds, **{label: None for label in shapes if label not in kinds}}


def _nnef_kind(operation: str, slot: str, attributes: Mapping[str, Any], shape: tuple[int, ...]) -> str | None:
    kind = _NNEF.get((operation, slot))
    if kind in _TURNED:
        turned = operation == "matmul" and attributes.get(f"transpose{slot}")
        return (_TURNED[kind] if turned else kind) if len(shape) == 2 else None
    if kind in _VECTORS and prod(shape) != max(shape, default=1):
        return None
    return kind
