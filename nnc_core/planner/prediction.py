"""What a plan would give, without coding everything: sizes and errors from samples."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.coder.levels import as_floats, known
from nnc_core.coder.plan import Method, ModelPlan, TensorPlan
from nnc_core.coder.pool import Job, in_order
from nnc_core.coder.single import Format
from nnc_core.coder.units import coded_size, data_units, probe
from nnc_core.errors import ModelError
from nnc_core.nnr_model import SourceModel
from nnc_core.planner import rate
from nnc_core.planner.exactness import sample_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["Prediction", "predict"]


class Prediction(NamedTuple):
    """About how many bytes a tensor will take, and its SQNR in dB, infinite where nothing is lost."""

    size: int
    sqnr: float


def predict(
    model: SourceModel, plan: ModelPlan, *, threads: int | None = None, executor: Executor | None = None
) -> dict[str, Prediction]:
    """Predict each tensor of a model from samples; for small tensors the figures are those of coding them.

    Raises `ModelError` for a plan that lacks a tensor, and where `nnc_core.write` would.
    """
    found = in_order(_jobs(model, plan), threads, executor, running=2, result_size=lambda _: 0)
    return dict(zip(model.tensors, found, strict=True))


def _jobs(model: SourceModel, plan: ModelPlan) -> Iterator[Job[Prediction]]:
    form = Format(plan.qp_density, plan.general_profile_idc)
    for name in model.tensors:
        if name not in plan.tensors:
            raise ModelError("is not in the plan", tensor=name)
        array = np.asarray(model.tensors[name])
        yield Job(partial(_predicted, name, array, plan.tensors[name], form), 4 * array.size)


def _predicted(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> Prediction:
    array = known(array).reshape(array.shape or (1,))
    part = sample_of(array)
    size = coded_size(data_units(name, part, plan, form)) * array.size // max(1, part.size)
    if plan.method != Method.QUANTIZED or plan.exact:
        return Prediction(size, np.inf)
    values = as_floats(name, array)
    sampled = rate.sample(np.where(np.isfinite(values), values, np.float32(0))).values
    energy = float(np.square(sampled, dtype=np.float64).sum())
    return Prediction(size, rate.decibel(energy, probe(sampled, plan, form).error))
