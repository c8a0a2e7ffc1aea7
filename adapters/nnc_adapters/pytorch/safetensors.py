"""Files of safetensors: a JSON header, then the tensors."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from typing import Any

from nnc_adapters.pytorch.views import ITEM_SIZES, Scan, View, check_shape, contiguous
from nnc_adapters.shared import strict_json

_MOST_HEADER = 100_000_000
_METADATA = "__metadata__"
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


def is_safetensors(view: memoryview) -> bool:
    """Whether the bytes begin with the size of a header and a brace."""
    size = int.from_bytes(view[:8], "little")
    return len(view) > 9 and 2 <= size <= min(_MOST_HEADER, len(view) - 8) and view[8] == ord("{")


def scan(view: memoryview) -> Scan:
    """Find the tensors of a file; `ValueError` where header and data do not agree to the last byte."""
    if len(view) < 8:
        raise ValueError("it ends inside its header")
    (size,) = struct.unpack_from("<Q", view)
    if size > min(_MOST_HEADER, len(view) - 8):
        raise ValueError(f"its header of {size} bytes is too large")
    header = strict_json.document(bytes(view[8 : 8 + size]))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    _check_metadata(header.pop(_METADATA, {}))
    views = [_view(name, entry, 8 + size) for name, entry in header.items()]
    _check_cover(views, 8 + size, len(view))
    return Scan("safetensors", views)


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("its metadata are not texts by name")


def _view(name: str, entry: dict[str, Any], base: int) -> View:
    if entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {name!r} is described by {sorted(entry)}")
    kind, shape = entry["dtype"], tuple(strict_json.count(s) for s in entry["shape"])
    check_shape((name,), shape)
    begin, end = (strict_json.count(offset) for offset in entry["data_offsets"])
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
