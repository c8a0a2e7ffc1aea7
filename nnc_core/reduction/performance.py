"""Performance maps: what reductions of several strengths leave of a model's quality (6.3.4.3; Part 18, Table 4).

`nnc_core.nnr_model.ModelInfo` has them under ``performance_maps``, from where they get into the bitstream. ``evaluate``
is given all tensors of a model in their shapes, and returns its accuracy; ``classes`` returns that of each class, of 32
at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypedDict

import numpy as np

from nnc_core.nnr_model.evaluation import Evaluate
from nnc_core.nnr_model.model_info import DecompositionMap, PruningMap, SparsificationMap, UnificationMap
from nnc_core.reduction.low_rank import low_rank
from nnc_core.reduction.reduced import Reduced, Tensors, weights
from nnc_core.reduction.unification import unify

__all__ = ["Classes", "decomposition_map", "pruning_map", "sparsification_map", "unification_map"]

Classes = Callable[[Tensors], Sequence[float]]
"""Takes the tensors of a model, by name, and returns the accuracy of each class."""


class _Accuracies(TypedDict):
    nn_accuracy: list[float]
    count_classes: list[int]
    class_bitmask: list[int]
    nn_class_accuracy: list[list[float]]


def sparsification_map(
    parameters: Tensors, thresholds: Sequence[float], evaluate: Evaluate, classes: Classes | None = None
) -> SparsificationMap:
    """What is left when all weights whose magnitude is below each of the ``thresholds`` become zero.

    Weights are the tensors of floating point with two dimensions or more.
    """
    models = [{**parameters, **_above(parameters, threshold)} for threshold in thresholds]
    return SparsificationMap(
        count_thresholds=len(thresholds),
        sparsification_threshold=[float(threshold) for threshold in thresholds],
        non_zero_ratio=[_non_zero_ratio(model) for model in models],
        **_accuracies(models, evaluate, classes),
    )


def pruning_map(reduced: Sequence[Reduced], evaluate: Evaluate, classes: Classes | None = None) -> PruningMap:
    """What is left after each of some prunings; the ratio is that of pruned weights among all tensors' elements."""
    models = [each.parameters for each in reduced]
    return PruningMap(
        count_pruning_ratios=len(reduced),
        pruning_ratio=[_pruned_ratio(each) for each in reduced],
        **_accuracies(models, evaluate, classes),
    )


def unification_map(
    parameters: Tensors,
    thresholds: Sequence[float],
    evaluate: Evaluate,
    classes: Classes | None = None,
    *,
    block: tuple[int, int] = (4, 4),
    super_block: tuple[int, int] = (64, 64),
) -> UnificationMap:
    """What is left after `unify` with each of the ``thresholds``, of weights as matrices of any number of rows.

    ``reshaped_tensor_dimensions`` are those of the largest weight, for which there is one entry only.
    """
    models = [unify(parameters, threshold, block, super_block).parameters for threshold in thresholds]
    largest = max(weights(parameters).values(), key=lambda array: array.size)
    count, shape = len(thresholds), [len(largest), largest.size // len(largest)]
    return UnificationMap(
        count_thresholds=count,
        reshaped_tensor_dimensions=[list(shape) for _ in range(count)],
        super_block_dimensions=[list(super_block) for _ in range(count)],
        block_dimensions=[list(block) for _ in range(count)],
        unification_threshold=[float(threshold) for threshold in thresholds],
        **_accuracies(models, evaluate, classes),
    )


def decomposition_map(
    parameters: Tensors, errors: Sequence[float], evaluate: Evaluate, classes: Classes | None = None
) -> DecompositionMap:
    """What is left after `low_rank` with each of some relative squared ``errors``, and how many elements that saves."""
    models = [low_rank(parameters, error=error) for error in errors]
    accuracies = _accuracies([each.recomposed() for each in models], evaluate, classes)
    return DecompositionMap(
        count_thresholds=len(errors),
        mse_threshold=[float(error) for error in errors],
        nn_reduction_ratio=[each.nn_reduction_ratio for each in models],
        nn_accuracy=accuracies["nn_accuracy"],
        count_classes=accuracies["count_classes"],
        nn_class_accuracy=accuracies["nn_class_accuracy"],
    )


def _accuracies(models: Iterable[Tensors], evaluate: Evaluate, classes: Classes | None) -> _Accuracies:
    models = list(models)
    by_class = [[float(each) for each in classes(model)] if classes else [] for model in models]
    return _Accuracies(
        nn_accuracy=[float(evaluate(model)) for model in models],
        count_classes=[len(each) for each in by_class],
        class_bitmask=[(1 << len(each)) - 1 for each in by_class],
        nn_class_accuracy=by_class,
    )


def _above(parameters: Tensors, threshold: float) -> dict[str, Any]:
    return {
        name: np.where(np.abs(array) < threshold, array.dtype.type(0), array)
        for name, array in weights(parameters).items()
    }


def _non_zero_ratio(parameters: Tensors) -> float:
    found = weights(parameters).values()
    return sum(int(np.count_nonzero(array)) for array in found) / max(1, sum(array.size for array in found))


def _pruned_ratio(reduced: Reduced) -> float:
    gone = sum(int(np.count_nonzero(mask)) for mask in reduced.pruned.values())
    return gone / max(1, sum(np.size(array) for array in reduced.parameters.values()))
