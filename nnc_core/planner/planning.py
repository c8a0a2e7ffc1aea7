"""The decisions about every tensor of a model, made before anything is coded."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from nnc_core.approximator.step import step_size
from nnc_core.bitstream.marks import escaped
from nnc_core.coder.plan import Method, ModelPlan, TensorPlan, varied
from nnc_core.coder.single import Format
from nnc_core.errors import ModelError
from nnc_core.nnr_model import SourceModel
from nnc_core.nnr_model.blocks import Block, blocks
from nnc_core.planner import quality, rate
from nnc_core.planner.parameters import CodingParameters
from nnc_core.planner.survey import Finding, survey
from nnc_core.planner.telling import told
from nnc_core.planner.trials import Trials, Whole

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["decided", "plan"]

_THOROUGH, _TUNED = 8, 9
"""Levels from which on descriptions are deflated thoroughly, and what bits are worth is tuned for each tensor."""


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
    findings = survey(model, p, threads=threads, executor=executor)
    return decided(findings, p, model, Whole(model, threads, executor))


def decided(findings: Mapping[str, Finding], p: CodingParameters, model: SourceModel, trials: Trials) -> ModelPlan:
    """The plan that follows from what was found in all tensors, in model order; see `plan`.

    Of the ``model`` nothing is looked at but what is said about its tensors, which ``trials`` measure where they are.
    """
    rms = quality.model_rms(found.weights for found in findings.values() if found.weights is not None)
    form = Format(p.density, p.general_profile_idc)
    tensors = {name: _with_step(found, rms, form) for name, found in findings.items()}
    tensors |= _calibrated(model, tensors, findings, p)
    shared = tuple(_shared(model, tensors)) if p.blocks_flag else ()
    thorough = p.level >= _THOROUGH
    plan = ModelPlan(p.density, p.general_profile_idc, tensors, shared, p.indexed_reference_flag, thorough)
    return told(_on_target(plan, p, {name: each for name, each in findings.items() if each.probe}, trials))


def _calibrated(
    model: SourceModel, tensors: Mapping[str, TensorPlan], findings: Mapping[str, Finding], p: CodingParameters
) -> dict[str, TensorPlan]:
    """The plans that change by what was measured of the model."""
    changed = {name: replace(tensors[name], scan_order=0) for name in model.inputs if name in tensors}
    names = [name for name in model.sensitivities if name in findings and findings[name].weights is not None]
    if not names:
        return changed
    from nnc_core.planner.sensitivity import allocate  # as below, for few models

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


def _on_target(plan: ModelPlan, p: CodingParameters, weights: Mapping[str, Finding], trials: Trials) -> ModelPlan:
    """The plan with the steps of weights moved to where they meet the target, if there is one."""
    probes = {name: each.probe for name, each in weights.items() if each.probe is not None}
    counts = {name: round(each.values.size * each.weight) for name, each in probes.items()}

    def met(target: rate.Target, measure: Callable[[ModelPlan], Mapping[str, float]]) -> ModelPlan | None:
        found = rate.on_target(plan, probes, target, measure)
        if found is None or p.level < _TUNED:
            return found
        from nnc_core.planner.tuning import worths

        changed = trials.tuned(found, worths(found, counts, pooled=target.errors))
        better = replace(found, tensors={**found.tensors, **changed})
        return rate.on_target(better, probes, target, measure) or found

    if p.sqnr is not None:
        energy = sum(each.weights.energy for each in weights.values() if each.weights is not None)
        target = rate.Target(energy * 10 ** (-p.sqnr / 10), errors=True)
        return met(target, partial(trials.errors, names=probes)) or plan
    if p.target_size is not None:
        rest, most = _size_of_others(plan, weights, trials), _target_bytes(p.target_size, trials)
        rest -= trials.saved_by_list(rate.coarsest(plan, probes)) if plan.indexed_reference_flag else 0
    elif p.bits_per_weight is not None:
        rest, most = 0, int(p.bits_per_weight * sum(counts.values()) / 8)
    else:
        return plan
    measure = partial(trials.sizes, names=probes)
    found = met(rate.Target(most - rest), measure) if most > rest else None
    if found is None:
        least = rest + sum(measure(rate.coarsest(plan, probes)).values())
        others = f", of which {rest} are not weights" if rest else ""
        raise ModelError(f"does not fit into {most} bytes: the least it can take is {least}{others}")
    return found


def _size_of_others(plan: ModelPlan, weights: Mapping[str, Finding], trials: Trials) -> int:
    """The bytes of all but the weights, and what shares units with them."""
    shared = {name for block in plan.blocks if block.weight in weights for name in block.names.values()}
    others = [name for name in plan.tensors if name not in weights and name not in shared]
    return trials.frame_size(plan) + sum(trials.sizes(plan, others).values())


def _target_bytes(target: int | str, trials: Trials) -> int:
    """A target size in bytes; percent count the bytes of tensors and topology."""
    return target if isinstance(target, int) else int(trials.nbytes() * float(target.rstrip("%")) / 100)


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


def _with_step(found: Finding, rms: float, form: Format) -> TensorPlan:
    plan = found.plan
    if found.weights is not None:
        qp = quality.qp_of(quality.weight_step(found.weights, rms, plan.dq_flag), form.qp_density)
        plan = varied(plan, qp=qp, reason="relative to its scale and the model's")
    if found.sample is None:
        return plan
    from nnc_core.planner.codebooks import smaller_with_codebook

    return smaller_with_codebook(found.sample, plan, form)
