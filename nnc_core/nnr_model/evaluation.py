"""The hook by which an encoder learns what its choices do to a model (ISO/IEC 15938-18, module ``nnr_model``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from nnc_core.errors import ModelError
from nnc_core.records import dataclass

__all__ = ["Evaluate", "Evaluation"]

Evaluate = Callable[[Mapping[str, NDArray[Any]]], float]
"""Takes the tensors of a model, by name, and returns how good the model is with them."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A measure of a model in any framework, and how much of it may be lost.

    ``evaluate`` is given all tensors of the model in their shapes, and returns a number such as the accuracy, or with
    ``lower_is_better`` a loss. A model is good enough if it is no worse than ``bound``, or, where that is `None`, than
    the original by more than ``tolerance``, in the units of the measure. Raises ValueError for a ``tolerance`` below 0.

    >>> import numpy as np
    >>> original = {"w": np.ones(4, np.float32)}
    >>> small = Evaluation(lambda tensors: float(tensors["w"].mean()), tolerance=0.1).bounded(original)
    >>> small.bound, small.accepts({"w": np.full(4, 0.95)}), small.accepts({"w": np.full(4, 0.8)})
    (0.9, True, False)
    """

    evaluate: Evaluate
    tolerance: float = 0.0
    bound: float | None = None
    lower_is_better: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < math.inf:
            raise ValueError(f"tolerance is {self.tolerance}, expected 0 or more")

    def bounded(self, original: Mapping[str, NDArray[Any]]) -> Evaluation:
        """The evaluation with the bound that follows from the original tensors; `ModelError` where there is none."""
        if self.bound is not None:
            return self
        quality = float(self.evaluate(original))
        if not math.isfinite(quality):
            raise ModelError(f"the evaluation of the original model is {quality}, expected a finite number")
        return replace(self, bound=quality + (self.tolerance if self.lower_is_better else -self.tolerance))

    def score(self, tensors: Mapping[str, NDArray[Any]]) -> float:
        """How good a model is, the higher the better; minus infinity for one that is not a number."""
        quality = float(self.evaluate(tensors))
        if math.isnan(quality):
            return -math.inf
        return -quality if self.lower_is_better else quality

    def accepts(self, tensors: Mapping[str, NDArray[Any]]) -> bool:
        """Whether a model is good enough; ValueError before there is a bound."""
        return self.is_enough(self.score(tensors))

    def is_enough(self, score: float) -> bool:
        """Whether this is a `score` of a model that is good enough; ValueError before there is a bound."""
        if self.bound is None:
            raise ValueError("an evaluation without a bound; take that of the original first, with `bounded`")
        return score >= (-self.bound if self.lower_is_better else self.bound)
