"""What a user should be warned of when a model is compressed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.comparison import MIN_SQNR, decibel
from nnc_core import Method, ModelPlan, Rule
from nnc_core.approximator.step import step_size

__all__ = ["Cautions"]

_LITTLE = 0.5  # of a model's bytes
_LISTED = 3
# Steps over the rms of the noise, for values that are not zero: these stay zeros.
_DEPENDENT, _UNIFORM = 1.94, math.sqrt(12)


class Cautions:
    """Looks at the tensors as they pass to be coded, and then knows what to warn of."""

    def __init__(self, plan: ModelPlan) -> None:
        self._plan = plan
        self._destroyed: dict[str, float] = {}

    def look(self, name: str, array: NDArray[Any]) -> None:
        """Predict the signal-to-noise ratio of a tensor from the step that is planned for it."""
        plan = self._plan.tensors[name]
        if plan.method != Method.QUANTIZED or plan.exact or not array.size:
            return
        values = array.astype(np.float32, copy=False).reshape(-1)
        energy = float(np.vdot(values, values))
        if not math.isfinite(energy):
            values = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
            energy = float(np.vdot(values, values))
        noise = step_size(plan.qp, self._plan.qp_density) / (_DEPENDENT if plan.dq_flag else _UNIFORM)
        sqnr = max(0.0, decibel(energy, np.count_nonzero(values) * noise**2))
        if energy and sqnr < MIN_SQNR:
            self._destroyed[name] = sqnr

    def warnings(self, rules: Iterable[Rule], remarks: Iterable[str], coded: int, before: int) -> Iterator[str]:
        """Sentences for a person; ``coded`` of the ``before`` bytes of the model became tensors of the bitstream."""
        for rule in rules:
            if not any(map(rule.applies_to, self._plan.tensors)):
                yield f"the rule {rule.pattern!r} matches no tensor"
        if self._destroyed:
            yield f"{_destroyed(self._destroyed)}; more bits or --calibrate keep more, nnc verify measures the loss"
        if coded < _LITTLE * before:
            share = 100 * coded / before
            yield f"only {share:.0f} % of the model is tensors; the rest was compressed without loss, like a zip file"
        yield from remarks


def _destroyed(found: dict[str, float]) -> str:
    worst = sorted(found, key=lambda name: found[name])
    listed = ", ".join(f"{name} ({found[name]:.0f} dB)" for name in worst[:_LISTED])
    more = f" and {len(worst) - _LISTED} more" if len(worst) > _LISTED else ""
    return f"the step is too large for {listed}{more}: below {MIN_SQNR:g} dB little is left of a tensor"
