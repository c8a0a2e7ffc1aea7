"""TFLite models: a FlatBuffer in which the values of constant tensors are replaced where they are."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

from nnc_adapters.shared.names import free
from nnc_adapters.tensorflow.content import Content
from nnc_adapters.tensorflow.flatbuffer import Table, root
from nnc_adapters.tensorflow.model import Opened, Span, Variable
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.nnr_model import ParameterType
from nnc_core.records import dataclass

__all__ = ["IDENTIFIER", "open_tflite", "variables"]

IDENTIFIER = b"TFL3"
_FILE = "model.tflite"

# the fields of Model, SubGraph, Tensor, Buffer, Operator and OperatorCode that are looked at
_CODES, _SUBGRAPHS, _BUFFERS = 1, 2, 4
_TENSORS, _OPERATORS = 0, 3
_SHAPE, _TYPE, _BUFFER, _NAME, _SPARSITY = 0, 1, 2, 3, 6
_DATA, _OFFSET, _SIZE = 0, 1, 2
_OPCODE, _INPUTS = 0, 1
_OLD_CODE, _CODE = 0, 3

# TensorType, without those that have no fixed size or several values in a byte
_TYPES = {
    0: ("float32", 4),
    1: ("float16", 2),
    2: ("int32", 4),
    3: ("uint8", 1),
    4: ("int64", 8),
    7: ("int16", 2),
    9: ("int8", 1),
    10: ("float64", 8),
    15: ("uint32", 4),
    16: ("uint16", 2),
    18: ("bfloat16", 2),
}
# by BuiltinOperator: convolutions (plain, depthwise, transposed) and matrix products
_CONVOLUTION: dict[int, ParameterType] = {1: "conv.weight", 2: "conv.bias"}
_ROLES: dict[int, dict[int, ParameterType]] = {
    3: _CONVOLUTION,
    4: _CONVOLUTION,
    67: {1: "conv.weight", 3: "conv.bias"},
    9: {1: "fc.weight", 2: "fc.bias"},
}


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    role: ParameterType | None


def open_tflite(content: Content, limits: Limits) -> Opened:
    """Open a model; `ModelError` where something in it is not inside the file."""
    return Opened("tflite", {_FILE: content}, variables(content.raw().data, _FILE, limits))


def variables(data: memoryview, file: str, limits: Limits) -> list[Variable]:
    """The constants in a model, which ``file`` is the path of, called by their names."""
    model = root(data)
    buffers = [_buffer(table) for table in model.tables(_BUFFERS)]
    codes = [max(table.number(_OLD_CODE, 1), table.number(_CODE, 4)) for table in model.tables(_CODES)]
    shared: dict[int, list[_Tensor]] = {}
    for graph in model.tables(_SUBGRAPHS):
        for tensor in _tensors(graph, buffers, codes, limits):
            shared.setdefault(tensor.offset, []).append(tensor)
    # tensors of different types in the same bytes: which of them the values are is anybody's guess
    groups = [group for group in shared.values() if len({tensor.dtype for tensor in group}) == 1]
    taken: Counter[str] = Counter()
    return [_variable(free(group[0].name, taken), group, file) for group in groups]


def _variable(name: str, group: list[_Tensor], file: str) -> Variable:
    first, roles = group[0], {tensor.role for tensor in group}
    role = first.role if len(roles) == 1 else None
    return Variable(name, first.dtype, first.shape, (Span(file, first.offset),), role)


def _buffer(table: Table) -> tuple[int, int]:
    """Where the values in a buffer begin, and how many bytes they are."""
    start, size = table.vector(_DATA, 1)
    offset = table.number(_OFFSET, 8)
    if size == 0 and offset > 1:  # behind the FlatBuffer, in a model of more than 2 GiB
        start, size = offset, table.number(_SIZE, 8)
    if size < 0 or start + size > len(table.data):
        raise ModelError(f"a buffer of {size} bytes at byte {start} ends outside the file")
    return start, size


def _tensors(graph: Table, buffers: list[tuple[int, int]], codes: list[int], limits: Limits) -> Iterator[_Tensor]:
    roles = _roles(graph, codes)
    for number, table in enumerate(graph.tables(_TENSORS)):
        index = table.number(_BUFFER, 4)
        if not 0 <= index < len(buffers):
            if buffers or index:
                raise ModelError(f"tensor {number} is in buffer {index}, there are {len(buffers)}")
            continue
        start, size = buffers[index]
        dtype, itemsize = _TYPES.get(table.number(_TYPE, 1), ("", 0))
        shape = tuple(table.numbers(_SHAPE))
        limits.check("dimensions", len(shape), f"tensor {number}")
        dense = min(shape, default=0) >= 0 and math.prod(shape) * itemsize == size and table.table(_SPARSITY) is None
        if size and dense:
            found = roles.get(number, set())
            role = next(iter(found)) if len(found) == 1 else None
            yield _Tensor(table.text(_NAME) or f"buffer {index}", dtype, shape, start, role)


def _roles(graph: Table, codes: list[int]) -> dict[int, set[ParameterType | None]]:
    """What the operators use each tensor for."""
    found: dict[int, set[ParameterType | None]] = {}
    for operator in graph.tables(_OPERATORS):
        code = operator.number(_OPCODE, 4)
        if not 0 <= code < len(codes):
            raise ModelError(f"an operator has code {code}, there are {len(codes)}")
        for slot, tensor in enumerate(operator.numbers(_INPUTS)):
            found.setdefault(tensor, set()).add(_ROLES.get(codes[code], {}).get(slot))
    return found
