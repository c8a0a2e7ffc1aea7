"""Whether a weight is smaller with a codebook (clause 8.3.3)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Final

from numpy.typing import NDArray

from nnc_core.coder.plan import Method, TensorPlan
from nnc_core.coder.single import Format
from nnc_core.coder.units import coded_size, data_units
from nnc_core.errors import ModelError

__all__ = ["smaller_with_codebook"]

_OCTAVES: Final = math.log2(1 / 0.56)
"""How much finer the step of a uniform quantizer is that errs as little as dependent quantization."""


def smaller_with_codebook(sample: NDArray[Any], plan: TensorPlan, form: Format) -> TensorPlan:
    """The plan of a quantized weight, or one with a codebook of the same quality if ``sample`` is smaller with that."""
    if plan.method != Method.QUANTIZED or plan.exact:
        return plan
    finer = math.ceil(_OCTAVES * (1 << form.qp_density)) if plan.dq_flag else 0
    other = replace(plan, method=Method.CODEBOOK, qp=max(plan.qp - finer, -(32 << form.qp_density)), dq_flag=False)
    try:
        return min((plan, other), key=lambda each: coded_size(data_units("", sample, each, form)))
    except ModelError:  # values beyond the reach of a codebook, which are sent beside the others without one
        return plan
