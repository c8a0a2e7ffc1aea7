"""Files of safetensors: a JSON header, then the tensors."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

from nnc_adapters.pytorch.views import ITEM_SIZES, Scan, View, check_shape, contiguous
from nnc_adapters.shared import strict_json
from nnc_core.stored import Bytes

_MOST_HEADER = 100_000_000
_METADATA = "__metadata__"
_FIELDS = ("dtype", "shape", "data_offsets")
_TYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}
# Types below a byte, which are kept as they are.
_BITS = {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}


def is_safetensors(view: Bytes) -> bool:
    """Whether the bytes begin with the size of a header and a brace."""
    size = int.from_bytes(view[:8], "little")
    return len(view) > 9 and 2 <= size <= min(_MOST_HEADER, len(view) - 8) and view[8] == ord("{")


def scan(view: Bytes) -> Scan:
    """Find the tensors of a file; `ValueError` where header and data do not agree to the last byte."""
    if len(view) < 8:
        raise ValueError("it ends inside its header")
    size = int.from_bytes(view[:8], "little")
    if size > min(_MOST_HEADER, len(view) - 8):
        raise ValueError(f"its header of {size} bytes is too large")
    header = strict_json.document(bytes(view[8 : 8 + size]), objects=_Pairs)
    if not isinstance(header, _Pairs):
        raise ValueError("its header is not a JSON object")
    _check_metadata([value for name, value in header if name == _METADATA])
    # of a name that is there twice the last one counts, as for the library
    views = [_view(name, entry, 8 + size) for name, entry in dict(header).items() if name != _METADATA]
    _check_cover(views, 8 + size, len(view))
    return Scan("safetensors", views)


class _Pairs(tuple[tuple[str, Any], ...]):
    """A JSON object as it is written: its library does not always mind keys that are there twice."""


def _check_metadata(found: list[Any]) -> None:
    if len(found) > 1:
        raise ValueError("its metadata are there twice")
    for metadata in found:
        texts = metadata is None or (isinstance(metadata, _Pairs) and all(isinstance(v, str) for _, v in metadata))
        if not texts:
            raise ValueError("its metadata are not texts by name")


def _view(name: str, entry: Any, base: int) -> View:
    fields = [pair for pair in entry if pair[0] in _FIELDS] if isinstance(entry, _Pairs) else []
    if sorted(key for key, _ in fields) != sorted(_FIELDS):
        raise ValueError(f"tensor {name!r} is not described by {', '.join(_FIELDS)}, each once")
    kind, sizes, offsets = (dict(fields)[field] for field in _FIELDS)
    shape = tuple(strict_json.count(s) for s in sizes)
    check_shape((name,), shape)
    begin, end = (strict_json.count(offset) for offset in offsets)
    bits = _BITS.get(kind) or 8 * ITEM_SIZES.get(_TYPES.get(kind, ""), 0)
    if not bits:
        raise ValueError(f"tensor {name!r} has the unknown data type {kind!r}")
    if prod(shape) * bits != 8 * (end - begin):
        raise ValueError(f"tensor {name!r} of shape {shape} and type {kind} cannot have {end - begin} bytes")
    span = (base + begin, base + end)
    if kind in _BITS:
        return View((name,), kind, shape, contiguous(shape), span[0], span, True)
    return View((name,), _TYPES[kind], shape, contiguous(shape), span[0], span)


def _check_cover(views: list[View], start: int, end: int) -> None:
    """`ValueError` unless the tensors fill the bytes without gap or overlap."""
    for begin, after in _spans(views):
        if begin != start:
            raise ValueError(f"its tensors leave a gap or overlap at byte {min(begin, start)}")
        start = after
    if start != end:
        raise ValueError(f"its tensors end at byte {start}, the file at {end}")


def _spans(views: list[View]) -> Iterator[tuple[int, int]]:
    return iter(sorted(view.storage for view in views))
