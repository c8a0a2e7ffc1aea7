"""Masks of what was pruned or set to zero, in the pruning topology container and out (clause 6.3.4.5).

A mask has a bit for each element of a model's tensors, 1 for what is gone. Tensors follow each other in the order of
their names, which is the same however they are coded (nothing published settles it); the elements of a tensor are in
row-major order, or in column-major order where ``bit_mask_order_flag`` is false. Of other encoders' masks, those are
read too that leave out vectors, or a sparse mask that leaves out what was pruned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import ModelError
from nnc_core.nnr_model.model_info import ModelInfo
from nnc_core.tables.code_points import PruningRepresentationType

__all__ = [
    "Masks",
    "describe_dictionary",
    "describe_masks",
    "in_full_shape",
    "in_pruned_shape",
    "masks_of",
    "restore",
    "whole_slices",
]

Mask = NDArray[np.bool_]
Masks = Mapping[str, Mask]
"""For some tensors, an array of their shape that is true for elements that are gone."""

Shapes = Mapping[str, Sequence[int]]
Tensors = Mapping[str, NDArray[Any]]


def describe_masks(shapes: Shapes, pruned: Masks, sparse: Masks, *, row_major: bool = True) -> ModelInfo:
    """The keys of ``model_info`` (Part 18, Tables 3 and 5) for masks of tensors with these ``shapes``.

    Masks are uint8 arrays; the sparse mask has a bit for every element, also of what was pruned. Raises `ModelError`
    for a mask without a tensor of its shape.

    >>> info = describe_masks({"w": (2, 2), "b": (2,)}, {}, {"w": np.array([[True, False], [True, True]])})
    >>> info["sparse_bit_mask"].tolist()
    [0, 0, 1, 0, 1, 1]
    """
    info = ModelInfo()
    if pruned:
        info["prune_rep_type"] = int(PruningRepresentationType.NNR_TPL_BMSK)
        info["prune_bit_mask"] = _joined(shapes, pruned, row_major)
    if sparse:
        info["sparse_bit_mask"] = _joined(shapes, sparse, row_major)
    if info:
        info["bit_mask_order_flag"] = row_major
    return info


def whole_slices(gone: Mask) -> Mask:
    """Where whole rows, columns or further slices of a tensor are gone.

    >>> whole_slices(np.array([[True, False, True], [True, True, True]])).astype(int).tolist()
    [[1, 0, 1], [1, 1, 1]]
    """
    found = np.zeros(gone.shape, bool)
    for axis, kept in enumerate(_kept(gone)):
        found |= np.expand_dims(~kept, [other for other in range(gone.ndim) if other != axis])
    return found


def describe_dictionary(parameters: Tensors, pruned: Masks) -> ModelInfo:
    """The keys of ``model_info`` for a dictionary of the tensors that become smaller, and their new dimensions.

    A dictionary is shorter than a mask, but does not tell which elements are gone.
    """
    shapes = {name: in_pruned_shape(parameters, {name: pruned[name]})[name].shape for name in pruned}
    return ModelInfo(
        prune_rep_type=int(PruningRepresentationType.NNR_TPL_DICT),
        prune_tpl_elem_ids=list(shapes),
        prune_tpl_count_dims=[len(shape) for shape in shapes.values()],
        prune_tpl_dims=[size for shape in shapes.values() for size in shape],
        bit_mask_order_flag=True,
    )


def _joined(shapes: Shapes, masks: Masks, row_major: bool) -> NDArray[np.uint8]:
    for name, mask in masks.items():
        if tuple(shapes.get(name, ())) != mask.shape:
            raise ModelError(f"a mask of shape {mask.shape}, expected that of the tensor", tensor=name)
    order = _order(row_major)
    flat = [
        masks[name].ravel(order) if name in masks else np.zeros(prod(shapes[name]), bool) for name in sorted(shapes)
    ]
    return np.concatenate(flat).astype(np.uint8)


def _order(row_major: bool) -> Literal["C", "F"]:
    return "C" if row_major else "F"


def masks_of(model_info: ModelInfo, shapes: Shapes) -> tuple[Masks, Masks]:
    """The pruning mask and the sparse mask of each tensor, from ``model_info``; `shapes` are those before pruning.

    The inverse of `describe_masks`: there are masks for tensors of which something is gone. Raises `ModelError` for a
    number of bits that does not fit the tensors.
    """
    order = model_info.get("bit_mask_order_flag", True)
    pruned = _split(model_info.get("prune_bit_mask", ()), shapes, {}, order)
    return pruned, _split(model_info.get("sparse_bit_mask", ()), shapes, pruned, order)


def _split(given: Sequence[int] | NDArray[np.uint8], shapes: Shapes, pruned: Masks, row_major: bool) -> Masks:
    bits = np.asarray(given, np.uint8).astype(bool)
    if not bits.size:
        return {}
    for names in (sorted(shapes), sorted(name for name in shapes if len(shapes[name]) > 1)):
        sizes = [prod(shapes[name]) for name in names]
        if bits.size == sum(sizes):
            pieces = np.split(bits, np.cumsum(sizes)[:-1]) if names else []
            return _shaped(names, pieces, shapes, row_major)
        kept = {name: ~pruned.get(name, np.zeros(tuple(shapes[name]), bool)) for name in names}
        if bits.size == sum(int(mask.sum()) for mask in kept.values()):
            return _among_kept(bits, kept, row_major)
    sizes = [prod(shape) for shape in shapes.values()]
    raise ModelError(f"a mask of {bits.size} bits for tensors of {sum(sizes)} elements")


def _shaped(names: Sequence[str], pieces: Sequence[Mask], shapes: Shapes, row_major: bool) -> Masks:
    order = _order(row_major)
    shaped = {name: bits.reshape(tuple(shapes[name]), order=order) for name, bits in zip(names, pieces, strict=True)}
    return {name: mask for name, mask in shaped.items() if mask.any()}


def _among_kept(bits: Mask, kept: Masks, row_major: bool) -> Masks:
    """The masks of a sparse mask that has bits only for the elements that are ``kept``."""
    masks, start = {}, 0
    for name, mask in kept.items():
        flat = np.zeros(mask.size, bool)
        places = np.flatnonzero(mask.ravel(_order(row_major)))
        flat[places] = bits[start : start + places.size]
        start += places.size
        masks[name] = flat.reshape(mask.shape, order=_order(row_major))
    return {name: mask for name, mask in masks.items() if mask.any()}


# --- shapes -----------------------------------------------------------------------------------------------------------


def in_pruned_shape(parameters: Tensors, pruned: Masks) -> dict[str, NDArray[Any]]:
    """The tensors without the rows, columns and further slices that are gone as a whole.

    Tensors that have these shapes already stay as they are; a tensor that is gone as a whole is empty. Raises
    `ModelError` for a tensor of another shape.

    >>> gone = np.array([[False, True, False], [True, True, True]])
    >>> in_pruned_shape({"w": np.arange(6.0).reshape(2, 3)}, {"w": gone})["w"].tolist()
    [[0.0, 2.0]]
    """
    found = dict(parameters)
    for name in (name for name in pruned if name in parameters):
        kept = _kept(pruned[name])
        if _is_pruned(name, found[name], pruned[name]):
            continue
        found[name] = found[name][np.ix_(*kept)]
    return found


def in_full_shape(parameters: Tensors, pruned: Masks) -> dict[str, NDArray[Any]]:
    """The tensors in the shapes of their masks, with zeros where something is gone; the inverse of `in_pruned_shape`.

    >>> gone = np.array([[False, True, False], [True, True, True]])
    >>> in_full_shape({"w": np.array([[7.0, 9.0]])}, {"w": gone})["w"].tolist()
    [[7.0, 0.0, 9.0], [0.0, 0.0, 0.0]]
    """
    found = dict(parameters)
    for name, mask in ((name, mask) for name, mask in pruned.items() if name in parameters):
        whole = found[name]
        if _is_pruned(name, whole, mask):
            whole = np.zeros(mask.shape, whole.dtype)
            whole[np.ix_(*_kept(mask))] = found[name]
        found[name] = np.where(mask, whole.dtype.type(0), whole)
    return found


def restore(
    parameters: Tensors, model_info: ModelInfo, *, pruned: bool = False, shapes: Shapes | None = None
) -> dict[str, NDArray[Any]]:
    """Decoded tensors in their full shapes, with zeros where something is gone, or in those after pruning.

    ``model_info`` is what the bitstream says. ``shapes`` are those before pruning, of all tensors; they are needed
    where the tensors were coded after it, and are otherwise their own. Raises `ModelError` for masks that do not fit,
    and where a dictionary does not tell which elements are gone.
    """
    known = {name: array.shape for name, array in parameters.items()} if shapes is None else shapes
    gone, sparse = masks_of(model_info, known)
    gone = {**gone, **_masks_of_dictionary(parameters, model_info, known)}
    zeroed = in_full_shape(in_full_shape(parameters, gone), sparse)
    return in_pruned_shape(zeroed, gone) if pruned else zeroed


def _masks_of_dictionary(parameters: Tensors, model_info: ModelInfo, shapes: Shapes) -> Masks:
    """What is gone of the tensors in a dictionary: slices of zeros, if these are as many as it says."""
    sizes, masks = iter(model_info.get("prune_tpl_dims", [])), {}
    counts = model_info.get("prune_tpl_count_dims", [])
    for name, count in zip(model_info.get("prune_tpl_elem_ids", []), counts, strict=True):
        small = tuple(next(sizes) for _ in range(count))
        if name not in parameters or tuple(shapes[name]) == small:
            continue
        masks[name] = whole_slices(parameters[name] == 0)
        if parameters[name].shape != tuple(shapes[name]) or tuple(k.sum() for k in _kept(masks[name])) != small:
            raise ModelError(f"the dictionary does not tell which parts are gone to make it {small}", tensor=name)
    return masks


def _kept(mask: Mask) -> list[Mask]:
    """For each axis, which of its slices are not gone as a whole."""
    axes = range(mask.ndim)
    return [np.asarray(~mask.all(axis=tuple(other for other in axes if other != axis))) for axis in axes]


def _is_pruned(name: str, array: NDArray[Any], mask: Mask) -> bool:
    """Whether a tensor has its shape after pruning, and not that before; `ModelError` for neither."""
    small = tuple(int(kept.sum()) for kept in _kept(mask))
    if array.shape not in (mask.shape, small):
        raise ModelError(f"has shape {array.shape}, expected {mask.shape}, or {small} after pruning", tensor=name)
    return array.shape != mask.shape
