"""From a target to a plan: an SQNR, bits per weight, or a size that is never exceeded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.coder.plan import ModelPlan, TensorPlan
from nnc_core.coder.single import Format
from nnc_core.coder.units import probe

__all__ = ["Sample", "Target", "coarsest", "decibel", "fill", "on_target", "sample", "shifted"]

_PIECES, _PIECE = 4, 2048
_FIXED = 12
"""About how many bytes of a payload do not depend on its length: the shift indices."""

_FINEST, _COARSEST = -24, 16
"""How many octaves the steps of a plan are moved at most."""

_NEAR, _TRIALS = 0.0005, 6
"""What may be left of a target, as a share, and how many guesses are guided by samples."""


class Sample(NamedTuple):
    """Values of a tensor, rows x width, each of which stands for ``weight`` of them."""

    values: NDArray[np.float32]
    weight: float


def sample(values: NDArray[np.float32], piece: int = _PIECE) -> Sample:
    """A tensor of finite values, or four pieces of it that are spread evenly, as one row."""
    matrix = values.reshape(len(values), -1)
    if values.size <= _PIECES * piece:
        return Sample(matrix, 1.0)
    flat = matrix.reshape(-1)
    starts = [(flat.size - piece) * number // (_PIECES - 1) for number in range(_PIECES)]
    pieces = np.concatenate([flat[at : at + piece] for at in starts])
    return Sample(pieces.reshape(1, -1), flat.size / pieces.size)


def shifted(plan: ModelPlan, names: Iterable[str], offset: int) -> ModelPlan:
    """The plan with quantization parameters moved by ``offset`` for the tensors called ``names``."""
    return replace(plan, tensors={**plan.tensors, **{name: _moved(plan, name, offset) for name in names}})


def coarsest(plan: ModelPlan, names: Iterable[str]) -> ModelPlan:
    """The plan that takes the fewest bytes for the tensors called ``names``."""
    return shifted(plan, names, _COARSEST << plan.qp_density)


def _moved(plan: ModelPlan, name: str, offset: int) -> TensorPlan:
    reach = 1 << (5 + plan.qp_density)
    tensor = plan.tensors[name]
    return replace(tensor, qp=min(max(tensor.qp + offset, -reach), reach - 1))


class _Estimate(NamedTuple):
    size: float
    error: float


def _estimate(plan: ModelPlan, samples: Mapping[str, Sample], offset: int) -> _Estimate:
    """What the sampled tensors take together, and the sum of their squared errors."""
    form = Format(plan.qp_density, plan.general_profile_idc)
    size = error = 0.0
    for name, (values, weight) in samples.items():
        found = probe(values, _moved(plan, name, offset), form)
        size += (found.size - _FIXED) * weight + _FIXED
        error += found.error * weight
    return _Estimate(size, error)


def _first(holds: Callable[[int], bool], lowest: int, highest: int) -> int:
    """The smallest number for which a condition holds that holds for all above it, or ``highest``."""
    while lowest < highest:
        middle = (lowest + highest) // 2
        if holds(middle):
            highest = middle
        else:
            lowest = middle + 1
    return lowest


class Target(NamedTuple):
    """What may not exceed ``most``: bytes of weights, or with ``errors`` the sum of their squared errors."""

    most: float
    errors: bool = False


def on_target(
    plan: ModelPlan,
    samples: Mapping[str, Sample],
    target: Target,
    measure: Callable[[ModelPlan], Mapping[str, float]],
) -> ModelPlan | None:
    """The plan that comes closest to a target with the steps of the sampled tensors moved, without exceeding it.

    ``measure`` codes them as a plan says, and returns what each contributes. Samples only tell where to begin. `None`
    if the target is out of reach.
    """
    way = -1 if target.errors else 1  # towards less of it
    lowest, highest = sorted((way * (_FINEST << plan.qp_density), way * (_COARSEST << plan.qp_density)))

    @cache
    def estimated(at: int) -> float:
        return _estimate(plan, samples, way * at)[target.errors]

    @cache
    def measured(at: int) -> Mapping[str, float]:
        return measure(shifted(plan, samples, way * at))

    def guess(limit: float) -> int:
        return _first(lambda at: estimated(at) <= limit, lowest, highest)

    beyond, within, limit, trials = lowest - 1, highest + 1, target.most, 0
    while within - beyond > 1:
        trials += 1
        middle = guess(limit) if trials <= _TRIALS else (beyond + within) // 2
        at = min(max(middle, beyond + 1), within - 1)
        total = sum(measured(at).values())
        beyond, within = (at, within) if total > target.most else (beyond, at)
        if (1 - _NEAR) * target.most <= total <= target.most:
            return shifted(plan, samples, way * at)
        limit = target.most * (estimated(at) / total if total else math.inf)
    if within > highest:
        return None
    found = shifted(plan, samples, way * within)
    return fill(found, measured(within), target.most, measured(beyond), -way) if beyond >= lowest else found


def fill(
    plan: ModelPlan, taken: Mapping[str, float], most: float, alternative: Mapping[str, float], offset: int
) -> ModelPlan:
    """Move the steps of single tensors by ``offset``, the largest first, while all together are within ``most``."""
    total, chosen = sum(taken.values()), []
    for name in sorted(taken, key=lambda name: (-taken[name], name)):
        if total - taken[name] + alternative[name] <= most:
            total += alternative[name] - taken[name]
            chosen.append(name)
    return shifted(plan, chosen, offset)


def decibel(energy: float, error: float) -> float:
    """The SQNR of a sum of squares and a sum of squared errors; infinite where there are none."""
    return 10 * math.log10(energy / error) if energy and error else math.inf
