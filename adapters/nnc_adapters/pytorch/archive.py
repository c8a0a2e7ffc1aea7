"""The directory of a zip archive: where the bytes of each member lie, and where their checksums stand.

Nothing is extracted. ``zipfile`` does not tell where checksums stand, and these change with the weights.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from nnc_core.records import dataclass
from nnc_core.stored import Bytes

_LOCAL, _CENTRAL, _END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
_DESCRIPTOR, _END64, _LOCATOR64 = b"PK\x07\x08", b"PK\x06\x06", b"PK\x06\x07"
_ENCRYPTED, _HAS_DESCRIPTOR = 1, 8
_MANY = 0xFFFFFFFF
_ZIP64 = 1


class ArchiveError(ValueError):
    """The bytes are not a zip archive, or one that is not what it says."""


@dataclass(frozen=True, slots=True)
class Member:
    """A member: its bytes are at ``start`` to ``end``; ``checksums`` are the places of its CRC-32."""

    name: str
    start: int
    end: int
    stored: bool
    checksums: tuple[int, ...]


def is_archive(view: Bytes) -> bool:
    """Whether the bytes begin like an archive."""
    return bytes(view[:4]) == _LOCAL


def members(view: Bytes) -> dict[str, Member]:
    """The members by name, in the order of the directory.

    Raises `ArchiveError` for a damaged archive, members that overlap or have the same name, and names that lead
    out of a folder.
    """
    try:
        found = list(_members(view))
    except (struct.error, OverflowError, UnicodeDecodeError) as error:
        raise ArchiveError(f"the archive is damaged: {error}") from error
    for before, after in pairwise(sorted(found, key=lambda member: (member.start, member.end))):
        if before.end > after.start:
            raise ArchiveError(f"members {before.name!r} and {after.name!r} of the archive overlap")
    named = {member.name: member for member in found}
    if len(named) != len(found):
        raise ArchiveError("two members of the archive have the same name")
    return named


def _members(view: Bytes) -> Iterator[Member]:
    count, size, at = _directory(view)
    end = at + size
    for _ in range(count):
        member, at = _member(view, at, end)
        yield member
    if at != end:
        raise ArchiveError("the archive's directory is longer than its members")


def _directory(view: Bytes) -> tuple[int, int, int]:
    """Number of members, size and place of the directory."""
    tail = max(0, len(view) - (1 << 16) - 22)
    end = bytes(view[tail:]).rfind(_END)
    if end < 0:
        raise ArchiveError("the archive has no end")
    end += tail
    disks, count, size, at, comment = _unpacked("<4xI2xHIIH", view, end)
    before = end
    if bytes(view[max(0, end - 20) : end][:4]) == _LOCATOR64:
        (before,) = _unpacked("<8xQ", view, end - 20)
        if bytes(view[before : before + 4]) != _END64:
            raise ArchiveError("the archive's end is damaged")
        count, size, at = _unpacked("<32xQQQ", view, before)
    if disks or end + 22 + comment != len(view) or at + size > before or count > size // 46:
        raise ArchiveError("the archive's end is damaged")
    return count, size, at


def _unpacked(layout: str, view: Bytes, at: int) -> tuple[Any, ...]:
    return struct.unpack(layout, view[at : at + struct.calcsize(layout)])


def _member(view: Bytes, at: int, limit: int) -> tuple[Member, int]:
    """The member whose entry in the directory begins at ``at``, and where the next one begins."""
    signature, flags, method, packed, size, name_size, extra_size, comment_size, local = _unpacked(
        "<4s4xHH8xIIHHH8xI", view, at
    )
    extra_at = at + 46 + name_size
    following = extra_at + extra_size + comment_size
    if signature != _CENTRAL or following > limit or flags & _ENCRYPTED:
        raise ArchiveError("the archive's directory is damaged, or its members are encrypted")
    raw = bytes(view[at + 46 : extra_at])
    size, packed, local = _zip64(bytes(view[extra_at : extra_at + extra_size]), size, packed, local)
    start = _local(view, local, raw)
    end = start + packed
    if (method == 0 and packed != size) or end > at:
        raise ArchiveError("a member's size is not what it says")
    checksums = (at + 16, *_descriptor(view, end)) if flags & _HAS_DESCRIPTOR else (at + 16, local + 14)
    return Member(_name(raw), start, end, method == 0, checksums), following


def _zip64(extra: bytes, *numbers: int) -> tuple[int, ...]:
    """Size, packed size and place, of which those that are too large for their fields are in ``extra``."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == _ZIP64:
            wide = iter(struct.unpack_from(f"<{min(size, 24) // 8}Q", extra, 4))
            return tuple(next(wide, n) if n == _MANY else n for n in numbers)
        extra = extra[4 + size :]
    return numbers


def _local(view: Bytes, at: int, name: bytes) -> int:
    """Where the bytes begin of the member whose local header is at ``at``."""
    signature, name_size, extra_size = _unpacked("<4s22xHH", view, at)
    if signature != _LOCAL or bytes(view[at + 30 : at + 30 + name_size]) != name:
        raise ArchiveError("a member is not where the archive's directory says")
    start: int = at + 30 + name_size + extra_size
    return start


def _descriptor(view: Bytes, at: int) -> tuple[int, ...]:
    return (at + 4,) if bytes(view[at : at + 4]) == _DESCRIPTOR else (at,)


def _name(raw: bytes) -> str:
    name = raw.decode()
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name:
        raise ArchiveError(f"the archive has a member called {name!r}")
    return name
