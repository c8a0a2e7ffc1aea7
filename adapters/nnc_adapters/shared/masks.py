"""Masks beside the weights of a model: what they hide becomes pruning topology (ISO/IEC 15938-17, 6.3.4.5).

The masks themselves stay among the tensors, exactly, so that a model comes back with them. A decoder that knows nothing
of the model's format learns from the topology unit what is gone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.shared.lazy import LazyTensors
from nnc_core.nnr_model import ModelInfo, SourceModel
from nnc_core.reduction import describe_masks, in_pruned_shape, masks_of
from nnc_core.reduction.masks import whole_slices

__all__ = ["in_shape_after_pruning", "with_pruning_topology"]

_Tensors = Mapping[str, NDArray[Any]]
_Masks = dict[str, NDArray[np.bool_]]

_MUCH = 0.1
_ORIGINAL = "_orig"
"""What PyTorch adds to the name of a weight that has a mask."""


def with_pruning_topology(model: SourceModel, masks: Mapping[str, str], *, drop: bool = False) -> SourceModel:
    """The model with what its ``masks`` hide told as pruning topology; masks by name, with the names of their weights.

    Rows, columns and further slices that are hidden as a whole are in the pruning mask, single weights in the sparse
    mask. What is hidden stays as it is, or becomes zeros, if it is to be dropped.
    """
    hidden = {
        weight: gone for mask, weight in masks.items() if (gone := _gone(model.tensors, mask, weight)) is not None
    }
    exact = {**model.exact, **{mask: "a pruning mask" for mask, weight in masks.items() if weight in hidden}}
    info = model.model_info | _described(model.tensors, hidden) if hidden else model.model_info
    tensors = _dropped(model.tensors, hidden) if drop else model.tensors
    remarks = model.remarks if drop else (*model.remarks, *_remarks(hidden))
    return replace(model, tensors=tensors, exact=exact, model_info=info, remarks=remarks)


def _gone(tensors: _Tensors, mask: str, weight: str) -> NDArray[np.bool_] | None:
    """What a mask hides; `None` for one that is not of zeros and ones, or not of its weight's shape."""
    values = np.asarray(tensors[mask])
    binary = bool(((values == 0) | (values == 1)).all())
    return values == 0 if binary and values.shape == tensors[weight].shape else None


def _described(tensors: _Tensors, hidden: _Masks) -> ModelInfo:
    pruned = {name: whole_slices(gone) for name, gone in hidden.items()}
    sparse = {name: gone & ~pruned[name] for name, gone in hidden.items()}
    shapes = {name: np.shape(tensors[name]) or (1,) for name in tensors}
    used = ({name: mask for name, mask in masks.items() if mask.any()} for masks in (pruned, sparse))
    return describe_masks(shapes, *used)


def _dropped(tensors: _Tensors, hidden: _Masks) -> LazyTensors:
    fetch = {name: partial(tensors.__getitem__, name) for name in tensors}
    return LazyTensors({**fetch, **{name: partial(_visible, tensors, name, gone) for name, gone in hidden.items()}})


def _visible(tensors: _Tensors, name: str, gone: NDArray[np.bool_]) -> NDArray[Any]:
    array = tensors[name]
    return np.where(gone, array.dtype.type(0), array)


def _remarks(hidden: _Masks) -> Iterator[str]:
    gone, whole = sum(int(m.sum()) for m in hidden.values()), sum(m.size for m in hidden.values())
    if gone > _MUCH * whole:
        yield (
            f"pruning masks hide {100 * gone / whole:.0f} % of their weights, which are carried like the others; "
            "--drop-masked (drop_masked=True) makes them zeros"
        )


def in_shape_after_pruning(
    tensors: _Tensors, model_info: ModelInfo, shapes: Mapping[str, tuple[int, ...]], masks: Mapping[str, str]
) -> _Tensors:
    """The tensors of a model without what its pruning topology says is gone, and without ``masks``.

    ``shapes`` are those of the tensors in the bitstream. Weights have the names that they have without masks.
    """
    pruned, sparse = masks_of(model_info, shapes)
    return LazyTensors(
        {
            name.removesuffix(_ORIGINAL) if name in masks.values() else name: partial(
                _pruned, tensors, name, pruned, sparse
            )
            for name in tensors
            if name not in masks
        }
    )


def _pruned(
    tensors: _Tensors, name: str, pruned: Mapping[str, NDArray[np.bool_]], sparse: Mapping[str, NDArray[np.bool_]]
) -> NDArray[Any]:
    array = tensors[name]
    for mask in (masks[name] for masks in (pruned, sparse) if name in masks):
        array = np.where(mask, array.dtype.type(0), array)
    return in_pruned_shape({name: array}, {name: pruned[name]} if name in pruned else {})[name]
