"""Quantization and reconstruction in plain Python (clause 9): slow on purpose, the judge of the native code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.rates import lambda_dependent, lambda_uniform
from nnc_core.approximator.reference_rates import RATE_BLOCK, RateModel
from nnc_core.entropy import levels as levels_of_state
from nnc_core.entropy.levels import MAX_MAGNITUDE
from nnc_core.entropy.scan import segments
from nnc_core.tables.cabac import NEXT_STATE

STATES: Final = range(8)
UNREACHABLE: Final = 0.5 * float(np.finfo(np.float64).max)


def quantize_uniform(
    values: NDArray[np.float32],
    step: float,
    scan_order: int = 0,
    lambda_scale: float = 0.0,
    cabac_unary_length_minus1: int = 10,
    shift_indices: Sequence[int] | None = None,
) -> NDArray[np.int32]:
    """The nearest multiples of the step, away from zero where two are equally near; float32 of any shape to int32.

    With `lambda_scale` above 0 those with the least sum of squared error and bits, weighted by `lambda_uniform`; then
    `values` are rows x width. Bits are those of a coder whose contexts start from `shift_indices`.

    Raises ValueError for values that are not finite or whose multiple does not fit 32 bits.
    """
    if (lagrangian := lambda_uniform(lambda_scale)) > 0:
        model = RateModel(lagrangian, cabac_unary_length_minus1, shift_indices)
        return _quantize_with_rates(values, step, scan_order, model, dq_flag=False)
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


def quantize_dependent(
    values: NDArray[np.float32],
    step: float,
    scan_order: int = 0,
    lambda_scale: float = 0.0,
    cabac_unary_length_minus1: int = 10,
    shift_indices: Sequence[int] | None = None,
) -> NDArray[np.int32]:
    """The multiples of the step with the least squared error among those that dependent quantization can code.

    With `lambda_scale` above 0 bits count too, weighted by `lambda_dependent`: those of a coder whose contexts start
    from `shift_indices`. A value of exactly zero stays zero: pruned weights and masks survive. `values` are float32,
    rows x width; so is the result, int32. Raises ValueError as `quantize_uniform` does.
    """
    if (lagrangian := lambda_dependent(lambda_scale)) > 0:
        model = RateModel(lagrangian, cabac_unary_length_minus1, shift_indices)
        return _quantize_with_rates(values, step, scan_order, model, dq_flag=True)
    multiples = _multiples_with_room(values, step)
    places = _coding_order(values.shape, scan_order)
    quantized = np.zeros(values.shape, np.int32)
    path = _best_path([float(multiples[place]) for place in places])
    for place, branch in zip(places, path, strict=True):
        quantized[place] = levels_of_state.expand(branch.coded, branch.source)
    return quantized


def _multiples_with_room(values: NDArray[np.float32], step: float) -> NDArray[np.float64]:
    """`values` in steps, such that multiples up to three above still fit 32 bits."""
    _check_dtype(values)
    with np.errstate(invalid="ignore"):
        multiples: NDArray[np.float64] = values.astype(np.float64) * (1 / float(np.float32(step)))
    if not np.all(np.abs(multiples) < MAX_MAGNITUDE - 3):
        raise ValueError(f"a value is not finite or too large for steps of {step}")
    return multiples


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


class _End(NamedTuple):
    """Where a way through the trellis has led to: the state, and the sign of the last index."""

    state: int
    sign: int


class _Way(NamedTuple):
    """The last step of a way: from where, by which coded index, at which cost in total."""

    source: _End
    coded: int
    cost: float


def _quantize_with_rates(
    values: NDArray[np.float32], step: float, scan_order: int, model: RateModel, *, dq_flag: bool
) -> NDArray[np.int32]:
    multiples = _multiples_with_room(values, step)
    search = _Search(model, dq_flag)
    quantized = np.zeros(values.shape, np.int32)
    for band in _bands(values.shape, scan_order):
        search.restart()
        for start in range(0, len(band), RATE_BLOCK):
            search.extend([float(multiples[place]) for place in band[start : start + RATE_BLOCK]])
    places = _coding_order(values.shape, scan_order)
    for place, way in zip(places, search.best(), strict=True):
        quantized[place] = levels_of_state.expand(way.coded, way.source.state) if dq_flag else way.coded
    return quantized


class _Search:
    """Finds the indices with the least sum of squared error and cost of bits.

    Of all ways that end in the same state with the same sign only the best goes on; without dependent quantization
    there is one state. Costs of bits stand still within a block.
    """

    def __init__(self, model: RateModel, dq_flag: bool) -> None:
        self._model = model
        self._dq_flag = dq_flag
        self._costs = {_End(0, 0): 0.0}
        self._ways: list[dict[_End, _Way]] = []
        self._fresh = True

    def restart(self) -> None:
        """Start a row of blocks: the contexts forget, and the index before counts as zero."""
        self._model.restart()
        self._fresh = True

    def extend(self, multiples: list[float]) -> None:
        """Go on through a block, and teach the model what is best so far."""
        fresh = self._fresh
        for multiple in multiples:
            self._ways.append(self._step(multiple))
            self._costs = {end: way.cost for end, way in self._ways[-1].items()}
            self._fresh = False
        for number, way in enumerate(self.best()[-len(multiples) :]):
            neighbour = 0 if fresh and number == 0 else way.source.sign
            self._model.learn(way.coded, neighbour, way.source.state)

    def best(self) -> list[_Way]:
        """The best of all ways; of equals the one that ends with a zero, then the one in the lowest state."""
        end = min(sorted(self._costs, key=lambda end: (end.sign != 0, end.state)), key=self._costs.__getitem__)
        path = []
        for ways in reversed(self._ways):
            path.append(ways[end])
            end = ways[end].source
        return path[::-1]

    def _step(self, multiple: float) -> dict[_End, _Way]:
        best: dict[_End, _Way] = {}
        for source in sorted({end.state for end in self._costs}):
            for index in self._indices(multiple, source):
                end = _End(NEXT_STATE[source][index & 1] if self._dq_flag else 0, levels_of_state.sign(index))
                way = self._way(multiple, source, index)
                if end not in best or way.cost < best[end].cost:
                    best[end] = way
        return best

    def _indices(self, multiple: float, source: int) -> list[int]:
        if self._dq_flag:
            return _indices(multiple, source & 1)
        sign = -1 if multiple < 0 else 1
        nearest = math.floor(abs(multiple) + 0.5)
        return [sign * magnitude for magnitude in range(max(1, nearest - 2), nearest + 1)] + [0]

    def _way(self, multiple: float, source: int, index: int) -> _Way:
        """The cheapest way to go on from a state by an index; of equals the one whose last index was zero."""
        error = multiple - (levels_of_state.expand(index, source) if self._dq_flag else index)
        ends = sorted((end for end in self._costs if end.state == source), key=lambda end: end.sign != 0)
        costs = [self._costs[end] + self._flags(index, end) for end in ends]
        cost = min(costs) + (error * error + self._model.magnitude(index))
        return _Way(ends[costs.index(min(costs))], index, cost)

    def _flags(self, index: int, end: _End) -> float:
        return self._model.flags(index, 0 if self._fresh else end.sign, end.state)


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
    return [place for band in _bands(shape, scan_order) for place in band]


def _bands(shape: tuple[int, ...], scan_order: int) -> list[list[tuple[int, int]]]:
    """The places of all elements in coding order, by row of blocks."""
    rows, width = shape
    bands: list[list[tuple[int, int]]] = []
    for segment in segments(rows, width, scan_order):
        if segment.band is not None or not bands:
            bands.append([])
        bands[-1] += ((segment.row, column) for column in segment.columns)
    return bands


def reconstruct(levels: NDArray[np.int32], step: float) -> NDArray[np.float32]:
    """The values of uniformly or dependently quantized integers; int32 of any shape to float32."""
    values: NDArray[np.float32] = levels.astype(np.float32) * np.float32(step)
    return values
