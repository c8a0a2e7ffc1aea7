"""Several named byte strings in the data of one topology: a line of JSON, ``[[name, size], ...]``, and all of them.

The topology unit is deflated as a whole, so nothing is compressed here. Equal parts make equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from nnc_adapters.shared import strict_json
from nnc_core.errors import ModelError
from nnc_core.limits import Limits

__all__ = ["pack", "unpack"]

_END = b"\n"


def pack(parts: Mapping[str, bytes]) -> bytes:
    """The bytes of ``parts``, in the order of the mapping."""
    listed = json.dumps([[name, len(data)] for name, data in parts.items()], separators=(",", ":"))
    return b"".join((listed.encode(), _END, *parts.values()))


def unpack(data: bytes, limits: Limits) -> dict[str, bytes]:
    """The parts in ``data``, in order.

    Raises `ModelError` where ``data`` do not begin with a list of parts with different names, or have more or less than
    these; `LimitError` where they exceed ``limits.topology_bytes``.
    """
    limits.check("topology_bytes", len(data), "the parts of the topology")
    try:
        end = data.index(_END)
        listed = [(str(name), strict_json.count(size)) for name, size in strict_json.document(data[:end])]
        _check(listed, len(data) - end - 1)
    except (ValueError, TypeError) as error:
        raise ModelError(f"the parts of the topology are damaged: {error}") from error
    found, at = {}, end + 1
    for name, size in listed:
        found[name] = data[at : at + size]
        at += size
    return found


def _check(listed: list[tuple[str, int]], size: int) -> None:
    if len({name for name, _ in listed}) != len(listed):
        raise ValueError("two of them have the same name")
    if sum(each for _, each in listed) != size:
        raise ValueError(f"they have {size} bytes, and not those that are listed")
