"""The tar format, as far as archives of plain files need it: a list of the members, and headers to write."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from nnc_core.stored import Bytes

BLOCK = 512
END = bytes(2 * BLOCK)

_FILE, _FOLDER = (b"0", b"\0", b"7"), b"5"
_LONG_NAME, _EXTENDED, _GLOBAL = b"L", b"x", b"g"
_LONGEST_EXTENSION = 1 << 20
_CHECKSUM, _MAGIC = slice(148, 156), slice(257, 262)


class TarError(ValueError):
    """The bytes are not a tar archive, or have members other than files and folders."""


class Member(NamedTuple):
    """A file: ``size`` bytes of the archive from ``offset``."""

    name: str
    offset: int
    size: int


class _Header(NamedTuple):
    name: str
    kind: bytes
    size: int


def looks_like_tar(block: bytes) -> bool:
    """Whether a first block of 512 bytes is meant to be a header."""
    try:
        return block[_MAGIC] == b"ustar" or (len(block) >= BLOCK and _header(block[:BLOCK]) is not None)
    except TarError:
        return False


def members(data: Bytes) -> Iterator[Member]:
    """The files of an archive, in order; `TarError` for damage, links and devices."""
    at = 0
    extended: dict[str, str] = {}
    while at < len(data):
        header = _header(bytes(data[at : at + BLOCK]))
        if header is None:
            return
        at += BLOCK
        size = _number_of(extended["size"]) if "size" in extended else header.size
        if size > len(data) - at:
            raise TarError(f"member {header.name!r} has {size} bytes, and {len(data) - at} are left")
        name = extended.get("path", header.name)
        if header.kind in (_LONG_NAME, _EXTENDED):
            extended |= _extension(header.kind, data[at : at + size])
        elif header.kind != _GLOBAL:
            extended = {}
            if header.kind in _FILE and not name.endswith("/"):
                yield Member(name, at, size)
            elif header.kind not in (*_FILE, _FOLDER):
                raise TarError(f"member {name!r} is a link or a device, not a file")
        at += -(-size // BLOCK) * BLOCK


def header(name: str, size: int) -> bytes:
    """What precedes the data of a file."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)


def _header(block: bytes) -> _Header | None:
    """The fields of a header; None for the block of zeros at the end."""
    if len(block) < BLOCK:
        raise TarError("the archive ends inside a header")
    if not any(block):
        return None
    # computed with spaces in its own place
    if _number(block[_CHECKSUM]) != sum(block) - sum(block[_CHECKSUM]) + 8 * ord(" "):
        raise TarError("the checksum of a header is wrong")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and any(block[345:500]):
        name = f"{_text(block[345:500])}/{name}"
    return _Header(name, block[156:157], _number(block[124:136]))


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
    digits = field.replace(b"\0", b" ").strip()
    if not set(digits) <= set(b"01234567"):
        raise TarError(f"{field!r} is not an octal number")
    return int(digits or b"0", 8)


def _number_of(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 20):
        raise TarError(f"{text!r} is not a number of bytes")
    return int(text)


def _text(field: bytes | memoryview) -> str:
    try:
        return bytes(field).split(b"\0", 1)[0].decode()
    except UnicodeDecodeError as error:
        raise TarError(f"a name is not UTF-8: {error}") from None


def _extension(kind: bytes, data: memoryview) -> dict[str, str]:
    """What a member in front of another says about it: a long name, or records of the POSIX extension."""
    if len(data) > _LONGEST_EXTENSION:
        raise TarError(f"an extended header has {len(data)} bytes")
    if kind == _LONG_NAME:
        return {"path": _text(data)}
    records = dict(_records(bytes(data)))
    if any(key.startswith("GNU.sparse") for key in records):
        raise TarError("sparse files are not supported")
    return {key: records[key] for key in ("path", "size") if key in records}


def _records(data: bytes) -> Iterator[tuple[str, str]]:
    """Records ``<length> <key>=<value>\\n``, where the length counts all of it."""
    at = 0
    while at < len(data):
        digits, space, _ = data[at : at + 20].partition(b" ")
        end = at + _number_of(digits.decode("ascii", "replace"))
        start = at + len(digits) + 1
        key, equals, value = data[start:end].partition(b"=")
        if not space or not equals or value[-1:] != b"\n" or not start < end <= len(data):
            raise TarError("an extended header is damaged")
        yield _text(key), _text(value[:-1])
        at = end
