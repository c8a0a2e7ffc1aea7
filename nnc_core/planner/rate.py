"""From a target to a plan: an SQNR, bits per weight, or a size that is never exceeded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.coder.units import Format, probe
from nnc_core.planner.plan import ModelPlan, TensorPlan

__all__ = ["Sample", "fill", "for_size", "for_sqnr", "sample", "shifted"]

_PIECES, _PIECE = 4, 2048
_FIXED = 12
"""About how many bytes of a payload do not depend on its length: the shift indices."""

_FINEST, _COARSEST = -24, 16
"""How many octaves the steps of a plan are moved at most."""

_NEAR, _TRIALS = 0.0005, 6
"""What may be left of a budget, as a share, and how many guesses are guided by samples."""

_MARGIN: Final = 0.02
"""dB that an SQNR target is exceeded by, for what samples do not show."""


class Sample(NamedTuple):
    """Values of a tensor, rows x width, each of which stands for ``weight`` of them."""

    values: NDArray[np.float32]
    weight: float


def sample(values: NDArray[np.float32]) -> Sample:
    """A tensor of finite values, or pieces of it that are spread evenly, as one row."""
    matrix = values.reshape(len(values), -1)
    if values.size <= _PIECES * _PIECE:
        return Sample(matrix, 1.0)
    flat = matrix.reshape(-1)
    starts = [(flat.size - _PIECE) * piece // (_PIECES - 1) for piece in range(_PIECES)]
    pieces = np.concatenate([flat[at : at + _PIECE] for at in starts])
    return Sample(pieces.reshape(1, -1), flat.size / pieces.size)


def shifted(plan: ModelPlan, names: Iterable[str], offset: int) -> ModelPlan:
    """The plan with quantization parameters moved by ``offset`` for the tensors called ``names``."""
    return replace(plan, tensors={**plan.tensors, **{name: _moved(plan, name, offset) for name in names}})


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


def for_sqnr(plan: ModelPlan, samples: Mapping[str, Sample], sqnr: float, energy: float) -> ModelPlan:
    """The coarsest plan whose weights, with this sum of squares, reach an SQNR in dB all in all."""
    most = energy * 10 ** (-(sqnr + _MARGIN) / 10)
    too_coarse = _first(lambda offset: _estimate(plan, samples, offset).error > most, *_range(plan))
    return shifted(plan, samples, too_coarse - 1)


def _range(plan: ModelPlan) -> tuple[int, int]:
    return _FINEST << plan.qp_density, _COARSEST << plan.qp_density


def for_size(
    plan: ModelPlan, samples: Mapping[str, Sample], budget: int, sizes: Callable[[ModelPlan], Mapping[str, int]]
) -> ModelPlan | None:
    """The finest plan whose weights take at most ``budget`` bytes; `None` if even the coarsest takes more.

    ``sizes`` codes the weights as a plan says, and returns what each takes.
    """
    estimated = cache(lambda offset: _estimate(plan, samples, offset).size)
    coded = cache(lambda offset: sizes(shifted(plan, samples, offset)))
    lowest, highest = _range(plan)

    def guess(limit: float) -> int:
        return _first(lambda offset: estimated(offset) <= limit, lowest, highest)

    too_fine, fitting, limit, trials = lowest - 1, highest + 1, float(budget), 0
    while fitting - too_fine > 1:
        trials += 1
        offset = guess(limit) if trials <= _TRIALS else (too_fine + fitting) // 2
        offset = min(max(offset, too_fine + 1), fitting - 1)
        total = sum(coded(offset).values())
        too_fine, fitting = (offset, fitting) if total > budget else (too_fine, offset)
        if (1 - _NEAR) * budget <= total <= budget:
            return shifted(plan, samples, offset)
        limit = budget * estimated(offset) / max(1, total)
    if fitting > highest:
        return None
    return fill(shifted(plan, samples, fitting), coded(fitting), budget, coded(fitting - 1))


def fill(plan: ModelPlan, sizes: Mapping[str, int], budget: int, finer: Mapping[str, int]) -> ModelPlan:
    """Make single tensors finer by one, the largest first, as long as all fit the ``budget``."""
    total, chosen = sum(sizes.values()), []
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        if total - sizes[name] + finer[name] <= budget:
            total += finer[name] - sizes[name]
            chosen.append(name)
    return shifted(plan, chosen, -1)


def decibel(energy: float, error: float) -> float:
    """The SQNR of a sum of squares and a sum of squared errors; infinite where there are none."""
    return 10 * math.log10(energy / error) if energy and error else math.inf
