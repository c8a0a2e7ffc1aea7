"""The pass that reads: what each tensor tells by itself, before any is seen beside the others.

What is found can be pickled, so that the parts of a model may be read in different places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.coder.levels import as_floats, known
from nnc_core.coder.plan import TensorPlan, varied
from nnc_core.coder.pool import Job, in_order
from nnc_core.coder.single import Format
from nnc_core.nnr_model import ParameterType, SourceModel
from nnc_core.planner import quality, rate
from nnc_core.planner.exactness import exact_by_value, exact_plan, integer_plan, sample_of
from nnc_core.planner.parameters import WEIGHTS, CodingParameters
from nnc_core.planner.statistics import Statistics, is_vector, statistics

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["Finding", "survey"]

_FIXED_RATES, _DEPENDENT, _TARGETED, _RATE_AWARE = (1, 3), 3, 5, 7
"""Levels: without a choice of adaptation rates, from which on quantization is dependent, from which on it weighs bits
against errors, with a target and without."""

_PROBED: Final = 512
"""The values in a piece of a sample that tells where to begin the search for a target; what counts is measured then."""


class Finding(NamedTuple):
    """A tensor after the pass that reads: its plan, and the statistics of weights whose step is still to be chosen.

    ``sample`` is what a codebook is tried on, for weights that may have one, ``probe`` what a target is met with.
    """

    plan: TensorPlan
    weights: Statistics | None = None
    sample: NDArray[Any] | None = None
    probe: rate.Sample | None = None


def survey(
    model: SourceModel, p: CodingParameters, *, threads: int | None = None, executor: Executor | None = None
) -> dict[str, Finding]:
    """What each tensor tells, by name and in model order; each is fetched once, one at a time."""
    found = in_order(_jobs(model, p), threads, executor, running=2, result_size=_held)
    return dict(zip(list(model.tensors), found, strict=True))


def _held(finding: Finding) -> int:
    held = 0 if finding.sample is None else finding.sample.nbytes
    return held + (0 if finding.probe is None else finding.probe.values.nbytes)


def _jobs(model: SourceModel, p: CodingParameters) -> Iterator[Job[Finding]]:
    types, exact = model.model_info.get("parameter_type", {}), model.exact
    form = Format(p.density, p.general_profile_idc)
    for name in model.tensors:
        array = np.asarray(model.tensors[name])
        yield Job(partial(_find, name, array, types.get(name), exact.get(name, ""), p, form), 4 * array.size)


def _find(
    name: str, array: NDArray[Any], parameter_type: ParameterType | None, reason: str, p: CodingParameters, form: Format
) -> Finding:
    changes = p.changes(name) if p.rules else {}
    array = known(array)
    start = _start(p, changes) if changes else _unchanged(p)
    if not array.size:
        return Finding(start)
    if array.dtype.kind in "iu":
        return Finding(integer_plan(name, array, start, form))
    free = changes.get("exact") is False or "qp" in changes
    if changes.get("exact") or ((reason or p.lossless) and not free):
        reason = "a rule" if changes.get("exact") else reason or "lossless"
        return Finding(exact_plan(name, array, varied(start, exact=True, reason=reason), form))
    qp = changes.get("qp", p.absolute_qp(parameter_type, array.ndim))
    sample = sample_of(array) if p.codebook_flag and array.ndim > 1 else None
    if qp is not None:
        return Finding(varied(start, qp=int(qp), reason="the given qp"), sample=sample)
    values = as_floats(name, array)
    if not free and (reason := exact_by_value(values)):
        return Finding(exact_plan(name, array, varied(start, exact=True, reason=reason), form, readable=True))
    vector = is_vector(values.shape) or (parameter_type is not None and parameter_type not in WEIGHTS)
    found = statistics(values)
    if reason := _obstacle(values, found, vector, free):
        return Finding(exact_plan(name, array, varied(start, exact=True, reason=reason), form))
    if vector:
        qp = quality.qp_of(quality.vector_step(found, start.dq_flag), form.qp_density)
        return Finding(varied(start, qp=qp, reason="relative to its own scale"), sample=sample)
    finite = np.where(np.isfinite(values), values, np.float32(0)) if p.targeted else None
    return Finding(start, found, sample, None if finite is None else rate.sample(finite, _PROBED))


def _start(p: CodingParameters, changes: Mapping[str, Any]) -> TensorPlan:
    return replace(_unchanged(p), **{key: value for key, value in changes.items() if key not in ("qp", "exact")})


@lru_cache(maxsize=1)
def _unchanged(p: CodingParameters) -> TensorPlan:
    """What all tensors start from that no rule applies to."""
    return TensorPlan(
        dq_flag=p.dq_flag and p.level >= _DEPENDENT,
        param_opt_flag=p.param_opt_flag and p.level not in _FIXED_RATES,
        cabac_unary_length_minus1=p.cabac_unary_length_minus1,
        scan_order=p.scan_order,
        row_skip_enabled_flag=p.row_skip_enabled_flag,
        lambda_scale=1.0 if p.level >= (_TARGETED if p.targeted else _RATE_AWARE) else 0.0,
    )


def _obstacle(values: NDArray[np.float32], found: Statistics, vector: bool, free: bool) -> str:
    """Why the values cannot be quantized well; empty if they can."""
    if found.rms < quality.LEAST_RMS:
        return "smaller than the smallest step can express"
    if found.size < values.size and not _regular(values):
        return "many values that are infinite or not a number"
    return "values of very different scales" if not free and quality.too_wide(found, vector) else ""


def _regular(values: NDArray[np.float32]) -> bool:
    return 16 * int(np.count_nonzero(~np.isfinite(values))) <= values.size
