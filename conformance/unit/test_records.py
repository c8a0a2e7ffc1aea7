"""Classes of records behave as those that the standard library makes of the same definition."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from nnc_core.records import dataclass

Make = Callable[..., Any]


def define(make: Make, **options: bool) -> Any:
    """A class with what our classes have: defaults, factories, hidden fields, a method that looks at the values."""

    @make(slots=True, **options)
    class Record:
        """Something."""

        size: int
        name: str = ""
        parts: list[int] = dataclasses.field(default_factory=list)
        hidden: int = dataclasses.field(default=7, repr=False, compare=False)

        def __post_init__(self) -> None:
            if self.size < 0:
                raise ValueError(f"{self.size} is less than nothing")

    return Record


OPTIONS: list[dict[str, bool]] = [{}, {"frozen": True}, {"eq": False}, {"frozen": True, "eq": False}]


@pytest.fixture(params=OPTIONS, ids=str)
def both(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    return define(dataclass, **request.param), define(dataclasses.dataclass, **request.param)


def test_instances_show_and_hold_the_same(both: tuple[Any, Any]) -> None:
    for arguments, named in [((1,), {}), ((2, "a"), {}), ((3,), {"parts": [1], "hidden": 0}), ((), {"size": 4})]:
        ours, theirs = (cls(*arguments, **named) for cls in both)
        assert repr(ours).partition(".Record")[2] == repr(theirs).partition(".Record")[2]
        assert dataclasses.asdict(ours) == dataclasses.asdict(theirs)
        assert not hasattr(ours, "__dict__")


def test_each_instance_has_what_its_factory_makes(both: tuple[Any, Any]) -> None:
    one, other = both[0](1), both[0](1)
    one.parts.append(1)
    assert other.parts == []


def test_instances_are_equal_and_hashable_alike(both: tuple[Any, Any]) -> None:
    for one, other in [((1,), (1,)), ((1,), (2,)), ((1, "a", (), 1), (1, "a", (), 2))]:
        (a, b), (c, d) = ((cls(*one), cls(*other)) for cls in both)
        assert (a == b, a != b, a == c) == (c == d, c != d, False)
        assert _hash_of(a, b) == _hash_of(c, d)


def _hash_of(one: Any, other: Any) -> Any:
    try:
        return hash(one) == hash(other)
    except TypeError:
        return "cannot be hashed"


def test_instances_are_replaced_copied_and_changed_alike(both: tuple[Any, Any]) -> None:
    for change in (_replaced, copy.copy, copy.deepcopy, _assigned, _deleted):
        ours, theirs = (_outcome(change, cls(5, "five", [5], 55)) for cls in both)
        assert ours == theirs


def _replaced(record: Any) -> Any:
    return dataclasses.replace(record, name="other")


def _assigned(record: Any) -> Any:
    record.size = 6
    return record


def _deleted(record: Any) -> Any:
    del record.name
    record.name = "new"
    return record


def _outcome(change: Callable[[Any], Any], record: Any) -> Any:
    try:
        return dataclasses.astuple(change(record))
    except dataclasses.FrozenInstanceError as error:
        return str(error)


def test_wrong_arguments_and_values_are_refused_alike(both: tuple[Any, Any]) -> None:
    for arguments, named in [((), {}), ((1, "", [], 0, 0), {}), ((1,), {"other": 1}), ((-1,), {})]:
        errors = []
        for cls in both:
            with pytest.raises((TypeError, ValueError)) as caught:
                cls(*arguments, **named)
            errors.append((caught.type, str(caught.value)))
        assert errors[0] == errors[1]


def test_signatures_tell_names_and_types(both: tuple[Any, Any]) -> None:
    ours, theirs = (inspect.signature(cls).parameters for cls in both)
    assert list(ours) == list(theirs)
    assert [p.annotation for p in ours.values()] == [p.annotation for p in theirs.values()]
    assert ours["name"].default == theirs["name"].default


@dataclass(frozen=True, slots=True)
class Base:
    """At the top of a module, where pickles find it."""

    a: int

    def __repr__(self) -> str:
        return f"base of {self.a}"


@dataclass(frozen=True, slots=True)
class Derived(Base):
    """A field more, and an order of its own of what is equal."""

    b: tuple[int, ...] = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Derived) and self.a == other.a


@dataclass(frozen=True, slots=True)
class Nothing:
    """No field at all."""


@pytest.mark.parametrize("value", [Base(1), Derived(1, (2,)), Nothing()])
def test_records_survive_pickling(value: Any) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        back = pickle.loads(pickle.dumps(value, protocol))
        assert back == value
        assert dataclasses.astuple(back) == dataclasses.astuple(value)


def test_what_a_class_defines_itself_stays() -> None:
    assert repr(Base(1)) == "base of 1"
    assert Derived(1, (2,)) == Derived(1, (3,))
    assert repr(Derived(1)) == "Derived(a=1, b=())"


def test_a_record_may_contain_itself() -> None:
    record = define(dataclass)(1)
    record.parts.append(record)
    assert "parts=[...]" in repr(record)
