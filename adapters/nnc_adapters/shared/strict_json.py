"""JSON documents from files that may lie."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

_MOST_DIGITS: Final = 100
"""More than any number in a model has, and fewer than Python refuses with advice for its programmers."""


def document(data: bytes, *, objects: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """The value of a JSON document; `ValueError` if it is not valid, or has a key twice or a number that is not finite.

    ``objects`` makes the objects of their keys and values, and decides what to do with keys that are there twice.
    """
    try:
        return json.loads(
            data.decode(), object_pairs_hook=objects or _object, parse_constant=_refuse, parse_int=_integer
        )
    except RecursionError as error:
        raise ValueError("a JSON document is nested too deep") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a JSON document has the same key twice")
    return found


def _refuse(text: str) -> None:
    raise ValueError(f"a JSON document has the number {text}")


def _integer(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a JSON document has a number of {len(digits)} digits")
    return int(digits)


def count(value: Any) -> int:
    """``value``, if it is a number of bytes or elements; else `ValueError`."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r} is not a number of bytes or elements")
    return value
