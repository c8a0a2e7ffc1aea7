"""The check by running: one random input through both models, and what they make of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.convert.running import Input, Runner

__all__ = ["Check", "compare", "examples"]

Array = NDArray[Any]

_RELATIVE, _HALF = 2e-4, 2e-2
_SEED = 20
_MOST_LAYOUTS = 27
_SIZES = {0: 2, 1: 12}


@dataclass(frozen=True)
class Check:
    """``difference`` is the largest, relative to how far outputs lie apart; None where the models could not be
    compared, for this ``reason``. ``conclusive`` says that the outputs are not all alike."""

    difference: float | None
    reason: str = ""
    conclusive: bool = True
    note: str = ""
    half: bool = False

    @property
    def passed(self) -> bool:
        """Whether the outputs agree."""
        return self.difference is not None and self.difference <= (_HALF if self.half else _RELATIVE)


def examples(inputs: Sequence[Input], rows: int) -> list[Array]:
    """Random inputs of the shapes; integers are rows of a table that has ``rows``."""
    generator = np.random.default_rng(_SEED)
    return [_example(generator, given, rows) for given in inputs]


def _example(generator: np.random.Generator, given: Input, rows: int) -> Array:
    free = 32 if len(given.shape) > 3 else 12
    shape = [n if n and n > 0 else _SIZES[0] if place == 0 else free for place, n in enumerate(given.shape)]
    if given.integers:
        return generator.integers(0, max(rows, 1), shape)
    return generator.standard_normal(shape).astype(np.float32)


def layouts(array: Array) -> list[Array]:
    """An input as other frameworks could want it: channels elsewhere, time first; the most usual one first."""
    if array.ndim < 3:
        return [array]
    moved = [np.moveaxis(array, -1, 1), np.moveaxis(array, 1, -1)]
    found = [array, *moved, *([np.swapaxes(array, 0, 1)] if array.ndim == 3 else [])]
    unique: list[Array] = []
    for each in found:
        if not any(each.shape == other.shape and np.array_equal(each, other) for other in unique):
            unique.append(each)
    return unique


def compare(
    one: Runner, other: Runner, given: Sequence[Array], preferred: Callable[[int, Array], Array], *, half: bool = False
) -> Check:
    """Run ``one`` on ``given``, and ``other`` on the same in each layout that it could want; the best is what counts.

    ``preferred`` says which layout of an input comes first.
    """
    try:
        expected = one.run(given)
    except Exception as error:  # whatever a framework raises
        return Check(None, f"the source does not run: {_short(error)}")
    best = Check(None, "the target takes inputs in none of the usual layouts")
    for arrays in islice(_candidates(given, other.inputs, preferred), _MOST_LAYOUTS):
        try:
            found = other.run(arrays)
        except Exception as error:  # whatever a framework raises
            if best.difference is None:
                best = Check(None, f"the target does not run: {_short(error)}")
            continue
        check = _compared(expected, found, half)
        if best.difference is None or (check.difference is not None and check.difference < best.difference):
            best = check
        if best.passed:
            break
    return best


def _candidates(
    given: Sequence[Array], declared: Sequence[Input] | None, preferred: Callable[[int, Array], Array]
) -> Iterator[list[Array]]:
    options = []
    for place, array in enumerate(given):
        first = preferred(place, array)
        found = [first, *(a for a in layouts(array) if a.shape != first.shape or not np.array_equal(a, first))]
        if declared is not None and place < len(declared):
            found = [a for a in found if _fits(a.shape, declared[place].shape)] or found[:1]
        options.append(found)
    yield from (list(arrays) for arrays in product(*options))


def _fits(shape: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    return len(shape) == len(declared) and all(
        not want or want < 0 or want == size or place == 0
        for place, (size, want) in enumerate(zip(shape, declared, strict=True))
    )


def _compared(expected: list[Array], found: list[Array], half: bool) -> Check:
    count = min(len(expected), len(found))
    pairs = [_best(a.astype(np.float64), b.astype(np.float64)) for a, b in zip(expected, found, strict=False)]
    compared = [(difference, note) for difference, note in pairs if difference is not None]
    if not count or len(compared) < count:
        shapes = [[list(a.shape) for a in arrays] for arrays in (expected, found)]
        return Check(None, f"the outputs have the shapes {shapes[0]} and {shapes[1]}")
    difference, note = max(compared)
    conclusive = all(np.ptp(a) > 1e-3 * np.abs(a).max(initial=0) for a in expected[:count])
    return Check(difference, "", conclusive, note, half)


def _best(a: Array, b: Array) -> tuple[float | None, str]:
    """How much two outputs differ at the least: with channels elsewhere, or before a softmax."""
    found: list[tuple[float, str]] = []
    for layout in layouts(b):
        if layout.shape == a.shape:
            found.append((_difference(a, layout), ""))
            found.append((_difference(_softmax(a), layout), "the target ends with a softmax, the source does not"))
            found.append((_difference(a, _softmax(layout)), "the source ends with a softmax, the target does not"))
    if a.size == b.size and not found:
        found.append((_difference(a.reshape(-1), b.reshape(-1)), ""))
    plain = [pair for pair in found if not pair[1]]
    if any(pair[0] <= _HALF for pair in plain):
        found = plain
    return min(found, key=lambda pair: pair[0]) if found else (None, "")


def _softmax(a: Array) -> Array:
    powers = np.exp(a - a.max(-1, keepdims=True)) if a.ndim else a
    return powers / powers.sum(-1, keepdims=True) if a.ndim else a


def _difference(a: Array, b: Array) -> float:
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    largest = np.abs(a).max(initial=0)
    # what all outputs have in common says nothing
    scale = max(np.ptp(a) if a.size > 1 else largest, 1e-3 * largest, 1e-12)
    return float(np.abs(a - b).max(initial=0) / scale)


def _short(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
