"""JSON for other programs, made piece by piece, so that a long description is never in memory as a whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import IntEnum
from functools import cache
from json import dumps
from json.encoder import encode_basestring_ascii
from operator import attrgetter
from pathlib import Path
from typing import Any

__all__ = ["pieces", "plain"]

_STEP = "  "
_Write = Callable[[Any], str]


def plain(value: Any) -> Any:
    """``value`` as JSON can say it, what is in it as it is.

    A dataclass is an object, an enum its name, infinities and NaN null, bytes their number.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {name: getattr(value, name) for name in _names(type(value))}
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if isinstance(value, IntEnum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def pieces(value: Any, line: str = "\n") -> Iterator[str]:
    """The text of ``value`` with an indent of two; the items of an iterator, and what is in mappings, as they come."""
    inner = line + _STEP
    if isinstance(value, Mapping):
        members = ((f"{dumps(str(key))}: ", pieces(item, inner)) for key, item in value.items())
        yield from _listed("{}", members, line)
    elif isinstance(value, Iterator):
        yield from _listed("[]", (("", (_text(item, inner),)) for item in value), line)
    else:
        yield _text(value, line)


def _listed(brackets: str, items: Iterable[tuple[str, Iterable[str]]], line: str) -> Iterator[str]:
    inner = line + _STEP
    before = brackets[0] + inner
    for key, item in items:
        yield before + key
        yield from item
        before = "," + inner
    yield brackets if before[0] == brackets[0] else line + brackets[1]


def _text(value: Any, line: str) -> str:
    kind: type[Any] = type(value)
    write = _SCALARS.get(kind)
    if write is not None:
        return write(value)
    inner = line + _STEP
    if is_dataclass(kind):
        return _bracketed("{}", _members(_names(kind), _values(kind)(value), inner), line)
    if isinstance(value, Mapping):
        return _bracketed("{}", _members(map(str, value), value.values(), inner), line)
    if isinstance(value, list | tuple):
        return _bracketed("[]", [_text(item, inner) for item in value], line)
    return dumps(plain(value), allow_nan=False)


def _members(names: Iterable[str], values: Iterable[Any], line: str) -> list[str]:
    written = (_SCALARS[type(v)](v) if type(v) in _SCALARS else _text(v, line) for v in values)
    return [f"{encode_basestring_ascii(name)}: {text}" for name, text in zip(names, written, strict=True)]


def _bracketed(brackets: str, items: list[str], line: str) -> str:
    if not items:
        return brackets
    inner = line + _STEP
    return brackets[0] + inner + ("," + inner).join(items) + line + brackets[1]


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@cache
def _values(kind: type) -> Callable[[Any], tuple[Any, ...]]:
    """What gives the values of all fields of a dataclass."""
    names = _names(kind)
    if len(names) > 1:
        return attrgetter(*names)
    return lambda value: tuple(getattr(value, name) for name in names)


_SCALARS: Mapping[type, _Write] = {
    int: repr,
    str: encode_basestring_ascii,
    bool: lambda value: "true" if value else "false",
    type(None): lambda value: "null",
}
