"""The decisions about every tensor of a model, made before anything is coded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.bitstream.marks import escaped
from nnc_core.coder.pool import Job, in_order
from nnc_core.coder.units import Format, as_floats, known
from nnc_core.nnr_model import ParameterType, SourceModel
from nnc_core.nnr_model.blocks import Block, blocks
from nnc_core.planner import quality
from nnc_core.planner.codebooks import smaller_with_codebook
from nnc_core.planner.exactness import exact_by_value, exact_plan, integer_plan, sample_of
from nnc_core.planner.parameters import WEIGHTS, CodingParameters
from nnc_core.planner.plan import Method, ModelPlan, TensorPlan
from nnc_core.planner.statistics import Statistics, is_vector, statistics

__all__ = ["plan"]


class _Finding(NamedTuple):
    """A tensor after the pass that reads: its plan, and the statistics of weights whose step is still to be chosen.

    ``sample`` is what a codebook is tried on, for weights that may have one.
    """

    plan: TensorPlan
    weights: Statistics | None = None
    sample: NDArray[Any] | None = None


def plan(
    model: SourceModel,
    parameters: CodingParameters | None = None,
    *,
    threads: int | None = None,
    executor: Executor | None = None,
) -> ModelPlan:
    """Decide how each tensor of ``model`` is to be coded; each is fetched once, one at a time.

    The result does not depend on ``threads``, or on the ``executor`` used in their place. Raises `ModelError` for
    tensors that NNR cannot express.
    """
    p = parameters or CodingParameters()
    names = list(model.tensors)
    findings = dict(zip(names, in_order(_jobs(model, p), threads, executor, running=2, result_size=_held), strict=True))
    rms = quality.model_rms(found.weights for found in findings.values() if found.weights is not None)
    tensors = {name: _with_step(found, rms, p) for name, found in findings.items()}
    shared = tuple(_shared(model, tensors)) if p.blocks_flag else ()
    return ModelPlan(p.density, p.general_profile_idc, tensors, shared, p.indexed_reference_flag)


def _shared(model: SourceModel, tensors: Mapping[str, TensorPlan]) -> Iterator[Block]:
    """The blocks whose tensors can share a unit: all are quantized in the same way."""
    for block in blocks(model.model_info, tensors):
        plans = [tensors[name] for name in block.names.values()]
        quantized = all(each.method == Method.QUANTIZED and not each.exact for each in plans)
        plain = all(escaped(name) == name for name in block.names.values())
        if len(plans) > 1 and quantized and plain and len({each.dq_flag for each in plans}) == 1:
            yield block


def _held(finding: _Finding) -> int:
    return 0 if finding.sample is None else finding.sample.nbytes


def _jobs(model: SourceModel, p: CodingParameters) -> Iterator[Job[_Finding]]:
    types = model.model_info.get("parameter_type", {})
    for name in model.tensors:
        array = np.asarray(model.tensors[name])
        yield Job(partial(_find, name, array, types.get(name), model.exact.get(name, ""), p), 4 * array.size)


def _find(
    name: str, array: NDArray[Any], parameter_type: ParameterType | None, reason: str, p: CodingParameters
) -> _Finding:
    form = Format(p.density, p.general_profile_idc)
    changes = p.changes(name)
    array = known(array)
    start = _start(p, changes)
    if not array.size:
        return _Finding(start)
    if array.dtype.kind in "iu":
        return _Finding(integer_plan(name, array, start, form))
    free = changes.get("exact") is False or "qp" in changes
    if changes.get("exact") or (reason and not free):
        reason = "a rule" if changes.get("exact") else reason
        return _Finding(exact_plan(name, array, replace(start, exact=True, reason=reason), form))
    qp = changes.get("qp", p.absolute_qp(parameter_type, array.ndim))
    sample = sample_of(array) if p.codebook_flag and array.ndim > 1 else None
    if qp is not None:
        return _Finding(replace(start, qp=int(qp), reason="the given qp"), sample=sample)
    values = as_floats(name, array)
    if not free and (reason := exact_by_value(values)):
        return _Finding(exact_plan(name, array, replace(start, exact=True, reason=reason), form, readable=True))
    vector = is_vector(values.shape) or parameter_type not in (None, *WEIGHTS)
    found = statistics(values)
    if reason := _obstacle(values, found, vector, free):
        return _Finding(exact_plan(name, array, replace(start, exact=True, reason=reason), form))
    return _relative(found, vector, start, form)._replace(sample=sample)


def _start(p: CodingParameters, changes: Mapping[str, Any]) -> TensorPlan:
    plan = TensorPlan(
        dq_flag=p.dq_flag,
        param_opt_flag=p.param_opt_flag,
        cabac_unary_length_minus1=p.cabac_unary_length_minus1,
        scan_order=p.scan_order,
        row_skip_enabled_flag=p.row_skip_enabled_flag,
    )
    return replace(plan, **{key: value for key, value in changes.items() if key not in ("qp", "exact")})


def _obstacle(values: NDArray[np.float32], found: Statistics, vector: bool, free: bool) -> str:
    """Why the values cannot be quantized well; empty if they can."""
    if found.rms < quality.LEAST_RMS:
        return "smaller than the smallest step can express"
    if not _regular(values):
        return "many values that are infinite or not a number"
    return "values of very different scales" if not free and quality.too_wide(found, vector) else ""


def _relative(found: Statistics, vector: bool, start: TensorPlan, form: Format) -> _Finding:
    """A step from the values; for weights it depends on the others too, and is chosen when all are known."""
    if not vector:
        return _Finding(replace(start, reason="relative to its scale and the model's"), found)
    step = quality.vector_step(found, start.dq_flag)
    return _Finding(replace(start, qp=quality.qp_of(step, form.qp_density), reason="relative to its own scale"))


def _regular(values: NDArray[np.float32]) -> bool:
    return 16 * int(np.count_nonzero(~np.isfinite(values))) <= values.size


def _with_step(found: _Finding, rms: float, p: CodingParameters) -> TensorPlan:
    plan = found.plan
    if found.weights is not None:
        qp = quality.qp_of(quality.weight_step(found.weights, rms, plan.dq_flag), p.density)
        plan = replace(plan, method=Method.QUANTIZED, qp=qp)
    if found.sample is None:
        return plan
    return smaller_with_codebook(found.sample, plan, Format(p.density, p.general_profile_idc))
