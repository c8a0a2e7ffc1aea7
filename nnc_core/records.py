"""Data classes with slots that are made quickly, and whose instances are.

``dataclasses`` compiles up to six functions for each class, half a millisecond, which a short command would do eighty
times. Here one is compiled, ``__init__``, which sets slots directly; classes share how the others work. Type checkers
see what ``dataclasses`` offers, and its functions take such classes for theirs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import MISSING
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["dataclass"]

_Class = TypeVar("_Class", bound="type[Any]")
_Field = dataclasses.Field[Any]

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, slots: bool, frozen: bool = False, eq: bool = True) -> Callable[[_Class], _Class]:
        """What ``dataclasses.dataclass`` makes of a class with slots, all of whose fields are arguments."""

        def made(cls: _Class) -> _Class:
            cls = dataclasses.dataclass(init=False, repr=False, eq=False, slots=slots)(cls)
            fields = dataclasses.fields(cls)
            _define(cls, __init__=_init(cls, fields, frozen), __repr__=_repr(fields))
            if frozen:
                _define(cls, __setattr__=_refuse_to_set, __delattr__=_refuse_to_delete, **_pickled(cls, fields))
            if eq:
                _compare(cls, [field.name for field in fields if field.compare], frozen=frozen)
            return cls

        return made


def _define(cls: type[Any], **methods: Any) -> None:
    """Add methods that the class does not define itself."""
    for name, method in methods.items():
        if name not in cls.__dict__:
            setattr(cls, name, method)


def _init(cls: type[Any], fields: tuple[_Field, ...], frozen: bool) -> Any:
    """The one function that is compiled: each argument is put into its slot, past ``__setattr__`` if that refuses.

    A field with a factory has that as its default, in whose place goes what it makes.
    """
    body = [_assignment(i, field, frozen) for i, field in enumerate(fields)]
    body += ["self.__post_init__()"] if hasattr(cls, "__post_init__") else []
    known: dict[str, Any] = {f"set_{i}": getattr(cls, field.name).__set__ for i, field in enumerate(fields)}
    known |= {f"make_{i}": field.default_factory for i, field in enumerate(fields)}
    exec(f"def __init__({', '.join(['self', *(field.name for field in fields)])}): {'; '.join(body) or 'pass'}", known)
    init = known["__init__"]
    init.__qualname__, init.__module__ = f"{cls.__qualname__}.__init__", cls.__module__
    init.__annotations__ = {**{field.name: field.type for field in fields}, "return": None}
    defaults = (field.default_factory if field.default is MISSING else field.default for field in fields)
    init.__defaults__ = tuple(default for default in defaults if default is not MISSING)
    return init


def _assignment(i: int, field: _Field, frozen: bool) -> str:
    value = (
        field.name if field.default_factory is MISSING else f"make_{i}() if {field.name} is make_{i} else {field.name}"
    )
    return f"set_{i}(self, {value})" if frozen else f"self.{field.name} = {value}"


def _repr(fields: tuple[_Field, ...]) -> Callable[[Any], str]:
    names = [field.name for field in fields if field.repr]

    @recursive_repr("...")
    def shown(self: Any) -> str:
        values = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__qualname__}({values})"

    return shown


def _compare(cls: type[Any], names: list[str], *, frozen: bool) -> None:
    """Equality, and where the values cannot change a hash, by the values of fields."""
    values = attrgetter(*names) if names else lambda _: ()

    def equal(self: Any, other: object) -> bool:
        return values(self) == values(other) if type(other) is type(self) else NotImplemented

    def hashed(self: Any) -> int:
        return hash(values(self))

    if cls.__dict__.get("__hash__") is None:  # where a class defines __eq__ alone, Python says so as well
        cls.__hash__ = hashed if frozen else None  # type: ignore[assignment]
    _define(cls, __eq__=equal)


def _refuse_to_set(self: Any, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _pickled(cls: type[Any], fields: tuple[_Field, ...]) -> dict[str, Callable[..., Any]]:
    """How instances that refuse to be changed are copied and pickled."""
    slots = [getattr(cls, field.name) for field in fields]

    def values(self: Any) -> list[Any]:
        return [slot.__get__(self) for slot in slots]

    def restore(self: Any, state: list[Any]) -> None:
        for slot, value in zip(slots, state, strict=True):
            slot.__set__(self, value)

    return {"__getstate__": values, "__setstate__": restore}
