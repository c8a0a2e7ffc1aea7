"""What an ONNX model is to `nnc_adapters.shared.sensitivity`: its operations, and its tensors as constants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from onnx import TensorProto

from nnc_adapters.onnx import values
from nnc_adapters.onnx.dataflow import Dataflow, Operation, Value
from nnc_adapters.onnx.scopes import Site
from nnc_adapters.shared.sensitivity import ROOT, TO_WHOLE, Constant, Sensitivity, Step, is_argument

_WHOLE_NUMBERS = values.INTEGERS | {TensorProto.UINT64, TensorProto.BOOL}
_SHORT = values.SHORT_FLOATS | {TensorProto.INT4, TensorProto.UINT4}


def sensitivity(flow: Dataflow, sites: Sequence[Site], folder: values.Folder) -> Sensitivity:
    """What follows for the tensors of a model, called by their `Value`."""
    tensors = {Value(site.scope, site.name): site.tensor for site in sites if site.name}
    constants = {value: _constant(tensor) for value, tensor in tensors.items()}
    roots = {value for value, tensor in tensors.items() if _is_below_one(tensor, folder)}
    return Sensitivity([_step(operation, roots) for operation in flow.operations], constants, flow.crossings)


def takes_as_argument(flow: Dataflow, sites: Iterable[Site]) -> bool:
    """Whether any operation takes a tensor in one of these places as an argument rather than as weights."""
    uses = (use for site in sites for use in flow.uses(Value(site.scope, site.name)))
    return any(is_argument(use.operation.kind, use.slot) for use in uses)


def _constant(tensor: TensorProto) -> Constant:
    integers = tensor.data_type in values.INTEGERS and tensor.data_type != TensorProto.INT64
    return Constant(tuple(tensor.dims), integers or tensor.data_type in _SHORT)


def _is_below_one(tensor: TensorProto, folder: values.Folder) -> bool:
    """Whether it can be the exponent of a root."""
    is_number = tensor.data_type in values.FLOATS and values.count(tensor) == 1
    return is_number and bool(values.load(tensor, folder).item() < 1)


def _step(operation: Operation, roots: set[Value]) -> Step:
    inputs = tuple(operation.input(slot) for slot in range(len(operation.node.input)))
    return Step(_kind(operation, inputs, roots), operation.node.op_type, inputs, tuple(_outputs(operation)))


def _kind(operation: Operation, inputs: tuple[Value | None, ...], roots: set[Value]) -> str:
    kind = operation.kind
    if kind == "Pow" and roots.intersection(inputs[1:]):
        return ROOT
    return TO_WHOLE if kind == "Cast" and operation.attribute("to") in _WHOLE_NUMBERS else kind


def _outputs(operation: Operation) -> Iterator[Value]:
    return (Value(operation.scope, name) for name in operation.node.output if name)
