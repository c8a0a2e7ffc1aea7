"""The values of an ONNX tensor: where they lie, whether they are what the dimensions say, and as a numpy array."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from nnc_adapters.shared.compressed import Unpacked, is_compressed
from nnc_adapters.shared.windows import window
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.records import dataclass

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
INTEGERS = frozenset(
    {
        TensorProto.INT8,
        TensorProto.UINT8,
        TensorProto.INT16,
        TensorProto.UINT16,
        TensorProto.INT32,
        TensorProto.UINT32,
        TensorProto.INT64,
    }
)

SHORT_FLOATS = frozenset(
    TensorProto.DataType.Value(name)
    for name in ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0", "FLOAT4E2M1")
    if hasattr(TensorProto, name)
)

_BYTE_FLOATS = frozenset(kind for kind in SHORT_FLOATS if not TensorProto.DataType.Name(kind).startswith("FLOAT4"))
WHOLE_BYTES = FLOATS | INTEGERS | {TensorProto.BOOL, TensorProto.UINT64} | _BYTE_FLOATS
"""The types that `load` knows."""

# The location of bytes that were lifted out of the model file itself; no file can have this name.
ITSELF = "\0"

_BITS = {
    **dict.fromkeys(["UINT2", "INT2"], 2),
    **dict.fromkeys(["UINT4", "INT4", "FLOAT4E2M1"], 4),
    **dict.fromkeys(["UINT8", "INT8", "BOOL"], 8),
    **dict.fromkeys(["FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0"], 8),
    **dict.fromkeys(["UINT16", "INT16", "FLOAT16", "BFLOAT16"], 16),
    **dict.fromkeys(["UINT32", "INT32", "FLOAT"], 32),
    **dict.fromkeys(["UINT64", "INT64", "DOUBLE", "COMPLEX64"], 64),
    "COMPLEX128": 128,
}
_MOST_DIMENSIONS = 64
_TYPED_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


@dataclass(frozen=True, slots=True)
class Span:
    """Where the values lie: ``size`` bytes of ``path`` from ``offset``."""

    path: Path
    offset: int
    size: int

    def bytes(self) -> NDArray[np.uint8]:
        """The bytes, brought into memory where they are touched; `ModelError` where the file has become shorter."""
        return window(self.path, self.offset, self.size)


class Folder:
    """The folder of a model, where its external data may lie; that of the file itself if the model is a link to it.

    A compressed model is unpacked as long as this object exists; ``content`` is the file with its bytes.
    """

    def __init__(self, model: Path, limits: Limits) -> None:
        self.model = model.absolute()
        self.homes = tuple(dict.fromkeys((model.parent.resolve(), model.resolve().parent)))
        with model.open("rb") as stream:
            compressed = is_compressed(stream.read(8))
        self._unpacked = Unpacked(model, limits) if compressed else None
        self.content = self._unpacked.path if self._unpacked else self.model
        self._sizes: dict[str, tuple[Path, int]] = {}

    def span(self, tensor: TensorProto) -> Span:
        """Where the external data of ``tensor`` lie; `ModelError` where that is not inside a file of the folder."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        try:
            path, available = self._file(entries.get("location", ""))
            offset = _number(entries.get("offset", "0"))
            needed = byte_size(tensor)
            size = _number(entries["length"]) if "length" in entries else needed
        except (OSError, ValueError) as error:
            raise ModelError(f"external data: {error}", file=str(self.model), tensor=tensor.name) from error
        if size is None:
            size = available - offset
        if size < 0 or offset + size > available or (needed is not None and size != needed):
            message = f"external data: {size} bytes at {offset} of {available}, {needed} are needed"
            raise ModelError(message, file=str(self.model), tensor=tensor.name)
        return Span(path, offset, size)

    def _file(self, location: str) -> tuple[Path, int]:
        if location not in self._sizes:
            path = self.content if location == ITSELF else self._inside(location)
            self._sizes[location] = (path, path.stat().st_size)
        return self._sizes[location]

    def _inside(self, location: str) -> Path:
        # a backslash separates folders on some systems, and a colon names a drive
        parts = location.replace("\\", "/").split("/")
        if not location or ".." in parts or ":" in parts[0] or "\0" in location or parts[0] == "":
            raise ValueError(f"location {location!r} is not a relative path inside the model's folder")
        for path in (home.joinpath(location).resolve() for home in self.homes):
            if not any(path.is_relative_to(home) for home in self.homes):
                raise ValueError(f"location {location!r} leads out of the model's folder")
            if path.is_file():
                return path
        raise ValueError(f"there is no file {location!r} in the model's folder")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise ValueError(f"{text!r} is not a number of bytes")
    return int(text)


def is_external(tensor: TensorProto) -> bool:
    """Whether the values lie in another file."""
    return tensor.data_location == TensorProto.EXTERNAL


def count(tensor: TensorProto) -> int:
    """The number of elements; `ModelError` for a negative dimension, or more dimensions than an array can have."""
    if len(tensor.dims) > _MOST_DIMENSIONS:
        raise ModelError(f"it has {len(tensor.dims)} dimensions", tensor=tensor.name)
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"negative dimension in {list(tensor.dims)}", tensor=tensor.name)
    return math.prod(tensor.dims)


def byte_size(tensor: TensorProto) -> int | None:
    """How many bytes the elements take; None for data types without fixed size, or unknown."""
    name = _type_name(tensor.data_type)
    return -(-count(tensor) * _BITS[name] // 8) if name in _BITS else None


def _type_name(data_type: int) -> str:
    return TensorProto.DataType.Name(data_type) if data_type in TensorProto.DataType.values() else str(data_type)


def dtype(data_type: int) -> np.dtype[Any]:
    """The numpy type of one of `WHOLE_BYTES`."""
    # older versions of the package take float32 for bfloat16
    bfloat16 = data_type == TensorProto.BFLOAT16
    return np.dtype(ml_dtypes.bfloat16 if bfloat16 else helper.tensor_dtype_to_np_dtype(data_type))


def check(tensor: TensorProto, folder: Folder) -> None:
    """`ModelError` unless the dimensions and the data of ``tensor`` agree."""
    elements = count(tensor)
    if is_external(tensor):
        folder.span(tensor)
        return
    typed = [name for name in _TYPED_FIELDS if len(getattr(tensor, name))]
    if len(typed) + bool(tensor.raw_data) > 1:
        raise ModelError("its values are stored twice", tensor=tensor.name)
    size = byte_size(tensor)
    if typed:
        _check_typed(tensor, typed[0], elements)
    elif size is not None and len(tensor.raw_data) != size:
        message = f"dimensions {list(tensor.dims)} need {size} bytes, there are {len(tensor.raw_data)}"
        raise ModelError(message, tensor=tensor.name)


def _check_typed(tensor: TensorProto, stored: str, elements: int) -> None:
    known = tensor.data_type in TensorProto.DataType.values() and tensor.data_type != TensorProto.UNDEFINED
    name = _type_name(tensor.data_type)
    if not known:
        return
    if stored != helper.tensor_dtype_to_field(tensor.data_type):
        raise ModelError(f"values of type {name} cannot lie in {stored}", tensor=tensor.name)
    # complex numbers take two values each; several numbers below a byte share one, which is not checked
    expected = elements * (2 if name.startswith("COMPLEX") else 1)
    found = len(getattr(tensor, stored))
    if _BITS.get(name, 8) >= 8 and found != expected:
        message = f"dimensions {list(tensor.dims)} need {expected} values, there are {found}"
        raise ModelError(message, tensor=tensor.name)


def load(tensor: TensorProto, folder: Folder) -> NDArray[Any]:
    """The values of a checked tensor of one of the types `WHOLE_BYTES`, in its own shape and type."""
    native = dtype(tensor.data_type)
    if is_external(tensor):
        flat = _from_bytes(folder.span(tensor).bytes(), native)
    elif tensor.raw_data:
        flat = _from_bytes(np.frombuffer(tensor.raw_data, np.uint8), native)
    else:
        flat = _from_field(tensor, native)
    return flat.reshape(tuple(tensor.dims))


def _from_bytes(data: NDArray[np.uint8], native: np.dtype[Any]) -> NDArray[Any]:
    words = data.view(f"<u{native.itemsize}").astype(f"=u{native.itemsize}", copy=False)
    return (words if words.flags.aligned else words.copy()).view(native)


def _from_field(tensor: TensorProto, native: np.dtype[Any]) -> NDArray[Any]:
    numbers = np.array(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))
    if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
        # their bits are stored as integers
        return numbers.astype(np.uint16).view(native)
    if tensor.data_type in _BYTE_FLOATS:
        return numbers.astype(np.uint8).view(native)
    return numbers.astype(native)
