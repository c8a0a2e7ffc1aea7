"""Regular expressions in names that nobody has looked at, in a time that grows with the lengths of both alone.

The module ``re`` tries one way after the other, and an expression such as ``(a+)+b`` has more of them than anybody
waits for. Where that can happen, all ways are followed at once instead.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, Final, NamedTuple

__all__ = ["finder"]

_parser: Any = importlib.import_module("re._parser" if sys.version_info >= (3, 11) else "sre_parse")

_REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")
_QUICK: Final = 10_000_000
"""Ways that take little time one after the other."""
_MOST_STEPS: Final = 10_000
_PLAIN_FLAGS: Final = re.UNICODE | re.VERBOSE


class _Step(NamedTuple):
    """What is asked of a character, or else of a place, and the steps that follow; none after the last."""

    character: Callable[[str], bool] | None = None
    place: Callable[[str, int], bool] | None = None
    following: tuple[int, ...] = ()


@lru_cache(maxsize=256)
def finder(pattern: str) -> Callable[[str], bool]:
    """What tells whether ``pattern`` is found in a text; ValueError for what is not an expression, or has no bound."""
    try:
        compiled, tree = re.compile(pattern), _parser.parse(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    nested = _is_nested(tree)
    try:
        automaton = _Automaton(tree)
    except KeyError as missing:
        if nested:
            message = f"has {missing.args[0]} beside a repetition inside a repetition, which could take forever"
            raise ValueError(f"{pattern!r} {message}") from None
        return lambda text: compiled.search(text) is not None
    if nested:
        return automaton.finds
    places = 1 + sum(1 for repeat in _repeats(tree) if repeat[1] == _parser.MAXREPEAT)
    return lambda text: compiled.search(text) is not None if len(text) ** places <= _QUICK else automaton.finds(text)


def _inner(argument: Any) -> Iterator[Any]:
    """The expressions inside an operation, which stand in lists and tuples."""
    if isinstance(argument, _parser.SubPattern):
        yield argument
    elif isinstance(argument, list | tuple):
        for each in argument:
            yield from _inner(each)


def _repeats(tree: Any) -> Iterator[tuple[int, int, Any]]:
    """All repetitions: how often at least, at most, and of what."""
    for operation, argument in tree:
        if operation.name in _REPEATS:
            yield argument
        for inner in _inner(argument):
            yield from _repeats(inner)


def _is_nested(tree: Any) -> bool:
    """Whether something that matches in several ways is repeated."""
    return any(most > 1 and _is_ambiguous(inner) for _, most, inner in _repeats(tree))


def _is_ambiguous(tree: Any) -> bool:
    for operation, argument in tree:
        varies = operation.name in _REPEATS and argument[0] != argument[1]
        if varies or operation.name in ("BRANCH", "GROUPREF") or any(map(_is_ambiguous, _inner(argument))):
            return True
    return False


class _Automaton:
    """The steps of an expression; KeyError, with its name, for an operation that it does not know."""

    def __init__(self, tree: Any) -> None:
        if tree.state.flags & ~_PLAIN_FLAGS:
            raise KeyError("a flag")
        self._steps: list[_Step] = [_Step()]
        self._first = self._all(tree, 0)

    def finds(self, text: str) -> bool:
        """Whether the expression is found in ``text``."""
        states: set[int] = set()
        for place in range(len(text) + 1):
            states = self._reached({*states, self._first}, text, place)
            if 0 in states:
                return True
            steps = [self._steps[state] for state in states] if place < len(text) else []
            states = {step.following[0] for step in steps if step.character is not None and step.character(text[place])}
        return False

    def _reached(self, states: Iterable[int], text: str, place: int) -> set[int]:
        """The states, and those that they lead to without a character."""
        found, waiting = set(states), list(states)
        while waiting:
            step = self._steps[waiting.pop()]
            if step.character is None and (step.place is None or step.place(text, place)):
                new = set(step.following) - found
                found |= new
                waiting += new
        return found

    def _add(self, step: _Step) -> int:
        if len(self._steps) >= _MOST_STEPS:
            raise KeyError("so many steps")
        self._steps.append(step)
        return len(self._steps) - 1

    def _all(self, tree: Any, after: int) -> int:
        """Add the steps of one operation after the other, the last first; return where they begin."""
        for operation, argument in reversed(list(tree)):
            after = self._one(operation.name, argument, after)
        return after

    def _one(self, name: str, argument: Any, after: int) -> int:
        if name in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, inner = argument
            return self._repeated(least, most, inner, after)
        if name == "BRANCH":
            return self._add(_Step(following=tuple(self._all(inner, after) for inner in argument[1])))
        if name == "SUBPATTERN" and not argument[1] and not argument[2]:
            return self._all(argument[3], after)
        if name == "AT":
            return self._add(_Step(place=_PLACES[argument.name], following=(after,)))
        return self._add(_Step(character=_CHARACTERS[name](argument), following=(after,)))

    def _repeated(self, least: int, most: int, tree: Any, after: int) -> int:
        if most == _parser.MAXREPEAT:
            again = self._add(_Step())
            self._steps[again] = _Step(following=(self._all(tree, again), after))
            after = again
        else:
            end = after
            for _ in range(most - least):
                after = self._add(_Step(following=(self._all(tree, after), end)))
        for _ in range(least):
            after = self._all(tree, after)
        return after


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _is_boundary(text: str, place: int) -> bool:
    before, after = text[place - 1 : place] if place else "", text[place : place + 1]
    return _is_word(before) != _is_word(after)


def _is_end(text: str, place: int) -> bool:
    return place == len(text) or (place == len(text) - 1 and text[place] == "\n")


_NOWHERE: Final = re.search(r"\B", "") is not None
"""Whether an empty text is inside of something, which depends on the version of Python."""
_PLACES: Final[dict[str, Callable[[str, int], bool]]] = {
    "AT_BEGINNING": lambda text, place: place == 0,
    "AT_BEGINNING_STRING": lambda text, place: place == 0,
    "AT_END": _is_end,
    "AT_END_STRING": lambda text, place: place == len(text),
    "AT_BOUNDARY": _is_boundary,
    "AT_NON_BOUNDARY": lambda text, place: (bool(text) or _NOWHERE) and not _is_boundary(text, place),
}
_CATEGORIES: Final[dict[str, Callable[[str], bool]]] = {
    "CATEGORY_DIGIT": str.isdecimal,
    "CATEGORY_NOT_DIGIT": lambda character: not character.isdecimal(),
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_NOT_SPACE": lambda character: not character.isspace(),
    "CATEGORY_WORD": _is_word,
    "CATEGORY_NOT_WORD": lambda character: not _is_word(character),
}


def _one_of(items: list[tuple[Any, Any]]) -> Callable[[str], bool]:
    negated = items[0][0].name == "NEGATE"
    wanted = [_CHARACTERS[kind.name](argument) for kind, argument in items[negated:]]
    return lambda character: any(test(character) for test in wanted) != negated


_CHARACTERS: Final[dict[str, Callable[[Any], Callable[[str], bool]]]] = {
    "LITERAL": lambda code: lambda character: ord(character) == code,
    "NOT_LITERAL": lambda code: lambda character: ord(character) != code,
    "ANY": lambda _: lambda character: character != "\n",
    "RANGE": lambda bounds: lambda character: bounds[0] <= ord(character) <= bounds[1],
    "CATEGORY": lambda category: _CATEGORIES[category.name],
    "IN": _one_of,
}
