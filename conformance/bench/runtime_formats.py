"""Formats that run-time libraries compute with, as quantizers of one matrix: what it becomes, and its bytes.

Every quantizer counts all that a decoder needs: levels, scales, zero points, orders of columns. Written from public
descriptions: int8 and int4 with a scale for each row or group; the blocks Q8_0, Q4_0, Q4_K, Q3_K and Q2_K of GGUF,
whose scales are searched for with the importance of each column (its mean square input); and GPTQ (Frantar et al.,
2022), column by column in the order of falling importance, each making up for the errors of those before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.calibrated import calibration

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Rounded:
    """A matrix after quantization, what it takes, and the bytes themselves where they are made."""

    values: Floats
    size: int
    data: bytes = b""


def _scale(numbers: Floats) -> Floats:
    """Scales as they are stored, in 16 bits."""
    return numbers.astype(np.float16).astype(np.float32)


def _over(numbers: Floats, scales: Floats) -> Floats:
    """Numbers over their scales; nothing over a scale of zero."""
    return np.divide(numbers, scales, out=np.zeros_like(numbers), where=scales != 0)


# --- round to nearest -----------------------------------------------------------------------------------------------


def in_groups(size: int, bits: int) -> Callable[[Floats], Rounded]:
    """Round to nearest with a scale for each group of so many weights, or each row (0).

    The largest magnitude of a group gets the last level. The bytes are all levels, then all scales.
    """

    def rounded(weight: Floats) -> Rounded:
        groups = _groups(weight, size)
        most = (1 << (bits - 1)) - 1
        scales = _scale(np.abs(groups).max(1, keepdims=True) / np.float32(most))
        levels = np.clip(np.rint(_over(groups, scales)), -most - 1, most)
        stored = levels.reshape(-1)[: weight.size].astype(np.int8)
        data = (_nibbles(stored) if bits == 4 else stored).tobytes() + scales.astype(np.float16).tobytes()
        return Rounded((levels * scales).reshape(-1)[: weight.size].reshape(weight.shape), len(data), data)

    return rounded


def _groups(weight: Floats, size: int) -> Floats:
    """A matrix in groups; zeros fill the last one."""
    matrix = weight.reshape(len(weight), -1)
    if not size:
        return matrix
    return np.pad(matrix.reshape(-1), (0, -matrix.size % size)).reshape(-1, size)


def _nibbles(levels: NDArray[np.int8]) -> NDArray[np.uint8]:
    pairs = np.pad(levels & 15, (0, levels.size % 2)).view(np.uint8).reshape(-1, 2)
    packed: NDArray[np.uint8] = pairs[:, 0] | pairs[:, 1] << 4  # type: ignore[assignment]
    return packed


def q8_0(weight: Floats) -> Rounded:
    """Blocks of a scale and 32 levels of 8 bits."""
    groups = _groups(weight, 32)
    scales = _scale(np.abs(groups).max(1, keepdims=True) / np.float32(127))
    return _blocks(weight, np.clip(np.rint(_over(groups, scales)), -128, 127), scales, lambda levels: levels)


def q4_0(weight: Floats) -> Rounded:
    """Blocks of a scale and 32 levels of 4 bits; the value of the largest magnitude has level -8."""
    groups = _groups(weight, 32)
    peaks = np.take_along_axis(groups, np.abs(groups).argmax(1)[:, None], 1)
    scales = _scale(peaks / np.float32(-8))

    def packed(levels: NDArray[np.int8]) -> NDArray[np.uint8]:
        shifted = (levels + 8).astype(np.uint8)
        halves: NDArray[np.uint8] = shifted[:, :16] | shifted[:, 16:] << 4  # type: ignore[assignment]
        return halves

    return _blocks(weight, np.clip(np.rint(_over(groups, scales)), -8, 7), scales, packed)


def _blocks(weight: Floats, levels: Floats, scales: Floats, packed: Callable[[NDArray[np.int8]], NDArray]) -> Rounded:
    parts = [scales.astype(np.float16).view(np.uint8), packed(levels.astype(np.int8)).view(np.uint8)]
    data = np.concatenate(parts, 1).tobytes()
    return Rounded((levels * scales).reshape(-1)[: weight.size].reshape(weight.shape), len(data), data)


# --- blocks of 256 with scales that are quantized themselves --------------------------------------------------------

_SUPER = 256
_TRIES = np.linspace(-1, 1.5, 26)
"""How far the range that the levels span is moved, in levels, to find the scale with the least error."""

_TRIMS = np.linspace(0.9, 1.05, 7).astype(np.float32)
"""What a super-block's own scale is multiplied with, in search of the least error."""


def q4_k(weight: Floats, mean_squares: NDArray[np.float64]) -> Rounded:
    """Eight blocks of 32 with levels 0 to 15; scales and minima of 6 bits: 4.5 bits per weight."""
    return _with_minima(weight, mean_squares, 32, 15, 63, 144)


def q2_k(weight: Floats, mean_squares: NDArray[np.float64]) -> Rounded:
    """Sixteen blocks of 16 with levels 0 to 3; scales and minima of 4 bits: 2.625 bits per weight."""
    return _with_minima(weight, mean_squares, 16, 3, 15, 84)


def q3_k(weight: Floats, mean_squares: NDArray[np.float64]) -> Rounded:
    """Sixteen blocks of 16 with levels -4 to 3; scales of 6 bits: 3.4375 bits per weight."""
    values, counts = _in_super_blocks(weight, mean_squares, 16)
    scales = _symmetric(values, counts)
    peaks = np.take_along_axis(scales, np.abs(scales).argmax(1)[:, None], 1)
    best, least = np.zeros_like(values), np.full((len(values), 1, 1), np.inf)
    for trim in _TRIMS:
        whole = _scale(trim * peaks / np.float32(-32))
        used = (np.clip(np.rint(_over(scales, whole)), -32, 31) * whole)[..., None]
        found = np.clip(np.rint(_over(values, used)), -4, 3) * used
        best, least = _better(best, least, found, _error(values, found, counts))
    return _packed(weight, best, 110)


def _with_minima(
    weight: Floats, mean_squares: NDArray[np.float64], block: int, most: int, finest: int, size: int
) -> Rounded:
    values, counts = _in_super_blocks(weight, mean_squares, block)
    scales, minima = _scale_and_minimum(values, counts, most)
    best, least = np.zeros_like(values), np.full((len(values), 1, 1), np.inf)
    for trim in _TRIMS:
        steps, offsets = (
            (np.clip(np.rint(_over(each, whole)), 0, finest) * whole)[..., None]
            for each in (scales, minima)
            for whole in (_scale(trim * each.max(1, keepdims=True) / np.float32(finest)),)
        )
        found = np.clip(np.rint(_over(values + offsets, steps)), 0, most) * steps - offsets
        best, least = _better(best, least, found, _error(values, found, counts))
    return _packed(weight, best, size)


def _in_super_blocks(weight: Floats, mean_squares: NDArray[np.float64], block: int) -> tuple[Floats, Floats]:
    """Values as super-blocks x blocks x weights, and what an error of each counts; rows share super-blocks."""
    shape = (-1, _SUPER // block, block)
    importance = np.broadcast_to(mean_squares / mean_squares.mean(), weight.shape).astype(np.float32).reshape(shape)
    values = weight.reshape(shape)
    return values, importance * np.sqrt(np.square(values).mean((1, 2), keepdims=True) + np.square(values))


def _error(values: Floats, found: Floats, counts: Floats) -> Floats:
    return (counts * np.square(values - found)).sum((1, 2), keepdims=True)


def _better(best: Floats, least: Floats, found: Floats, error: Floats) -> tuple[Floats, Floats]:
    return np.where(error < least, found, best), np.minimum(error, least)


def _packed(weight: Floats, values: Floats, size: int) -> Rounded:
    return Rounded(values.reshape(weight.shape), size * (weight.size // _SUPER))


def _scale_and_minimum(values: Floats, counts: Floats, most: int) -> tuple[Floats, Floats]:
    """For each block d and m >= 0 so that d*q - m with q from 0 to ``most`` has the least weighted error."""
    low, high = np.minimum(values.min(-1), 0), values.max(-1)
    sums, squares = counts.sum(-1), (counts * values).sum(-1)
    best, least = (np.zeros_like(low), -low), np.full(low.shape, np.inf)
    for shift in _TRIES:
        step = _over(np.full_like(low, most + shift), high - low)
        levels = np.clip(np.rint((values - low[..., None]) * step[..., None]), 0, most)
        s1, s2, sx = (counts * levels).sum(-1), (counts * levels**2).sum(-1), (counts * levels * values).sum(-1)
        scale = _over(sums * sx - s1 * squares, sums * s2 - s1 * s1)
        minimum = -_over(squares - scale * s1, sums)
        scale, minimum = np.where(minimum < 0, _over(sx, s2), scale), np.maximum(minimum, 0)
        error = (counts * np.square(scale[..., None] * levels - minimum[..., None] - values)).sum(-1)
        wins = (error < least) & (scale >= 0)
        best = np.where(wins, scale, best[0]), np.where(wins, minimum, best[1])
        least = np.where(wins, error, least)
    return best


def _symmetric(values: Floats, counts: Floats) -> Floats:
    """For each block the scale of levels -4 to 3 with the least weighted error; its sign lets the peak be -4."""
    peaks = np.take_along_axis(values, np.abs(values).argmax(-1)[..., None], -1)[..., 0]
    best, gain = np.zeros_like(peaks), np.zeros_like(peaks)
    for shift in _TRIES:
        step = _over(np.full_like(peaks, -(4 + shift)), peaks)
        levels = np.clip(np.rint(values * step[..., None]), -4, 3)
        sx, s2 = (counts * levels * values).sum(-1), (counts * levels**2).sum(-1)
        found = _over(sx * sx, s2)
        best, gain = np.where(found > gain, _over(sx, s2), best), np.maximum(found, gain)
    return best


# --- GPTQ -----------------------------------------------------------------------------------------------------------


def gptq(
    weight: Floats, covariance: NDArray[np.float64], bits: int, *, group: int = 128, damping: float, clipped: bool
) -> Rounded:
    """Levels of ``bits`` with a scale of 16 bits and a zero point for each row and group of columns.

    Columns come in the order of falling mean square input (act-order), which takes 16 bits each. Ranges span all values
    of a group, or are ``clipped`` for the least squared error.
    """
    order = np.argsort(-np.diag(covariance), kind="stable")
    factor = calibration(covariance[np.ix_(order, order)], damping).factor
    current, found = weight[:, order].copy(), np.empty_like(weight)
    for start in range(0, weight.shape[1], group):
        end = min(start + group, weight.shape[1])
        scale, zero = _range(current[:, start:end], (1 << bits) - 1, clipped)
        errors = np.empty((len(weight), end - start), np.float32)
        for column in range(start, end):
            levels = np.clip(np.rint(_over(current[:, column], scale)) + zero, 0, (1 << bits) - 1)
            found[:, order[column]] = scale * (levels - zero)
            error = (current[:, column] - found[:, order[column]]) / factor[column, column]
            current[:, column + 1 : end] -= error[:, None] * factor[column, column + 1 : end]
            errors[:, column - start] = error
        current[:, end:] -= errors @ factor[start:end, end:]
    groups = len(weight) * -(-weight.shape[1] // group)
    return Rounded(found, (bits * weight.size + (16 + bits) * groups + 16 * weight.shape[1]) // 8)


def _range(values: Floats, most: int, clipped: bool) -> tuple[Floats, Floats]:
    """The scale and the zero point of each row."""
    low, high = np.minimum(values.min(1), 0), np.maximum(values.max(1), 0)
    best, least = (low, low), np.full(len(values), np.inf)
    for share in np.linspace(1, 0.4, 25) if clipped else (1.0,):
        scale = _scale(np.float32(share) * (high - low) / np.float32(most))
        zero = np.clip(np.rint(-_over(np.float32(share) * low, scale)), 0, most)
        levels = np.clip(np.rint(_over(values, scale[:, None])) + zero[:, None], 0, most)
        error = np.square(scale[:, None] * (levels - zero[:, None]) - values).sum(1)
        best = np.where(error < least, scale, best[0]), np.where(error < least, zero, best[1])
        least = np.minimum(error, least)
    return best
