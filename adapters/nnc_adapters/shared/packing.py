"""Several named byte strings in the data of one topology: a line of JSON that lists them, and all of them.

The line is ``[[name, size], ...]``. An entry ``[name, size, whole size]`` is a part of ``size`` bytes here from which
``whole size`` are restored, see `repeats`. The topology unit is deflated as a whole. Equal parts make equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nnc_adapters.shared import repeats, strict_json
from nnc_core.errors import ModelError
from nnc_core.limits import Limits

__all__ = ["pack", "unpack"]

_END = b"\n"


def pack(parts: Mapping[str, bytes]) -> bytes:
    """The bytes of ``parts``, in the order of the mapping."""
    short = {name: repeats.shortened(data) for name, data in parts.items()}
    stored = {name: data if short[name] is None else short[name] or b"" for name, data in parts.items()}
    listed = [[name, len(data), *([] if short[name] is None else [len(parts[name])])] for name, data in stored.items()]
    return b"".join((json.dumps(listed, separators=(",", ":")).encode(), _END, *stored.values()))


def unpack(data: bytes, limits: Limits) -> dict[str, bytes]:
    """The parts in ``data``, in order.

    Raises `ModelError` where ``data`` do not begin with a list of parts with different names, or have more or less than
    these; `LimitError` where they exceed ``limits.topology_bytes``, or their list ``limits.name_bytes``.
    """
    limits.check("topology_bytes", len(data), "the parts of the topology")
    try:
        end = _end_of_list(data)
        limits.check("name_bytes", end, "the list of the parts of the topology")
        listed = [_entry(*entry) for entry in strict_json.document(data[:end])]
        _check(listed, len(data) - end - 1)
        limits.check("topology_bytes", sum(whole for _, _, whole in listed), "the parts of the topology")
        found, at = {}, end + 1
        for name, size, whole in listed:
            part = data[at : at + size]
            found[name] = part if whole == size else repeats.restored(part, whole)
            at += size
    except (ValueError, TypeError) as error:
        raise ModelError(f"the parts of the topology are damaged: {error}") from error
    return found


def _end_of_list(data: bytes) -> int:
    end = data.find(_END)
    if end < 0:
        raise ValueError("they begin without a list of them")
    return end


def _entry(name: Any, size: Any, whole: Any = None) -> tuple[str, int, int]:
    return str(name), strict_json.count(size), strict_json.count(size if whole is None else whole)


def _check(listed: list[tuple[str, int, int]], size: int) -> None:
    if len({name for name, _, _ in listed}) != len(listed):
        raise ValueError("two of them have the same name")
    if sum(each for _, each, _ in listed) != size:
        raise ValueError(f"they have {size} bytes, and not those that are listed")
