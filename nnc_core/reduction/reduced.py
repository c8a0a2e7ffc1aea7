"""What a reduction hands on: tensors, and what the bitstream tells of the reduction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.data import ApproxData
from nnc_core.errors import ModelError
from nnc_core.nnr_model.model_info import ModelInfo
from nnc_core.records import dataclass
from nnc_core.reduction.masks import Masks, describe_masks

__all__ = ["Floats", "Reduced", "Tensors", "applied", "share", "weights"]

Tensors = Mapping[str, NDArray[Any]]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Reduced:
    """All tensors of a model after a reduction, in their shapes, and which of their elements are gone.

    ``pruned`` marks what the topology lost, ``sparse`` single weights that became zero: boolean arrays in the shapes of
    the tensors, for those that were reduced. Such elements are zero in ``parameters``.
    """

    parameters: dict[str, NDArray[Any]]
    pruned: Masks = field(default_factory=dict)
    sparse: Masks = field(default_factory=dict)

    @property
    def model_info(self) -> ModelInfo:
        """The masks as Part 18 has them (Tables 3 and 5), to be added to what else is known of the model."""
        shapes = {name: array.shape for name, array in self.parameters.items()}
        return describe_masks(shapes, self.pruned, self.sparse)


def weights(parameters: Tensors, names: Iterable[str] | None = None) -> dict[str, Floats]:
    """The tensors to be reduced: those called ``names``, or all of floating point with two dimensions or more.

    Raises `ModelError` for a name that is missing or whose tensor has integers, and for values that are not finite.
    """
    chosen = [name for name, array in parameters.items() if np.ndim(array) > 1 and np.asarray(array).dtype.kind == "f"]
    for name in (chosen := chosen if names is None else list(names)):
        if name not in parameters or np.asarray(parameters[name]).dtype.kind != "f":
            raise ModelError("is to be reduced, but is not a tensor of floating-point numbers", tensor=name)
        if not np.isfinite(parameters[name]).all():
            raise ModelError("has values that are not finite, and cannot be reduced", tensor=name)
    return {name: np.asarray(parameters[name]) for name in chosen}


def share(ratio: float, count: int) -> int:
    """How many of ``count`` elements a ratio is, to the nearest; ValueError for one outside 0..1."""
    if not 0 <= ratio <= 1:
        raise ValueError(f"a ratio of {ratio}, expected 0 to 1")
    return round(ratio * count)


def applied(method: Callable[[Tensors], Reduced]) -> Callable[[ModelInfo, ApproxData], None]:
    """A reduction that changes the dictionaries of Part 18, for `nnc_core.pipeline.changing`.

    >>> from functools import partial
    >>> from nnc_core.reduction import sparsify
    >>> info, data = ModelInfo(), ApproxData(parameters={"w": np.array([[1.0, -3.0]], np.float32)})
    >>> applied(partial(sparsify, ratio=0.5))(info, data)
    >>> data["parameters"]["w"].tolist(), info["sparse_bit_mask"].tolist()
    ([[0.0, -3.0]], [1, 0])
    """

    def change(model_info: ModelInfo, approx_data: ApproxData) -> None:
        reduced = method(approx_data.get("parameters", {}))
        approx_data["parameters"] = reduced.parameters
        model_info.update(reduced.model_info)

    return change
