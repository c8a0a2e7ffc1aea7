"""The coarsest plan with which a model is still good enough, by an evaluation of the model itself."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from nnc_core.coder.plan import Method, ModelPlan
from nnc_core.coder.planned import write_planned
from nnc_core.file import decode
from nnc_core.inputs import as_model
from nnc_core.nnr_model import SourceModel
from nnc_core.nnr_model.evaluation import Evaluation
from nnc_core.nnr_model.qp_search import QpSearch, coarsest
from nnc_core.planner.parameters import CodingParameters
from nnc_core.planner.planning import plan as plan_model

__all__ = ["optimize"]


def optimize(
    model: SourceModel | Mapping[str, Any],
    evaluation: Evaluation,
    parameters: CodingParameters | None = None,
    *,
    search: QpSearch | None = None,
    threads: int | None = None,
) -> ModelPlan:
    """The plan with the coarsest steps of weights that the ``evaluation`` accepts, for `nnc_core.write` and `encode`.

    It starts from the plan for ``parameters``, and by default moves all steps together; see `QpSearch` for other ways,
    whose ``qp_step`` counts in the ``qp_density`` of the plan. For each plan that is tried, the model is coded, decoded
    and evaluated. Raises `ModelError` where none is good enough.

    >>> import nnc_core, numpy as np
    >>> from nnc_core.nnr_model import Evaluation
    >>> tensors = {"w": np.linspace(-1, 1, 512, dtype=np.float32).reshape(16, 32)}
    >>> error = Evaluation(lambda t: np.abs(t["w"] - tensors["w"]).max(), tolerance=0.05, lower_is_better=True)
    >>> data = nnc_core.encode(tensors, plan=nnc_core.optimize(tensors, error))
    >>> bool(np.abs(nnc_core.decode(data)["w"] - tensors["w"]).max() <= 0.05), len(data) < len(nnc_core.encode(tensors))
    (True, True)
    """
    model = as_model(model)
    plan = plan_model(model, parameters, threads=threads)
    bounded = evaluation.bounded(model.tensors)
    tried: dict[tuple[int, ...], bool] = {}

    def holds(qp: Mapping[str, int]) -> bool:
        key = tuple(qp.values())
        if key not in tried:
            stream = io.BytesIO()
            write_planned(stream, model, _with_qp(plan, qp), threads)
            tried[key] = bounded.accepts(decode(stream.getvalue(), threads=threads))
        return tried[key]

    qp = {name: plan.tensors[name].qp for name in _weights(model, plan)}
    return _with_qp(plan, coarsest(qp, holds, search or QpSearch(), (1 << (5 + plan.qp_density)) - 1))


def _weights(model: SourceModel, plan: ModelPlan) -> list[str]:
    """The tensors whose steps may change, the largest first."""
    quantized = [name for name, each in plan.tensors.items() if each.method == Method.QUANTIZED and not each.exact]
    sizes = {name: np.size(model.tensors[name]) for name in quantized if np.ndim(model.tensors[name]) > 1}
    return sorted(sizes, key=lambda name: (-sizes[name], name))


def _with_qp(plan: ModelPlan, qp: Mapping[str, int]) -> ModelPlan:
    changed = {
        name: replace(plan.tensors[name], qp=each, reason="the evaluation of the model") for name, each in qp.items()
    }
    return replace(plan, tensors={**plan.tensors, **changed})
