"""What levels cost with so many flags abs_level_greater_x, and how many suit a tensor: an encoder's choices."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

USUAL_UNARY_LENGTH_MINUS1: Final = 10
_CANDIDATES: Final = (USUAL_UNARY_LENGTH_MINUS1, 17, 23, 31, 47, 95)

_LARGE: Final = 4095
"""Beyond, the length of an index is about the same with all candidates."""

_LEARNING: Final = 4.0
"""Bits until a context knows its bins."""

_ADAPTING: Final = 0.008
"""Bits that each bin costs beyond its entropy, since contexts never cease to adapt."""


def best_unary_length_minus1(levels: NDArray[np.int32], dq_flag: bool) -> int:
    """The candidate with which ``levels`` (multiples of the step, any shape) take the fewest bits, by an estimate.

    Where values are fine-grained it makes a tensor 0.1 to 2 % smaller than the usual length.
    """
    flat = levels.reshape(-1)
    magnitudes = np.minimum((np.abs(flat) + 1) >> 1 if dq_flag else np.abs(flat), _LARGE)
    counts = [np.bincount(magnitudes[side]) for side in (flat > 0, flat < 0)]
    if max(len(each) for each in counts) <= USUAL_UNARY_LENGTH_MINUS1 + 1:
        return USUAL_UNARY_LENGTH_MINUS1
    return min(_CANDIDATES, key=lambda length: _bits(counts, length + 1))


def estimated_bits(indices: NDArray[np.int64], cabac_unary_length_minus1: int) -> float:
    """About how many bits integers take (any shape, below 2**53), without what neighbours tell of each other."""
    flags, flat = cabac_unary_length_minus1 + 1, indices.reshape(-1)
    magnitudes = np.abs(flat)
    sides = [np.bincount(np.minimum(magnitudes[side], flags + 1)) for side in (flat > 0, flat < 0)]
    signs = np.array([each.sum() for each in sides])
    significance = _decision_bits(np.array([flat.size - signs.sum()]), signs[:1] + signs[1:])
    bits = significance + _decision_bits(signs[:1], signs[1:]) + sum(_flag_bits(each, flags) for each in sides)
    beyond = magnitudes[magnitudes > flags] - flags
    if not beyond.size:
        return bits
    return bits + _remainder_bits(np.bincount(np.frexp(beyond.astype(np.float64))[1] - 1))


def _bits(counts: list[NDArray[np.intp]], flags: int) -> float:
    """Beyond significance and sign; ``counts`` has the magnitudes of positive and of negative indices."""
    bits = sum(_flag_bits(each, flags) for each in counts)
    longest = max(len(each) for each in counts) - 1 - flags
    if longest <= 0:
        return bits
    rests = sum(np.pad(each, (0, longest + flags + 1 - len(each)))[flags + 1 :] for each in counts)
    lengths = np.bincount(np.floor(np.log2(np.arange(1, longest + 1))).astype(int), weights=rests)
    return bits + _remainder_bits(lengths)


def _remainder_bits(lengths: NDArray[Any]) -> float:
    """Of so many remainders of each length."""
    suffix = float(np.arange(len(lengths)) @ lengths)
    return suffix + _decision_bits(lengths, _tail(lengths) - lengths)


def _flag_bits(counts: NDArray[np.intp], flags: int) -> float:
    reached = _tail(counts)[1 : flags + 2]
    stay, go = reached - np.append(reached[1:], 0), np.append(reached[1:], 0)
    if len(reached) > flags:
        stay, go = stay[:flags], go[:flags]
    return _decision_bits(stay, go)


def _tail(counts: NDArray[Any]) -> NDArray[Any]:
    """How many are at least as large as each index."""
    tail: NDArray[Any] = counts[::-1].cumsum()[::-1]
    return tail


def _decision_bits(zeros: NDArray[Any], ones: NDArray[Any]) -> float:
    """Of contexts that see so many zeros and ones each."""
    both = zeros + ones
    used = both > 0
    entropy = _plogp(both) - _plogp(zeros) - _plogp(ones)
    return float(entropy.sum() + _ADAPTING * both.sum() + _LEARNING * np.count_nonzero(used))


def _plogp(counts: NDArray[Any]) -> NDArray[np.float64]:
    positive = np.maximum(counts, 1).astype(np.float64)
    bits: NDArray[np.float64] = positive * np.log2(positive)
    return bits
