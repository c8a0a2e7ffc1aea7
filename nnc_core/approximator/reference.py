"""Quantization and reconstruction in plain Python (clause 9): slow on purpose, the judge of the native code."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.entropy import levels as levels_of_state
from nnc_core.entropy.levels import MAX_MAGNITUDE
from nnc_core.entropy.scan import segments
from nnc_core.tables.cabac import NEXT_STATE

STATES: Final = range(8)
UNREACHABLE: Final = 0.5 * float(np.finfo(np.float64).max)


def quantize_uniform(values: NDArray[np.float32], step: float) -> NDArray[np.int32]:
    """The nearest multiples of the step, away from zero where two are equally near; float32 of any shape to int32.

    Raises ValueError for values that are not finite or whose multiple does not fit 32 bits.
    """
    multiples = _multiples(values, step).astype(np.float64)
    return (np.sign(multiples) * np.floor(np.abs(multiples) + 0.5)).astype(np.int32)


def _multiples(values: NDArray[np.float32], step: float) -> NDArray[np.float32]:
    """`values` in steps, as real numbers; each is rounded to binary32 twice, once in the reciprocal of the step."""
    _check_dtype(values)
    with np.errstate(all="ignore"):
        multiples: NDArray[np.float32] = values * (np.float32(1) / np.float32(step))
    if not np.all(np.abs(multiples) < MAX_MAGNITUDE + 1):
        raise ValueError(f"a value is not finite or too large for steps of {step}")
    return multiples


def _check_dtype(values: NDArray[np.float32]) -> None:
    if values.dtype != np.float32:
        raise ValueError(f"values are {values.dtype}, expected float32")


def quantize_dependent(values: NDArray[np.float32], step: float, scan_order: int = 0) -> NDArray[np.int32]:
    """The multiples of the step with the least squared error among those that dependent quantization can code.

    A value of exactly zero stays zero: pruned weights and masks survive. `values` are float32, rows x width; so is the
    result, int32. Raises ValueError as `quantize_uniform` does.
    """
    _check_dtype(values)
    inverse = 1 / float(np.float32(step))
    with np.errstate(invalid="ignore"):
        if not np.all(np.abs(values.astype(np.float64)) * inverse < MAX_MAGNITUDE - 3):
            raise ValueError(f"a value is not finite or too large for steps of {step}")
    places = _coding_order(values.shape, scan_order)
    quantized = np.zeros(values.shape, np.int32)
    path = _best_path([inverse * float(values[place]) for place in places])
    for place, branch in zip(places, path, strict=True):
        quantized[place] = levels_of_state.expand(branch.coded, branch.source)
    return quantized


class _Branch(NamedTuple):
    """One way into a state of the trellis: from where, by which coded index, at which cost in total."""

    source: int
    coded: int
    cost: float


def _best_path(multiples: list[float]) -> list[_Branch]:
    """Search the trellis of all states for the indices with the smallest squared error in total."""
    costs = [0.0] + [UNREACHABLE] * 7
    decisions = []
    for multiple in multiples:
        ways = _ways_by_target(multiple, costs)
        # min takes the first of equals, as the standard's encoder does.
        decisions.append([min(ways[target], key=lambda branch: branch.cost) for target in STATES])
        costs = [branch.cost for branch in decisions[-1]]
    return _trace_back(decisions, costs.index(min(costs)))


def _ways_by_target(multiple: float, costs: list[float]) -> list[list[_Branch]]:
    """For every state the branches that lead to it, lower sources first, zero last among those of one source."""
    ways: list[list[_Branch]] = [[] for _ in STATES]
    for source in STATES:
        for index in _indices(multiple, source & 1):
            error = multiple - levels_of_state.expand(index, source)
            ways[NEXT_STATE[source][index & 1]].append(_Branch(source, index, costs[source] + error * error))
    return ways


def _indices(multiple: float, quantizer: int) -> list[int]:
    """The indices worth a try: the near ones of either parity that are not zero, and zero; zero alone for zero."""
    if multiple == 0:
        return [0]
    sign = -1 if multiple < 0 else 1
    nearest = max(1, math.floor(abs(multiple)) - 1)
    # Of four neighbouring multiples two are on the lattice of each quantizer, one of either parity.
    levels = [level for level in range(nearest, nearest + 4) if level % 2 == quantizer]
    return [sign * ((level + 1) // 2) for level in levels] + [0]


def _trace_back(decisions: list[list[_Branch]], state: int) -> list[_Branch]:
    path = []
    for branches in reversed(decisions):
        path.append(branches[state])
        state = branches[state].source
    return path[::-1]


def expand(indices: NDArray[np.int32], scan_order: int = 0) -> NDArray[np.int32]:
    """The multiples of the step that coded indices of dependent quantization stand for; int32, rows x width.

    Raises ValueError if one does not fit 32 bits.
    """
    levels = np.zeros_like(indices)
    state = 0
    for place in _coding_order(indices.shape, scan_order):
        index = int(indices[place])
        level = levels_of_state.expand(index, state)
        if abs(level) > MAX_MAGNITUDE:
            raise ValueError(f"index {index} stands for {level}, which does not fit 32 bits")
        levels[place] = level
        state = NEXT_STATE[state][index & 1]
    return levels


def collapse(levels: NDArray[np.int32], scan_order: int = 0) -> NDArray[np.int32]:
    """The inverse of `expand`. Raises ValueError for a multiple that dependent quantization does not have there."""
    indices = np.zeros_like(levels)
    state = 0
    for place in _coding_order(levels.shape, scan_order):
        index = levels_of_state.collapse(int(levels[place]), state)
        indices[place] = index
        state = NEXT_STATE[state][index & 1]
    return indices


def _coding_order(shape: tuple[int, ...], scan_order: int) -> list[tuple[int, int]]:
    rows, width = shape
    return [(segment.row, column) for segment in segments(rows, width, scan_order) for column in segment.columns]


def reconstruct(levels: NDArray[np.int32], step: float) -> NDArray[np.float32]:
    """The values of uniformly or dependently quantized integers; int32 of any shape to float32."""
    values: NDArray[np.float32] = levels.astype(np.float32) * np.float32(step)
    return values
