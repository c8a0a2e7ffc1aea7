"""Sparsification and pruning of a stand-in, and what a bitstream says of them.

What the tables call accuracy is measured here without data: the share of the weights' energy that is left, or for a
class that of its row of the last weight. All sums are exact, so that every machine finds the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.suite.standins import Model
from nnc_core.nnr_model.model_info import PerformanceMaps, PruningMap, SparsificationMap

_THRESHOLDS = (2.0**-8, 2.0**-7, 2.0**-6)
_RATIOS = (1, 2, 4)  # rows pruned of eight
_CLASSES = 3


def add_performance_maps(model: Model, which: str) -> None:
    """Measure what sparsification and pruning would leave, for the maps that are named."""
    maps = PerformanceMaps()
    if "sparsification" in which:
        maps["sparsification"] = _sparsification_map(model)
    if "pruning" in which:
        maps["pruning"] = _pruning_map(model)
    model.info["performance_maps"] = maps


def _sparsification_map(model: Model) -> SparsificationMap:
    whole = _weights(model)
    left = [{name: np.where(abs(w) < t, 0, w) for name, w in whole.items()} for t in _THRESHOLDS]
    count = sum(w.size for w in whole.values())
    return SparsificationMap(
        count_thresholds=len(_THRESHOLDS),
        sparsification_threshold=list(_THRESHOLDS),
        non_zero_ratio=[sum(np.count_nonzero(w) for w in each.values()) / count for each in left],
        nn_accuracy=[_energy(each.values()) / _energy(whole.values()) for each in left],
        count_classes=[_CLASSES] * len(left),
        class_bitmask=[(1 << _CLASSES) - 1] * len(left),
        nn_class_accuracy=[_class_accuracies(whole, each) for each in left],
    )


def _pruning_map(model: Model) -> PruningMap:
    whole = _weights(model)
    left = [_zeroed(model, pruned_rows(model, eighths)) for eighths in _RATIOS]
    count = sum(w.size for w in whole.values())
    gone = [sum(w.size for w in whole.values()) - sum(np.count_nonzero(w) for w in each.values()) for each in left]
    return PruningMap(
        count_pruning_ratios=len(_RATIOS),
        pruning_ratio=[number / count for number in gone],
        nn_accuracy=[_energy(each.values()) / _energy(whole.values()) for each in left],
        count_classes=[2] * len(left),
        class_bitmask=[0b101] * len(left),
        nn_class_accuracy=[_class_accuracies(whole, each)[:2] for each in left],
    )


def _weights(model: Model) -> dict[str, NDArray[np.float64]]:
    return {name: model.tensors[name].astype(np.float64) for name in model.weights}


def _energy(arrays: object) -> float:
    """The sum of the squares of values that are multiples of 2**-15, as they are rounded to: exact in binary64."""
    rounded = (np.rint(array * 2.0**15) for array in arrays)  # type: ignore[attr-defined]
    return float(sum(np.square(numbers).sum() for numbers in rounded))


def _class_accuracies(whole: dict[str, NDArray[np.float64]], left: dict[str, NDArray[np.float64]]) -> list[float]:
    last = list(whole)[-1]
    return [_energy([left[last][row]]) / max(1.0, _energy([whole[last][row]])) for row in range(_CLASSES)]


def pruned_rows(model: Model, eighths: int) -> dict[str, NDArray[np.bool_]]:
    """By weight, which rows are pruned: those with the smallest energy."""
    found = {}
    for name, weight in _weights(model).items():
        energies = np.array([_energy([row]) for row in weight])
        rows = np.zeros(len(weight), bool)
        rows[np.argsort(energies, kind="stable")[: len(weight) * eighths // 8]] = True
        found[name] = rows
    return found


def _zeroed(model: Model, rows: dict[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.float64]]:
    weights = _weights(model)
    for name, pruned in rows.items():
        weights[name][pruned] = 0
    return weights


def without_rows(model: Model, rows: dict[str, NDArray[np.bool_]]) -> None:
    """Set the pruned rows of the model to zero."""
    for name, pruned in rows.items():
        model.tensors[name][pruned] = 0


def add_pruning(model: Model, which: str) -> None:
    """Prune or sparsify the model, and describe that for the pruning topology container."""
    rows = pruned_rows(model, 2)
    if which in ("prune bit mask", "combined bit masks"):
        model.info["prune_rep_type"] = 0
        model.info["prune_bit_mask"] = _bits(np.repeat(rows[n], model.tensors[n][0].size) for n in model.weights)
    if which in ("sparse bit mask", "combined bit masks"):
        sparse = (abs(model.tensors[name].reshape(-1)) < _THRESHOLDS[1] for name in model.weights)
        model.info["sparse_bit_mask"] = _bits(sparse)
    if which == "dictionary":
        shapes = {n: [int((~rows[n]).sum()), *model.tensors[n].shape[1:]] for n in model.weights}
        model.info["prune_rep_type"] = 1
        model.info["prune_tpl_elem_ids"] = list(shapes)
        model.info["prune_tpl_count_dims"] = [len(shape) for shape in shapes.values()]
        model.info["prune_tpl_dims"] = [size for shape in shapes.values() for size in shape]
    model.info["bit_mask_order_flag"] = True


def _bits(masks: Iterable[NDArray[np.bool_]]) -> Any:
    """The bits of all masks; an array, as a list of so many would take gigabytes at full size."""
    return np.concatenate([mask.reshape(-1) for mask in masks]).astype(np.uint8)
