"""What compression did to a model: the tensors of a bitstream beside those of the original."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnc_core.nnr_model import Topology

__all__ = ["TensorComparison", "TopologyVerdict", "compare", "compare_tensor", "compare_topology"]

TopologyVerdict = Literal["equal", "different", "not carried"]

_BLOCK = 1 << 20  # elements compared at a time: what is held in float64 stays small


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """One tensor before and after; the numbers are ``None`` where there was nothing to compare.

    ``relative_error`` is ``max_abs_error`` over the largest magnitude in the original. ``sqnr_db`` is the power of the
    original over that of the error, infinite for an ``exact`` tensor. ``problem`` says why a tensor is not acceptable
    at all, ``None`` if it may be.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    exact: bool = False
    max_abs_error: float | None = None
    relative_error: float | None = None
    sqnr_db: float | None = None
    problem: str | None = None


def compare(original: Mapping[str, NDArray[Any]], decoded: Mapping[str, NDArray[Any]]) -> Iterator[TensorComparison]:
    """Compare tensor by tensor, in the original's order, then name those that only ``decoded`` has."""
    names = set(decoded)  # whether a lazy mapping has a name, it might decode to find out
    for name in original:
        before = original[name]
        if name in names:
            yield compare_tensor(name, before, decoded[name])
        else:
            yield TensorComparison(name, str(before.dtype), before.shape, problem="missing in the bitstream")
    for name in sorted(names - set(original)):
        after = decoded[name]
        yield TensorComparison(name, str(after.dtype), after.shape, problem="not in the original")


def compare_tensor(name: str, before: NDArray[Any], after: NDArray[Any]) -> TensorComparison:
    """Compare two arrays; integers must be equal, other values must be finite where the original's are."""
    what = name, str(before.dtype), before.shape
    if after.shape not in (before.shape, before.shape or (1,)):  # NNR has no tensors without dimensions
        return TensorComparison(*what, problem=f"shape {after.shape} instead of {before.shape}")
    peak, error, power, noise = _measure(before, after)
    exact = error == 0
    problem = None
    if not math.isfinite(error):
        problem = "values are not finite that were, or the reverse"
    elif before.dtype.kind in "iub" and not exact:
        problem = "integers differ"
    return TensorComparison(*what, exact, error, _ratio(error, peak), _decibel(power, noise), problem)


def compare_topology(before: Topology | None, after: Topology | None) -> TopologyVerdict:
    """Whether a bitstream carries the model's topology unchanged; without any, there is nothing to differ."""
    if after is None:
        return "not carried"
    return "equal" if before == after else "different"


@np.errstate(over="ignore", invalid="ignore")  # squares near the end of float64, signalling NaN
def _measure(before: NDArray[Any], after: NDArray[Any]) -> tuple[float, float, float, float]:
    """Largest magnitude, largest error, sum of squares, sum of squared errors."""
    peak = error = power = noise = 0.0
    x, y = before.reshape(-1), after.reshape(-1)
    for start in range(0, x.size, _BLOCK):
        original, difference = _difference(x[start : start + _BLOCK], y[start : start + _BLOCK])
        peak = max(peak, float(np.abs(original).max()))
        error = max(error, float(np.abs(difference).max()))
        power += float(original @ original)
        noise += float(difference @ difference)
    return peak, error, power, noise


def _difference(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The finite part of ``x``, and ``y - x``: 0 where both are the same non-finite value, infinite where one is."""
    before, after = x.astype(np.float64), y.astype(np.float64)
    finite = np.isfinite(before)
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    difference = np.subtract(after, before, out=np.zeros_like(before), where=finite & np.isfinite(after))
    difference[~same & ~(finite & np.isfinite(after))] = np.inf
    return np.where(finite, before, 0.0), difference


def _ratio(error: float, peak: float) -> float:
    if error == 0:
        return 0.0
    return error / peak if peak else math.inf


def _decibel(power: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(power / noise) if power and math.isfinite(noise) else -math.inf
