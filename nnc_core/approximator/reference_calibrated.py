"""Calibrated quantization in plain Python: slow on purpose, the judge of the native code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.calibrated import Calibration
from nnc_core.approximator.rates import lambda_dependent, lambda_uniform
from nnc_core.approximator.reference_rates import RATE_BLOCK, RateModel
from nnc_core.entropy import levels as levels_of_state
from nnc_core.entropy.levels import MAX_MAGNITUDE
from nnc_core.tables.cabac import NEXT_STATE


class _Survivor(NamedTuple):
    """The best way to one end: its cost, its last index, the row as corrected by its errors, and its steps."""

    cost: float
    state: int
    sign: int
    row: NDArray[np.float32]
    steps: tuple[tuple[int, int, int], ...] = ()

    @property
    def end(self) -> tuple[int, bool]:
        return self.state, self.sign != 0


def quantize_calibrated(
    values: NDArray[np.float32],
    step: float,
    calibration: Calibration,
    *,
    dq_flag: bool = True,
    lambda_scale: float = 0.0,
    cabac_unary_length_minus1: int = 10,
    shift_indices: Sequence[int] | None = None,
) -> NDArray[np.int32]:
    """The function of `nnc_core.approximator.calibrated`."""
    lagrangian = lambda_dependent(lambda_scale) if dq_flag else lambda_uniform(lambda_scale)
    model = RateModel(lagrangian, cabac_unary_length_minus1, shift_indices)
    search = _Search(float(np.float32(step)), model, dq_flag=dq_flag)
    quantized = np.zeros(values.shape, np.int32)
    rows = _columns if calibration.input_first else _rows
    with np.errstate(all="ignore"):
        rows(search, values, calibration, quantized)
    return quantized


def _rows(search: _Search, values: NDArray[np.float32], calibration: Calibration, quantized: NDArray[np.int32]) -> None:
    """The columns of a row are corrected while it is searched; each group of rows has a factor of its own."""
    width = values.shape[1]
    groups = len(calibration.factor) // width
    for row, levels in enumerate(quantized):
        first = row // (len(values) // groups) * width
        own = slice(first, first + width)
        levels[:] = search.row(values[row], values[row], calibration.factor[own], calibration.importance[own])


def _columns(
    search: _Search, values: NDArray[np.float32], calibration: Calibration, quantized: NDArray[np.int32]
) -> None:
    """The rows below are corrected when a row is done, by the errors of all above."""
    factor = calibration.factor
    errors = np.zeros(values.shape, np.float32)
    for row, levels in enumerate(quantized):
        corrected = values[row].copy()
        for above in range(row):
            corrected -= factor[above, row] * errors[above]
        importance = np.full(len(corrected), calibration.importance[row])
        levels[:] = search.row(corrected, values[row], None, importance)
        left = corrected.astype(np.float64) - levels * search.step
        errors[row] = (left / float(factor[row, row])).astype(np.float32)


class _Search:
    def __init__(self, step: float, model: RateModel, *, dq_flag: bool) -> None:
        self.step = step
        self._inverse = 1 / step
        self._factor: NDArray[np.float32] | None = None
        self._importance: list[float] = []
        self._model = model
        self._dq_flag = dq_flag
        self._state = self._sign = 0

    def row(
        self,
        values: NDArray[np.float32],
        original: NDArray[np.float32],
        factor: NDArray[np.float32] | None,
        importance: NDArray[np.float64],
    ) -> list[int]:
        """The levels of one row; its best survivor is where the next row starts.

        Without a ``factor`` nothing in it is corrected. Zeros are those of the ``original`` row.
        """
        self._factor, self._importance = factor, importance.tolist()
        survivors = [_Survivor(0.0, self._state, self._sign, values)]
        for start in range(0, len(values), RATE_BLOCK):
            columns = range(start, min(start + RATE_BLOCK, len(values)))
            for column in columns:
                survivors = self._advance(survivors, column, bool(original[column] == 0))
            for state, sign, index in self._best(survivors).steps[start:]:
                self._model.learn(index, sign, state)
        best = self._best(survivors)
        self._state, self._sign = best.state, best.sign
        return [self._level(index, state) for state, _, index in best.steps]

    def _level(self, index: int, state: int) -> int:
        return levels_of_state.expand(index, state) if self._dq_flag else index

    def _best(self, survivors: list[_Survivor]) -> _Survivor:
        return min(sorted(survivors, key=lambda survivor: survivor.end), key=lambda survivor: survivor.cost)

    def _advance(self, survivors: list[_Survivor], column: int, is_zero: bool) -> list[_Survivor]:
        """The best way to every end, of equals the one from the lower end; a multiple wins over zero."""
        best: dict[object, tuple[float, _Survivor, int]] = {}
        for source in sorted(survivors, key=lambda survivor: survivor.end):
            for index in self._indices(source, column, is_zero):
                state = NEXT_STATE[source.state][index & 1] if self._dq_flag else 0
                target = state if self._dq_flag else index != 0
                cost = self._cost(source, column, index)
                if target not in best or cost < best[target][0]:
                    best[target] = cost, source, index
        return [self._extended(*way, column) for way in best.values()]

    def _multiple(self, source: _Survivor, column: int) -> float:
        multiple = self._inverse * float(source.row[column])
        if not abs(multiple) < MAX_MAGNITUDE - 3:
            raise ValueError(f"a value in column {column} is not finite or too large for steps of {self.step}")
        return multiple

    def _indices(self, source: _Survivor, column: int, is_zero: bool) -> list[int]:
        multiple = self._multiple(source, column)
        if is_zero:
            return [0]
        sign, magnitude = -1 if multiple < 0 else 1, abs(multiple)
        if not self._dq_flag:
            nearest = math.floor(magnitude + 0.5)
            return [sign * level for level in range(max(1, nearest - 2), nearest + 1)] + [0]
        lowest = max(1, math.floor(magnitude) - 1)
        levels = [level for level in range(lowest, lowest + 4) if level % 2 == source.state % 2]
        return [sign * ((level + 1) // 2) for level in levels] + [0]

    def _cost(self, source: _Survivor, column: int, index: int) -> float:
        error = self._multiple(source, column) - self._level(index, source.state)
        importance: float = self._importance[column]
        flags = source.cost + self._model.flags(index, source.sign, source.state)
        return flags + (importance * (error * error) + self._model.magnitude(index))

    def _extended(self, cost: float, source: _Survivor, index: int, column: int) -> _Survivor:
        row = source.row
        if self._factor is not None:
            left = float(row[column]) - self._level(index, source.state) * self.step
            error = np.float32(left / float(self._factor[column, column]))
            row = row.copy()
            row[column + 1 :] -= error * self._factor[column, column + 1 :]
        state = NEXT_STATE[source.state][index & 1] if self._dq_flag else 0
        step = (source.state, source.sign, index)
        return _Survivor(cost, state, levels_of_state.sign(index), row, (*source.steps, step))
