"""The last percent: for each tensor, by trial, the step, the worth of a bit and the order that go best together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.rates import lambda_dependent, lambda_uniform
from nnc_core.approximator.step import step_size
from nnc_core.coder.levels import as_floats, known
from nnc_core.coder.plan import Method, ModelPlan, TensorPlan
from nnc_core.coder.pool import Job, in_order
from nnc_core.coder.single import Format
from nnc_core.coder.units import probe
from nnc_core.nnr_model import SourceModel
from nnc_core.planner.exactness import sample_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["tuned", "worths"]

_WORTHS: Final = (0.7, 1.4)
"""By what lambda_scale is multiplied."""

_SCAN_ORDERS: Final = (0, 2, 3, 4)

_PARTS, _REACH = 3, 6
"""Steps are tried 2**-_PARTS octaves apart, and so many of them at most in one direction."""


def worths(plan: ModelPlan, sizes: Mapping[str, int], *, pooled: bool) -> dict[str, float]:
    """What a byte is worth in each tensor that is quantized, as a squared error; ``sizes`` are elements by name.

    A bit is worth what it is in the ``plan`` as it comes. Where only the ``pooled`` error counts, it is worth the same
    in all tensors, in the mean over their values.
    """
    form = Format(plan.qp_density, plan.general_profile_idc)
    names = [name for name in sizes if plan.tensors[name].method == Method.QUANTIZED]
    found = {name: _worth(plan.tensors[name], form) for name in names}
    if not pooled:
        return found
    mean = sum(sizes[name] * found[name] for name in names) / max(1, sum(sizes[name] for name in names))
    return dict.fromkeys(names, mean)


def tuned(
    plan: ModelPlan,
    model: SourceModel,
    worths: Mapping[str, float],
    *,
    threads: int | None = None,
    executor: Executor | None = None,
) -> dict[str, TensorPlan]:
    """The tensors that have `worths`, with the step, ``lambda_scale`` and ``scan_order`` that suit them best."""
    form = Format(plan.qp_density, plan.general_profile_idc)
    shared = {name for block in plan.blocks for name in block.names.values()}

    def job(name: str) -> Job[TensorPlan]:
        array = np.asarray(model.tensors[name])
        free = name not in model.inputs and name not in shared
        return Job(partial(_tuned, array, plan.tensors[name], worths[name], form, free), 4 * array.size)

    found = in_order(map(job, worths), threads, executor, running=2, result_size=lambda _: 0)
    return dict(zip(worths, found, strict=True))


def _worth(plan: TensorPlan, form: Format) -> float:
    """Of a byte, as a squared error."""
    scale = lambda_dependent(plan.lambda_scale) if plan.dq_flag else lambda_uniform(plan.lambda_scale)
    return 8 * scale * step_size(plan.qp, form.qp_density) ** 2


def _tuned(array: NDArray[Any], plan: TensorPlan, worth: float, form: Format, free: bool) -> TensorPlan:
    """``free`` says that elements may be scanned in any order."""
    values = as_floats("", known(sample_of(array)))
    matrix = np.where(np.isfinite(values), values, np.float32(0)).reshape(len(values), -1)

    @cache
    def cost(candidate: TensorPlan) -> float:
        found = probe(matrix, candidate, form)
        return found.error + worth * found.size

    scans = _SCAN_ORDERS if plan.scan_order == 0 and free else (plan.scan_order,)
    best = min((replace(plan, scan_order=scan) for scan in scans), key=cost)
    best = _downhill(best, cost, form)
    for factor in _WORTHS:
        other = replace(best, lambda_scale=factor * plan.lambda_scale)
        best = min(best, _downhill(other, cost, form), key=cost)
    return best


def _downhill(start: TensorPlan, cost: Callable[[TensorPlan], float], form: Format) -> TensorPlan:
    """Make the step finer, or else coarser, as long as that costs less."""
    stride, reach = 1 << max(0, form.qp_density - _PARTS), 1 << (5 + form.qp_density)
    for direction in (-stride, stride):
        here = start
        for _ in range(_REACH):
            there = replace(here, qp=min(max(here.qp + direction, -reach), reach - 1))
            if cost(there) >= cost(here):
                break
            here = there
        if here is not start:
            return here
    return start
