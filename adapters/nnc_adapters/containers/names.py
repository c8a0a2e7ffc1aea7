"""Tensor names where not every character may stand: the others become ``%`` and hexadecimal digits."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["for_archive", "for_file", "for_hdf5", "unquoted"]

_EMPTY = "%00"  # no name has a zero byte


def for_hdf5(name: str) -> str:
    """A link name: without ``/``, which would make groups, where a tensor might need the group's name."""
    return _quoted(name, r"[%/]|^\.{1,2}$")


def for_archive(name: str) -> str:
    """A member name that no program unpacks outside its folder."""
    pattern = r"[%\\:\0-\x1f\x7f]"
    if any(part in ("", ".", "..") for part in name.split("/")):
        pattern += r"|/|\."
    return _quoted(name, pattern)


def for_file(name: str) -> str:
    """A part of a file name, good on every system."""
    return _quoted(name, r"[^A-Za-z0-9._-]")


def unquoted(text: str) -> str:
    """The name; ValueError where the bytes behind the digits are not UTF-8."""
    return "" if text == _EMPTY else unquote(text, errors="strict")


def _quoted(name: str, pattern: str) -> str:

    return re.sub(pattern, _code, name) if name else _EMPTY


def _code(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())
