"""The decisions about every tensor of a model, made before anything is coded."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.step import step_size
from nnc_core.bitstream.marks import escaped
from nnc_core.bitstream.references import with_reference_list
from nnc_core.coder.planned import frame_size, squared_errors, unit_sizes, write_planned
from nnc_core.coder.pool import Job, in_order
from nnc_core.coder.units import Format, as_floats, known
from nnc_core.errors import ModelError
from nnc_core.nnr_model import ParameterType, SourceModel
from nnc_core.nnr_model.blocks import Block, blocks
from nnc_core.planner import quality, rate
from nnc_core.planner.codebooks import smaller_with_codebook
from nnc_core.planner.exactness import exact_by_value, exact_plan, integer_plan, sample_of
from nnc_core.planner.parameters import WEIGHTS, CodingParameters
from nnc_core.planner.plan import Method, ModelPlan, TensorPlan
from nnc_core.planner.sensitivity import allocate
from nnc_core.planner.statistics import Statistics, is_vector, statistics
from nnc_core.planner.telling import told
from nnc_core.planner.tuning import tuned

__all__ = ["plan"]


_FIXED_RATES, _DEPENDENT, _TARGETED, _RATE_AWARE, _THOROUGH, _TUNED = (1, 3), 3, 5, 7, 8, 9
"""Levels: without a choice of adaptation rates, from which on quantization is dependent, from which on it weighs bits
against errors, with a target and without, from which on descriptions are deflated thoroughly, and from which on what
bits are worth is tuned for each tensor."""


_PROBED = 512
"""The values in a piece of a sample that tells where to begin the search for a target; what counts is measured then."""


class _Finding(NamedTuple):
    """A tensor after the pass that reads: its plan, and the statistics of weights whose step is still to be chosen.

    ``sample`` is what a codebook is tried on, for weights that may have one, ``probe`` what a target is met with.
    """

    plan: TensorPlan
    weights: Statistics | None = None
    sample: NDArray[Any] | None = None
    probe: rate.Sample | None = None


def plan(
    model: SourceModel,
    parameters: CodingParameters | None = None,
    *,
    threads: int | None = None,
    executor: Executor | None = None,
) -> ModelPlan:
    """Decide how each tensor of ``model`` is to be coded; each is fetched once, one at a time.

    Steps of weights whose ``sensitivities`` are known follow these, and keep their mean. The result does not depend on
    ``threads``, or on the ``executor`` used in their place. Raises `ModelError` for tensors that NNR cannot express.
    """
    p = parameters or CodingParameters()
    names = list(model.tensors)
    findings = dict(zip(names, in_order(_jobs(model, p), threads, executor, running=2, result_size=_held), strict=True))
    rms = quality.model_rms(found.weights for found in findings.values() if found.weights is not None)
    form = Format(p.density, p.general_profile_idc)
    tensors = {name: _with_step(found, rms, form) for name, found in findings.items()}
    tensors |= _calibrated(model, tensors, findings, p)
    shared = tuple(_shared(model, tensors)) if p.blocks_flag else ()
    thorough = p.level >= _THOROUGH
    plan = ModelPlan(p.density, p.general_profile_idc, tensors, shared, p.indexed_reference_flag, thorough)
    weights = {name: each for name, each in findings.items() if each.probe}
    return told(_on_target(plan, model, p, weights, threads, executor))


def _calibrated(
    model: SourceModel, tensors: Mapping[str, TensorPlan], findings: Mapping[str, _Finding], p: CodingParameters
) -> dict[str, TensorPlan]:
    """The plans that change by what was measured of the model."""
    changed = {name: replace(tensors[name], scan_order=0) for name in model.inputs if name in tensors}
    names = [name for name in model.sensitivities if name in findings and findings[name].weights is not None]
    for name in names:
        if not 0 <= model.sensitivities[name] < math.inf:
            raise ModelError(f"has a sensitivity of {model.sensitivities[name]}, expected 0 or more", tensor=name)
    sizes = {name: max(1, weights.size) for name in names if (weights := findings[name].weights) is not None}
    octaves = sum(sizes[n] * math.log(step_size(tensors[n].qp, p.density)) for n in names) / max(1, sum(sizes.values()))
    steps = allocate({name: model.sensitivities[name] for name in names}, sizes, math.exp(octaves))
    for name, step in steps.items():
        qp = quality.qp_of(step, p.density)
        changed[name] = replace(changed.get(name, tensors[name]), qp=qp, reason="its measured sensitivity")
    return changed


def _on_target(
    plan: ModelPlan,
    model: SourceModel,
    p: CodingParameters,
    weights: Mapping[str, _Finding],
    threads: int | None,
    executor: Executor | None,
) -> ModelPlan:
    """The plan with the steps of weights moved to where they meet the target, if there is one."""
    probes = {name: each.probe for name, each in weights.items() if each.probe is not None}
    run: dict[str, Any] = {"threads": threads, "executor": executor}

    def met(target: rate.Target, measure: Callable[[ModelPlan], Mapping[str, float]]) -> ModelPlan | None:
        found = rate.on_target(plan, probes, target, measure)
        if found is None or p.level < _TUNED:
            return found
        better = tuned(found, model, probes, pooled=target.errors, **run)
        return rate.on_target(better, probes, target, measure) or found

    if p.sqnr is not None:
        energy = sum(each.weights.energy for each in weights.values() if each.weights is not None)
        target = rate.Target(energy * 10 ** (-p.sqnr / 10), errors=True)
        return met(target, partial(squared_errors, model, names=probes, **run)) or plan
    sizes = partial(unit_sizes, model, **run)
    if p.target_size is not None:
        rest, most = _size_of_others(plan, model, weights, sizes), target_bytes(p.target_size, model)
        rest -= _saved_by_list(rate.coarsest(plan, probes), model, run)
    elif p.bits_per_weight is not None:
        count = sum(each.probe.values.size * each.probe.weight for each in weights.values() if each.probe is not None)
        rest, most = 0, int(p.bits_per_weight * round(count) / 8)
    else:
        return plan
    measure = partial(sizes, names=probes)
    found = met(rate.Target(most - rest), measure) if most > rest else None
    if found is None:
        least = rest + sum(measure(rate.coarsest(plan, probes)).values())
        others = f", of which {rest} are not weights" if rest else ""
        raise ModelError(f"does not fit into {most} bytes: the least it can take is {least}{others}")
    return found


def _saved_by_list(plan: ModelPlan, model: SourceModel, run: Mapping[str, Any]) -> int:
    """How many bytes fewer names take in one list, if that is to be made: the same whatever the weights take."""
    if not plan.indexed_reference_flag:
        return 0
    whole = io.BytesIO()
    write_planned(whole, model, plan, **run)
    return len(whole.getvalue()) - len(with_reference_list(whole.getvalue()))


def _size_of_others(
    plan: ModelPlan, model: SourceModel, weights: Mapping[str, _Finding], sizes: Callable[..., dict[str, int]]
) -> int:
    """The bytes of all but the weights, and what shares units with them."""
    shared = {name for block in plan.blocks if block.weight in weights for name in block.names.values()}
    others = [name for name in plan.tensors if name not in weights and name not in shared]
    return frame_size(model, plan) + sum(sizes(plan, others).values())


def target_bytes(target: int | str, model: SourceModel) -> int:
    """A target size in bytes; percent count the bytes of tensors and topology."""
    if isinstance(target, int):
        return target
    topology = len(model.topology.data) if model.topology else 0
    size = topology + sum(np.asarray(model.tensors[name]).nbytes for name in model.tensors)
    return int(size * float(target.rstrip("%")) / 100)


def _shared(model: SourceModel, tensors: Mapping[str, TensorPlan]) -> Iterator[Block]:
    """The blocks whose tensors can share a unit: all are quantized in the same way."""
    for block in blocks(model.model_info, tensors):
        plans = [tensors[name] for name in block.names.values()]
        quantized = all(each.method == Method.QUANTIZED and not each.exact for each in plans)
        plain = all(escaped(name) == name for name in block.names.values())
        if (
            len(plans) > 1
            and block.weight not in model.inputs
            and quantized
            and plain
            and len({each.dq_flag for each in plans}) == 1
        ):
            yield block


def _held(finding: _Finding) -> int:
    held = 0 if finding.sample is None else finding.sample.nbytes
    return held + (0 if finding.probe is None else finding.probe.values.nbytes)


def _jobs(model: SourceModel, p: CodingParameters) -> Iterator[Job[_Finding]]:
    types = model.model_info.get("parameter_type", {})
    form = Format(p.density, p.general_profile_idc)
    for name in model.tensors:
        array = np.asarray(model.tensors[name])
        yield Job(partial(_find, name, array, types.get(name), model.exact.get(name, ""), p, form), 4 * array.size)


def _find(
    name: str, array: NDArray[Any], parameter_type: ParameterType | None, reason: str, p: CodingParameters, form: Format
) -> _Finding:
    changes = p.changes(name)
    array = known(array)
    start = _start(p, changes)
    if not array.size:
        return _Finding(start)
    if array.dtype.kind in "iu":
        return _Finding(integer_plan(name, array, start, form))
    free = changes.get("exact") is False or "qp" in changes
    if changes.get("exact") or ((reason or p.lossless) and not free):
        reason = "a rule" if changes.get("exact") else reason or "lossless"
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
    finite = np.where(np.isfinite(values), values, np.float32(0)) if p.targeted and not vector else None
    probe = None if finite is None else rate.sample(finite, _PROBED)
    return _relative(found, vector, start, form)._replace(sample=sample, probe=probe)


def _start(p: CodingParameters, changes: Mapping[str, Any]) -> TensorPlan:
    values = {key: value for key, value in changes.items() if key not in ("qp", "exact")}
    return replace(_unchanged(p), **values) if values else _unchanged(p)


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


def _with_step(found: _Finding, rms: float, form: Format) -> TensorPlan:
    plan = found.plan
    if found.weights is not None:
        qp = quality.qp_of(quality.weight_step(found.weights, rms, plan.dq_flag), form.qp_density)
        plan = replace(plan, qp=qp)
    if found.sample is None:
        return plan
    return smaller_with_codebook(found.sample, plan, form)
