"""Saying what a plan has decided, and why, to whoever listens to the loggers."""

from __future__ import annotations

import logging

from nnc_core.approximator.step import step_size
from nnc_core.coder.plan import Method, ModelPlan, TensorPlan
from nnc_core.logs import logger

__all__ = ["told"]

_log = logger(__name__)


def told(plan: ModelPlan) -> ModelPlan:
    """Log the decisions of a plan, and return it."""
    if _log.isEnabledFor(logging.INFO):
        for name, tensor in plan.tensors.items():
            _log.info("%s: %s, %s", name, _way(tensor, plan.qp_density), tensor.reason)
    return plan


def _way(tensor: TensorPlan, qp_density: int) -> str:
    """How a tensor is sent."""
    exact = "exact, " if tensor.exact else ""
    if tensor.method not in (Method.QUANTIZED, Method.CODEBOOK):
        return f"{exact}{tensor.method.value}"
    return f"{exact}{tensor.method.value} in steps of {step_size(tensor.qp, qp_density):.3g} (qp {tensor.qp})"
