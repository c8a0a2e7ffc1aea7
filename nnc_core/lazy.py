"""Mappings and modules whose contents are made or imported when they are asked for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeVar

__all__ = ["LazyMapping", "LazyModule", "imported_on_use"]

_Value = TypeVar("_Value")


class LazyMapping(Mapping[str, _Value]):
    """A mapping that knows its names without making a value.

    ``Mapping`` answers ``name in mapping`` by asking for the value, which here would decode a tensor or read it from a
    file only to drop it.
    """

    __slots__ = ()

    @abstractmethod
    def _names(self) -> Collection[str]:
        """The names in their order: a dictionary or another mapping, so that looking one up takes no time."""

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __contains__(self, name: object) -> bool:
        return name in self._names()


class LazyModule:
    """A module that is imported when something in it is asked for; ``TYPE_CHECKING`` imports it for type checkers.

    It is for what many functions of a module use, none of which is usually called.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        object.__setattr__(self, "_name", name)

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(import_module(self._name), name, value)


def imported_on_use(package: str, places: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package that imports its modules when something in them is asked for (PEP 562).

    ``places`` has the names of things by the module of ``package`` that defines them, perhaps under another name
    (``name as other``); modules themselves are found without. AttributeError for what is neither.
    """
    found = {name.split()[-1]: (f"{package}.{module}", name.split()[0]) for module in places for name in places[module]}

    def find(name: str) -> Any:
        if name in found:
            module, there = found[name]
            return getattr(import_module(module), there)
        from importlib.util import find_spec  # which is rarely needed

        path = f"{package}.{name}"
        if name.startswith("_") or find_spec(path) is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return import_module(path)

    return find
