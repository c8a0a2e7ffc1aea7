"""What graph.nnef and the tensors leave unsaid about an archive: the content of a private topology unit.

These are parts (see `nnc_adapters.shared.packing`): ``tensors.json`` has, by label, the headers of tensor files that
are not plain float32 or int32, as ``{"item_type": 2, "bits_per_item": 8, "reserved": [1]}`` (``reserved`` only where it
is not all zeros). Every other part, ``files/<name>``, is a file of the archive that is kept as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from nnc_adapters.nnef.dat import Header, ItemType
from nnc_adapters.shared import packing, strict_json
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.records import dataclass

_TENSORS, _FILES = "tensors.json", "files/"
_PLAIN = ((ItemType.FLOAT, 32), (ItemType.INT, 32))


@dataclass(frozen=True, slots=True)
class Private:
    """``headers`` are those of tensors by label, ``files`` those kept as they are, by name."""

    headers: Mapping[str, Header] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def pack(private: Private) -> bytes | None:
    """The bytes for the unit; None where there is nothing to be said."""
    described = {label: _described(h) for label, h in private.headers.items() if not _is_plain(h)}
    packed: dict[str, bytes] = {}
    if described:
        packed[_TENSORS] = json.dumps(described, ensure_ascii=False, separators=(",", ":")).encode()
    packed |= {_FILES + name: data for name, data in private.files.items()}
    return packing.pack(packed) if packed else None


def _is_plain(header: Header) -> bool:
    return (header.item_type, header.bits_per_item) in _PLAIN and not header.reserved


def _described(header: Header) -> dict[str, Any]:
    described: dict[str, Any] = {"item_type": int(header.item_type), "bits_per_item": header.bits_per_item}
    if header.reserved:
        described["reserved"] = list(header.reserved)
    return described


def unpack(data: bytes | None, shapes: Mapping[str, tuple[int, ...]], limits: Limits) -> Private:
    """What `pack` was given; ``shapes`` are those of the tensors by label. `ModelError` for damage."""
    if data is None:
        return Private()
    found = packing.unpack(data, limits)
    described = _json(found.pop(_TENSORS, b"{}"))
    strange = [name for name in found if not name.startswith(_FILES)] or sorted(described.keys() - shapes.keys())
    if strange:
        raise ModelError(f"the private topology speaks of {strange[0]!r}, which is unknown")
    headers = {label: _header(shapes[label], fields) for label, fields in described.items()}
    return Private(headers, {name.removeprefix(_FILES): content for name, content in found.items()})


def _json(data: bytes) -> dict[str, Any]:
    try:
        found = strict_json.document(data)
    except ValueError as error:
        raise ModelError(f"{_TENSORS} of the private topology is damaged: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{_TENSORS} of the private topology is not an object")
    return found


def _header(shape: tuple[int, ...], fields: Any) -> Header:
    try:
        item_type, bits, reserved = fields["item_type"], fields["bits_per_item"], tuple(fields.get("reserved", ()))
        if any(type(number) is not int for number in (item_type, bits, *reserved)):
            raise TypeError("a number is not an integer")
        return Header(shape, ItemType(item_type), bits, reserved)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelError(f"{_TENSORS} of the private topology is damaged: {error!r}") from None
