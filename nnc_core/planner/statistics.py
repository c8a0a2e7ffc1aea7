"""What a plan needs to know of the values of a tensor: one pass that reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Statistics", "is_vector", "statistics"]

_BLOCK = 1 << 18
_GAP = 6
"""How many octaves lie between the ordinary values of a tensor and those few that are far beyond."""
_FEW = 1 / 500
_MIXED = 10
"""How much the rms of a tensor is above the mean, on a logarithmic scale, of its rows or columns if these are mixed."""
_QUIET = 0.01
_NARROW, _TIMES = 64, 8
_HANDFUL: Final = 64
"""Values that are measured faster one by one than as an array, up to this number."""


class Statistics(NamedTuple):
    """Of the finite values of a tensor.

    ``size`` and ``energy`` (the sum of squares) leave out the few that lie far beyond the others. ``least`` is the
    smallest magnitude in a vector that is not 0. ``quiet`` is the rms of the quietest rows or columns where these
    differ widely in scale, and otherwise that of the tensor. ``narrow`` says that the tensor has far fewer rows
    than columns, or the reverse, like the factors of a product.
    """

    size: int
    energy: float
    peak: float
    least: float
    quiet: float
    narrow: bool = False

    @property
    def rms(self) -> float:
        """The root of the mean square."""
        return math.sqrt(self.energy / self.size) if self.size else 0.0


def is_vector(shape: tuple[int, ...]) -> bool:
    """Whether at most one dimension is above 1."""
    return len(shape) - shape.count(1) - shape.count(0) <= 1


def statistics(values: NDArray[np.float32]) -> Statistics:
    """Measure a tensor of any shape."""
    return (_of_a_handful(values) if values.size <= _HANDFUL else None) or _of_many(values)


def _of_a_handful(values: NDArray[np.float32]) -> Statistics | None:
    """The same as `_of_many`, in ordinary cases only."""
    magnitudes = list(map(abs, values.reshape(-1).tolist()))
    squares = [magnitude * magnitude for magnitude in magnitudes]
    size, energy, ordered = len(squares), math.fsum(squares), sorted(magnitudes)
    if not (energy < math.inf and ordered[-1] < (2**_GAP) * ordered[size // 2]):
        return None
    vector = is_vector(values.shape)
    if not vector and not _alike(squares, values.shape, energy, ordered):
        return None
    least = next(filter(None, ordered)) if vector else math.inf
    return Statistics(size, energy, ordered[-1], least, math.sqrt(energy / size), _is_narrow(values))


def _alike(squares: list[float], shape: tuple[int, ...], energy: float, ordered: list[float]) -> bool:
    """Whether no row or column, in the sense of `_quiet`, is much quieter than all together."""
    axis = _second_axis(shape)
    columns, depth = shape[axis], math.prod(shape[axis + 1 :])
    shortest = min(columns * depth, len(squares) // columns)
    if _MIXED**2 * len(squares) * ordered[shortest - 1] ** 2 >= shortest * energy:
        return True  # quiet values are too few for a row or column of them
    cells = squares if depth == 1 else [math.fsum(squares[at : at + depth]) for at in range(0, len(squares), depth)]
    rows = list(zip(*[iter(cells)] * columns, strict=True))
    enough = energy / _MIXED**2
    if min(map(math.fsum, rows)) * len(rows) < enough:
        return False
    return min(map(math.fsum, zip(*rows, strict=True))) * columns >= enough


def _second_axis(shape: tuple[int, ...]) -> int:
    """The place of the second dimension that is above 1."""
    return 1 if shape[0] > 1 and shape[1] > 1 else [axis for axis, size in enumerate(shape) if size > 1][1]


def _of_many(values: NDArray[np.float32]) -> Statistics:
    flat = values.reshape(-1)
    bound, vector = _ordinary(flat), is_vector(values.shape)
    size, energy, peak, least = 0, 0.0, 0.0, math.inf
    for magnitudes in _magnitudes(flat):
        ordinary = magnitudes if bound == math.inf else magnitudes[magnitudes < bound]
        size += ordinary.size
        energy += float(np.square(ordinary, dtype=np.float64).sum())
        peak = max(peak, float(ordinary.max(initial=0)))
        if vector:
            least = min(least, float(ordinary[ordinary > 0].min(initial=np.inf)))
    rms = math.sqrt(energy / size) if size else 0.0
    quiet = rms if bound < math.inf else _quiet(values, rms)
    return Statistics(size, energy, peak, least, quiet, _is_narrow(values))


def _is_narrow(values: NDArray[np.float32]) -> bool:
    shape: tuple[int, ...] = values.shape
    return len(shape) == 2 and min(shape) <= _NARROW and max(shape) >= _TIMES * min(shape)


def _magnitudes(flat: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    return (np.abs(flat[at : at + _BLOCK]) for at in range(0, flat.size, _BLOCK))


def _ordinary(flat: NDArray[np.float32]) -> float:
    """The bound below which all ordinary magnitudes are; infinite where there are no others."""
    with np.errstate(invalid="ignore"):
        peak = max(float(flat.max()), -float(flat.min()))
    typical = _median(np.abs(flat[:: max(1, flat.size >> 10)]))
    if peak < (2**_GAP) * typical:
        return math.inf
    counts = np.zeros(256, np.int64)
    for magnitudes in _magnitudes(flat):
        counts += np.bincount(magnitudes.view(np.uint32) >> 23, minlength=256)
    return _bound(counts)


def _median(values: NDArray[np.float32]) -> float:
    """The upper one of two; values that are not numbers count as large. The values change places."""
    middle = values.size // 2
    values.partition(middle)
    return float(values[middle])


def _bound(counts: NDArray[np.int64]) -> float:
    """From the number of values for each exponent: below the lowest gap with only a few values above it."""
    infinite, counts[255], counts[0] = counts[255], 0, 0
    occupied = np.flatnonzero(counts)
    most, bound = _FEW * counts.sum(), float(np.finfo(np.float32).max) if infinite else math.inf
    for lower, upper in zip(occupied[-2::-1], occupied[:0:-1], strict=True):
        if counts[upper:].sum() > most:
            break
        if upper - lower > _GAP:
            bound = math.ldexp(1.0, int(lower) - 126)
    return bound


def _quiet(values: NDArray[np.float32], rms: float) -> float:
    """The rms of the quietest rows or columns, if rows or columns are of very different scales."""
    if is_vector(values.shape) or not rms:
        return rms
    rows = values.reshape(len(values), -1)
    found = [rms]
    for energies, length in (_row_energies(rows), rows.shape[1]), _column_energies(values):
        quietest = float(energies.min())
        if quietest and _MIXED * math.sqrt(quietest / length) >= rms:
            continue
        scales = np.sqrt(energies[energies > 0] / length)
        if scales.size > 1 and _MIXED * math.exp(float(np.log(scales).mean())) < rms:
            found.append(float(np.quantile(scales, _QUIET, method="lower")))
    return min(found)


def _row_energies(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    step = max(1, _BLOCK // rows.shape[1])
    if len(rows) <= step:
        return np.square(rows, dtype=np.float64).sum(axis=1)  # type: ignore[no-any-return]
    squares = (np.square(rows[at : at + step], dtype=np.float64).sum(axis=1) for at in range(0, len(rows), step))
    return np.concatenate(list(squares))


def _column_energies(values: NDArray[np.float32]) -> tuple[NDArray[np.float64], int]:
    """Along the second dimension that is above 1."""
    axis = _second_axis(values.shape)
    cube = values.reshape(math.prod(values.shape[:axis]), values.shape[axis], -1)
    energies = np.zeros(cube.shape[1])
    step = max(1, _BLOCK // (cube.shape[1] * cube.shape[2]))
    for at in range(0, len(cube), step):
        energies += np.square(cube[at : at + step], dtype=np.float64).sum(axis=(0, 2))
    return energies, cube.shape[0] * cube.shape[2]
