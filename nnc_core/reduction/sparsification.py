"""Sparsification: weights, or whole rows of them, become zero (Part 17, G.1.5 and G.1.6).

What is reduced may also be the difference between two models, as updates have it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nnc_core.reduction.reduced import Floats, Reduced, Tensors, share, weights

__all__ = ["smallest", "sparsify", "sparsify_rows"]


def sparsify(
    parameters: Tensors, ratio: float, *, names: Iterable[str] | None = None, together: bool = False
) -> Reduced:
    """The model with this ``ratio`` of the weights set to zero, those of the smallest magnitude.

    The ratio holds for each tensor, or, with ``together``, for all of them at once. It counts weights that were zero
    before; of equal ones the first become zero. ``names`` are those of the tensors to be sparsified, any shape; by
    default all with two dimensions or more. Raises ValueError for a ratio outside 0..1, `ModelError` for values that
    are not finite.

    >>> sparsify({"w": np.array([[0.1, -0.4], [0.3, -0.2]])}, 0.5).parameters["w"].tolist()
    [[0.0, -0.4], [0.3, 0.0]]
    """
    chosen = weights(parameters, names)
    if together:
        flat = np.concatenate([np.abs(array).ravel() for array in chosen.values()] or [np.zeros(0)])
        pieces = np.split(smallest(flat, ratio), np.cumsum([array.size for array in chosen.values()])[:-1])
        gone = dict(zip(chosen, pieces, strict=False))
    else:
        gone = {name: smallest(np.abs(array).ravel(), ratio) for name, array in chosen.items()}
    return _without(parameters, {name: gone[name].reshape(array.shape) for name, array in chosen.items()})


def sparsify_rows(
    parameters: Tensors,
    ratio: float | None = None,
    *,
    filter_spars_gain: float | None = None,
    names: Iterable[str] | None = None,
) -> Reduced:
    """The model with whole rows of weights (filters, neurons) set to zero, those of the smallest mean magnitude.

    Either ``ratio`` of the rows of each tensor, or those whose mean magnitude is below ``filter_spars_gain`` times that
    of the tensor. The coder skips such rows. Otherwise as `sparsify`.

    >>> sparsify_rows({"w": np.array([[1.0, 1.0], [0.0, 1.5], [0.0, -2.5]])}, 1 / 3).parameters["w"].tolist()
    [[1.0, 1.0], [0.0, 0.0], [0.0, -2.5]]
    """
    if (ratio is None) == (filter_spars_gain is None):
        raise ValueError("expected a ratio or a filter_spars_gain, one of them")
    gone = {}
    for name, array in weights(parameters, names).items():
        means = np.abs(array.reshape(len(array), -1).astype(np.float64)).mean(1)
        rows = smallest(means, ratio) if ratio is not None else means < (filter_spars_gain or 0) * means.mean()
        gone[name] = np.broadcast_to(rows.reshape(-1, *(1,) * (array.ndim - 1)), array.shape)
    return _without(parameters, gone)


def smallest(values: Floats, ratio: float) -> NDArray[np.bool_]:
    """Which of some values (one dimension) are the smallest, that ``ratio`` of them; of equal ones, the first."""
    found = np.zeros(values.shape, bool)
    found[np.argsort(values, kind="stable")[: share(ratio, values.size)]] = True
    return found


def _without(parameters: Tensors, gone: dict[str, NDArray[np.bool_]]) -> Reduced:
    zeroed = {name: np.where(mask, parameters[name].dtype.type(0), parameters[name]) for name, mask in gone.items()}
    return Reduced({**parameters, **zeroed}, sparse=gone)
