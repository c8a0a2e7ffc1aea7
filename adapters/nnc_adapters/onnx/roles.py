"""What the tensors of an ONNX model are for (ISO/IEC 15938-18, Table 3), from the operations that use them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from onnx import TensorProto

from nnc_adapters.onnx import values
from nnc_adapters.onnx.dataflow import Dataflow, Operation, Use, Value
from nnc_adapters.onnx.scopes import Site
from nnc_core.nnr_model import ModelInfo, ParameterType

_CONVOLUTION: dict[int, ParameterType] = {1: "conv.weight", 2: "conv.bias"}
_PRODUCT: dict[int, ParameterType] = {0: "fc.weight", 1: "fc.weight"}
_RECURRENT: dict[int, ParameterType] = {1: "fc.weight", 2: "fc.weight", 3: "fc.bias"}
# The second part are the operations of onnxruntime's optimizer.
_ROLES: dict[str, dict[int, ParameterType]] = {
    "Conv": _CONVOLUTION,
    "ConvTranspose": _CONVOLUTION,
    "DeformConv": {1: "conv.weight", 3: "conv.bias"},
    "ConvInteger": {1: "conv.weight"},
    "QLinearConv": {3: "conv.weight", 8: "conv.bias"},
    "Gemm": {0: "fc.weight", 1: "fc.weight", 2: "fc.bias"},
    "MatMul": _PRODUCT,
    "MatMulInteger": _PRODUCT,
    "QLinearMatMul": {0: "fc.weight", 3: "fc.weight"},
    "Einsum": _PRODUCT,
    "Gather": {0: "fc.weight"},  # an embedding: a matrix product with a one-hot vector
    "BatchNormalization": {1: "bn.gamma", 2: "bn.beta", 3: "bn.mean", 4: "bn.var"},
    "LSTM": _RECURRENT,
    "GRU": _RECURRENT,
    "RNN": _RECURRENT,
    **{f"com.microsoft::{name}": _CONVOLUTION for name in ("FusedConv", "NhwcFusedConv")},
    **{f"{domain}::Conv": _CONVOLUTION for domain in ("com.microsoft.nchwc", "com.ms.internal.nhwc")},
    **{f"com.microsoft::{name}": _PRODUCT for name in ("FusedMatMul", "FusedMatMulActivation", "TransposeMatMul")},
    **{f"com.microsoft::{name}": {**_PRODUCT, 2: "fc.bias"} for name in ("FusedGemm", "GemmFastGelu")},
    "com.microsoft::Attention": {1: "fc.weight", 2: "fc.bias"},
    "com.microsoft::RotaryEmbedding": {2: "unspecified", 3: "unspecified"},
}
# Operations on each number: a table that is added or multiplied may be anything, such as the places of anchors.
_ELEMENTWISE = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Sum", "Mean", "Min", "Max", "Pow", "Mod", "Where", "PRelu", "Clip"),
        *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "ScatterElements", "ScatterND"),
        *("GatherElements", "GatherND", "Resize", "Upsample", "Pad", "Tile", "Neg", "Abs", "Sqrt", "Exp", "Log"),
        *("Sin", "Cos", "Floor", "Ceil", "Round", "Reciprocal", "Sigmoid", "Tanh", "Softmax", "Relu"),
    }
)
_BIASES: dict[str, ParameterType] = {
    "Conv": "conv.bias",
    "ConvTranspose": "conv.bias",
    "Gemm": "fc.bias",
    "MatMul": "fc.bias",
}
_KNOWN = _ROLES.keys() | _ELEMENTWISE
_BATCH_NORM_SLOTS = (1, 2, 3, 4)


def model_info(coded: Mapping[str, Sequence[Site]], flow: Dataflow) -> ModelInfo:
    """The roles of the coded tensors, which may be in several places, and the blocks they form.

    The rest is ``unspecified``, but for large tensors of operations that nothing is known about.
    """
    uses = {
        name: [use for site in sites for use in flow.uses(Value(site.scope, site.name))]
        for name, sites in coded.items()
    }
    tensors = {name: sites[0].tensor for name, sites in coded.items()}
    kinds = {name: _role(uses[name], list(tensor.dims), flow) for name, tensor in tensors.items()}
    identifiers = _Blocks(tensors, uses, flow).identifiers(kinds)
    known = {name: kind for name, kind in kinds.items() if kind is not None}
    return ModelInfo(parameter_type=known, block_identifier=identifiers)


def _role(uses: list[Use], dims: list[int], flow: Dataflow) -> ParameterType | None:
    found = {role for role in (_role_of_use(use, dims, flow) for use in uses) if role is not None}
    is_vector = max(dims, default=1) == math.prod(dims)
    if not is_vector and any(use.operation.kind not in _KNOWN for use in uses):
        return None
    only: ParameterType = found.pop() if len(found) == 1 else "unspecified"
    return "unspecified" if only.endswith(".weight") and len(dims) < 2 else only


def _role_of_use(use: Use, dims: list[int], flow: Dataflow) -> ParameterType | None:
    if use.operation.kind != "Add":
        return _ROLES.get(use.operation.kind, {}).get(use.slot)
    if max(dims, default=1) != math.prod(dims):
        return None  # not one number for each channel
    other = use.operation.input(1 - use.slot)
    producer = flow.producers.get(other) if other is not None else None
    return _BIASES.get(producer.kind) if producer is not None else None


class _Blocks:
    """The blocks of Part 18: a weight, its bias, and the batch normalization that directly follows.

    All members have the output channels in dimension 0, so a matrix of shape (in, out) is in none; a tensor that
    several operations use is in none either.
    """

    def __init__(self, tensors: Mapping[str, TensorProto], uses: Mapping[str, list[Use]], flow: Dataflow) -> None:
        self.tensors, self.flow = tensors, flow
        self.single = {name: found[0] for name, found in uses.items() if len(found) == 1 and found[0].plain}
        self.at = {(use.operation, use.slot): name for name, use in self.single.items()}

    def identifiers(self, kinds: Mapping[str, ParameterType | None]) -> dict[str, str]:
        """Tensor name -> block, which is called like its weight; weights that are alone are in no block."""
        blocks = {
            name: weight
            for weight, use in self.single.items()
            if kinds[weight] in ("conv.weight", "fc.weight") and _rows_first(use)
            for name in (weight, *self._companions(weight, use.operation))
        }
        sizes = Counter(blocks.values())
        return {name: block for name, block in blocks.items() if sizes[block] > 1}

    def _companions(self, weight: str, operation: Operation) -> Iterator[str]:
        has_bias = operation.input(2) is not None
        bias = self._vector(weight, operation, 2)
        after = self._only_use(operation)
        if not has_bias and after is not None and after.operation.kind == "Add":
            has_bias, bias = True, self._vector(weight, after.operation, 1 - after.slot)
            after = self._only_use(after.operation)
        if bias is not None:
            yield bias
        # the mean of a batch normalization includes the bias: without it the block could not be folded
        if after is not None and (bias is not None or not has_bias):
            yield from self._batch_norm(weight, after)

    def _only_use(self, operation: Operation) -> Use | None:
        """What uses the first output of an operation, if that is one other operation."""
        outputs = operation.node.output
        return self.flow.only_use(Value(operation.scope, outputs[0])) if outputs else None

    def _batch_norm(self, weight: str, use: Use) -> list[str]:
        operation = use.operation
        if operation.kind != "BatchNormalization" or use.slot != 0 or operation.attribute("training_mode"):
            return []
        found = [self._vector(weight, operation, slot) for slot in _BATCH_NORM_SLOTS]
        vectors = [name for name in found if name is not None]
        return vectors if len(vectors) == len(_BATCH_NORM_SLOTS) else []

    def _vector(self, weight: str, operation: Operation, slot: int) -> str | None:
        """The tensor at an input, if it has one number for each output channel."""
        name = self.at.get((operation, slot))
        if name is None:
            return None
        tensor, rows = self.tensors[name], self.tensors[weight].dims[0]
        return name if list(tensor.dims) == [rows] and tensor.data_type in values.FLOATS else None


def _rows_first(use: Use) -> bool:
    """Whether output channels are dimension 0 of the tensor as it is stored."""
    kind, slot = use.operation.kind, use.slot
    if kind == "Conv":
        return not use.transposed
    if kind == "Gemm" and slot == 1:
        return use.transposed != bool(use.operation.attribute("transB"))
    return kind == "MatMul" and slot == 1 and use.transposed
