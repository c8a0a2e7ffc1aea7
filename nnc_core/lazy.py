"""Mappings whose values are made when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TypeVar

__all__ = ["LazyMapping"]

_Value = TypeVar("_Value")


class LazyMapping(Mapping[str, _Value]):
    """A mapping that knows its names without making a value.

    ``Mapping`` answers ``name in mapping`` by asking for the value, which here would decode a tensor or read it from a
    file only to drop it. So each kind of lazy mapping has to say what it contains.
    """

    __slots__ = ()

    @abstractmethod
    def __contains__(self, name: object) -> bool: ...
