"""What the weights of ONNX are, from the operations that use them."""

from __future__ import annotations

from math import prod

from onnx import TensorProto

from nnc_adapters.onnx import stubs
from nnc_adapters.onnx.dataflow import Dataflow, Operation, Use, Value
from nnc_adapters.onnx.reader import parsed
from nnc_adapters.onnx.scopes import scopes, sites
from nnc_adapters.shared.kinds import TURNED, VECTORS, Shapes
from nnc_core.limits import Limits

__all__ = ["kinds"]

_KINDS: dict[tuple[str, int], str] = {
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


def kinds(topology: bytes, shapes: Shapes) -> dict[str, str | None]:
    """The kind of every tensor, None where the operations do not tell."""
    found = scopes(parsed(topology), Limits())
    flow = Dataflow(found)
    places = {_stub_name(site.tensor): Value(site.scope, site.name) for scope in found for site in sites(scope)}
    return {name: _kind(flow.uses(places[name]), shapes[name], flow) for name in shapes if name in places}


def _stub_name(tensor: TensorProto) -> str:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    return stubs.undo(copy)[0] if stubs.is_stub(tensor) else ""


def _kind(uses: list[Use], shape: tuple[int, ...], flow: Dataflow) -> str | None:
    kinds = {_kind_of_use(use, shape, flow) for use in uses}
    if kinds == {"dense", "embedding"}:  # tied: both are canonical
        return "dense"
    return kinds.pop() if len(kinds) == 1 else None


def _kind_of_use(use: Use, shape: tuple[int, ...], flow: Dataflow) -> str | None:
    operation, slot = use.operation, use.slot
    if operation.kind in _CELLS and slot in _PLACES:
        return f"{_cell(operation)}.{_PLACES[slot]}" if use.plain and not use.transposed else None
    kind = _KINDS.get((operation.kind, slot))
    if kind in VECTORS:
        return kind if prod(shape) == max(shape, default=1) and _has_data(operation, slot, flow) else None
    if kind in TURNED:
        turned = bool(operation.attribute("transA" if slot == 0 else "transB")) != use.transposed
        kind = TURNED[kind] if turned else kind
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
