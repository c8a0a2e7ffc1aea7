"""What compression did to a model: the tensors of a bitstream beside those of the original."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.shared.dtypes import FLOATS, converted
from nnc_core import Rule
from nnc_core.nnr_model import SourceModel, Topology
from nnc_core.planner.exactness import exact_by_value
from nnc_core.records import dataclass

__all__ = ["MIN_SQNR", "TensorComparison", "TopologyVerdict", "compare", "compare_tensor", "compare_topology", "judge"]

TopologyVerdict = Literal["equal", "different", "not carried", "cannot be restored"]

MIN_SQNR = 20.0
"""Decibels; a tensor below is destroyed for most purposes."""

_BLOCK = 1 << 20  # elements compared at a time: what is held in float64 stays small


@dataclass(frozen=True, slots=True)
class TensorComparison:
    """One tensor before and after; the numbers are ``None`` where there was nothing to compare.

    ``exact`` says that no value changed, ``exact_because`` why none may. ``energy`` is the sum of the original's
    squares, ``error_energy`` that of the errors, ``sqnr_db`` their ratio, infinite for an exact tensor.
    ``error_to_rms`` is the largest error over the root mean square of the original, ``relative_error`` the largest
    error of a value over that value; it is kept for variances alone, whose small values count. ``lost`` is the share of
    non-zero values that became zero, ``lost_zeros`` the number of zeros that became something else. ``problem`` says
    why the tensor is not acceptable, ``None`` if it is.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    exact: bool = False
    exact_because: str | None = None
    max_abs_error: float | None = None
    error_to_rms: float | None = None
    relative_error: float | None = None
    sqnr_db: float | None = None
    lost: float | None = None
    lost_zeros: int | None = None
    energy: float = 0.0
    error_energy: float = 0.0
    problem: str | None = None


def compare(name: str, original: Mapping[str, NDArray[Any]], decoded: Mapping[str, NDArray[Any]]) -> TensorComparison:
    """Compare the tensors called ``name``, of which one may be missing."""
    if name in original and name in decoded:
        return compare_tensor(name, original[name], decoded[name])
    array = original[name] if name in original else decoded[name]
    problem = "missing in the bitstream" if name in original else "not in the original"
    return TensorComparison(name, str(array.dtype), array.shape, problem=problem)


def compare_tensor(name: str, before: NDArray[Any], after: NDArray[Any]) -> TensorComparison:
    """Compare two arrays; integers must be equal, other values must be finite where the original's are.

    Floating-point values are compared in the type of ``before``, which a restored model has again.
    """
    what = name, str(before.dtype), before.shape
    if after.shape not in (before.shape, before.shape or (1,)):  # NNR has no tensors without dimensions
        return TensorComparison(*what, problem=f"shape {after.shape} instead of {before.shape}")
    if before.dtype.name in FLOATS and after.dtype.name in FLOATS:
        after = converted(after, before.dtype)
    m = _measured(before, after)
    return TensorComparison(
        *what,
        exact=m.error == 0,
        exact_because=_by_value(before),
        max_abs_error=m.error,
        error_to_rms=_ratio(m.error, math.sqrt(m.energy / max(before.size, 1))),
        relative_error=m.relative,
        sqnr_db=decibel(m.energy, m.noise),
        lost=m.lost / m.nonzeros if m.nonzeros else 0.0,
        lost_zeros=m.lost_zeros,
        energy=m.energy,
        error_energy=m.noise,
        problem=None if math.isfinite(m.error) else "values are not finite that were, or the reverse",
    )


def _by_value(before: NDArray[Any]) -> str | None:
    if before.dtype.kind in "iub":
        return "integers"
    return (exact_by_value(before) or None) if before.dtype.name in FLOATS and before.size else None


def judge(
    result: TensorComparison,
    model: SourceModel,
    min_sqnr: float = MIN_SQNR,
    rules: Iterable[Rule] = (),
    prefix: str = "",
) -> TensorComparison:
    """``result`` with the reason why no value may change, if there is one, and with the ``problem`` that it has.

    A tensor is destroyed below ``min_sqnr`` decibels; zeros must stay zeros. The ``rules`` are those that the model was
    compressed with: they can say that a tensor may change, or must not. They know its name with a ``prefix``, and so
    does the result.
    """
    variance = model.model_info.get("parameter_type", {}).get(result.name) == "bn.var"
    reason = model.exact.get(result.name, result.exact_because)
    asked = dict(change for rule in rules if rule.applies_to(prefix + result.name) for change in rule.changes)
    if "exact" in asked and reason != "integers":
        reason = "a rule" if asked["exact"] else None
    relative = result.relative_error if variance else None
    result = replace(result, name=prefix + result.name, exact_because=reason, relative_error=relative)
    return replace(result, problem=result.problem or _problem(result, min_sqnr))


def _problem(result: TensorComparison, min_sqnr: float) -> str | None:
    if result.exact or result.sqnr_db is None:
        return None
    if result.exact_because is not None:
        return f"changed, and must not: {result.exact_because}"
    if result.lost_zeros:
        return f"{result.lost_zeros} zeros became non-zero"
    if result.sqnr_db < min_sqnr:
        return f"destroyed: {result.sqnr_db:.1f} dB, less than {min_sqnr:g} dB"
    return None


def compare_topology(before: Topology | None, after: Topology | None) -> TopologyVerdict:
    """Whether a bitstream carries the model's topology unchanged; without any, there is nothing to differ."""
    if after is None:
        return "not carried"
    return "equal" if before == after else "different"


@dataclass(slots=True)
class _Measures:
    """Sums and largest values over the parts of a tensor."""

    error: float = 0.0
    relative: float = 0.0
    energy: float = 0.0
    noise: float = 0.0
    nonzeros: int = 0
    lost: int = 0
    lost_zeros: int = 0


@np.errstate(over="ignore", invalid="ignore")  # squares near the end of float64, signalling NaN
def _measured(before: NDArray[Any], after: NDArray[Any]) -> _Measures:
    m = _Measures()
    x, y = before.reshape(-1), after.reshape(-1)
    for start in range(0, x.size, _BLOCK):
        _add(m, x[start : start + _BLOCK], y[start : start + _BLOCK])
    return m


def _add(m: _Measures, x: NDArray[Any], y: NDArray[Any]) -> None:
    original, difference = _difference(x, y)
    size = np.abs(difference)
    m.error = max(m.error, float(size.max()))
    m.energy += float(original @ original)
    m.noise += float(difference @ difference)
    nonzero, after = original != 0, y != 0
    m.nonzeros += int(np.count_nonzero(nonzero))
    m.lost += int(np.count_nonzero(nonzero & ~after))
    m.lost_zeros += int(np.count_nonzero((x == 0) & after))
    relative = np.divide(size, np.abs(original), out=np.zeros_like(size), where=nonzero)
    m.relative = max(m.relative, float(relative.max()))


def _difference(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The finite part of ``x``, and ``y - x``: 0 where both are the same non-finite value, infinite where one is."""
    before, after = x.astype(np.float64), y.astype(np.float64)
    finite = np.isfinite(before)
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    difference = np.subtract(after, before, out=np.zeros_like(before), where=finite & np.isfinite(after))
    difference[~same & ~(finite & np.isfinite(after))] = np.inf
    return np.where(finite, before, 0.0), difference


def _ratio(error: float, scale: float) -> float:
    if error == 0:
        return 0.0
    return error / scale if scale else math.inf


def decibel(energy: float, noise: float) -> float:
    """The signal-to-noise ratio of two sums of squares; infinite without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(energy / noise) if energy and math.isfinite(noise) else -math.inf
