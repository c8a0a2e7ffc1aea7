"""Combined pruning and sparsification: unimportant rows go, and of the others small weights (clause 8).

How important the rows of a weight are follows from a random walk between them, whose steps prefer similar rows: in the
long run it is more often where many and strong rows agree. The walk has the transition matrix P, and its equilibrium
distribution is the importance S.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import ModelError
from nnc_core.nnr_model.blocks import blocks
from nnc_core.nnr_model.model_info import ModelInfo
from nnc_core.reduction.reduced import Floats, Reduced, Tensors, weights
from nnc_core.reduction.sparsification import smallest

__all__ = ["importance", "prune_and_sparsify", "prune_rows"]


def importance(weight: Floats, smoothing: float = 1.0) -> NDArray[np.float64]:
    """The importance S of each row of a weight (rows, ...): not negative, with a sum of 1.

    The features M of the rows are their elements. P[i, j] is proportional to ``exp(|M[i] M[j]| / smoothing)``, with the
    mean square of a row as the unit. Since that is symmetric, the equilibrium S = S P is known without a walk: the sums
    of the rows of exp(...). A large ``smoothing`` makes all rows alike. Raises ValueError unless it is above 0.

    >>> importance(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])).round(3).tolist()
    [0.32, 0.32, 0.227, 0.133]
    """
    if not 0 < smoothing < np.inf:
        raise ValueError(f"a smoothing factor of {smoothing}, expected more than 0")
    features = weight.reshape(len(weight), -1).astype(np.float64)
    unit = np.square(features).sum() / len(features) or 1.0
    similar = np.abs(features @ features.T) / (unit * smoothing)
    sums = np.exp(similar - similar.max()).sum(1)
    found: NDArray[np.float64] = sums / sums.sum()
    return found


def prune_rows(weight: Floats, ratio: float, smoothing: float = 1.0) -> NDArray[np.bool_]:
    """Which rows of a weight go: ``ratio`` of them, the least important; never all."""
    gone = smallest(importance(weight, smoothing), ratio)
    if gone.all():
        gone[np.argmax(importance(weight, smoothing))] = False
    return gone


def prune_and_sparsify(
    parameters: Tensors,
    p: float,
    q: float = 0.0,
    *,
    model_info: ModelInfo | None = None,
    inputs: Mapping[str, str] | None = None,
    names: Iterable[str] | None = None,
    smoothing: float = 1.0,
) -> Reduced:
    """The model without the ratio ``p`` of the rows of each weight, and the ratio ``q`` of what is left of it at zero.

    The least important rows go, and after them weights whose magnitude times the importance of their row is smallest.
    What belongs to a row goes with it: bias and batch-norm, where ``model_info`` knows the blocks, and the columns of
    weights that take it as input: ``inputs`` says from which weight the input of another comes; between a convolution
    and a full connection, several columns may belong to a row. Without ``names``, the weights named in ``inputs`` as
    sources are pruned, or all if there are none. Weights keep their shapes, with zeros; see `in_pruned_shape`.
    Raises ValueError for ratios outside 0..1, `ModelError` for names that do not fit and for values not finite.
    """
    inputs = inputs or {}
    chosen = weights(parameters, names if names is not None else dict.fromkeys(inputs.values()) or None)
    rows = {name: prune_rows(array, p, smoothing) for name, array in chosen.items()}
    pruned = {name: np.zeros(np.shape(array), bool) for name, array in parameters.items()}
    for name, gone in rows.items():
        for member in _members(model_info or {}, parameters, name):
            pruned[member][gone] = True
    for name, source in inputs.items():
        if source in rows:
            pruned[name][:, _columns(name, parameters, rows[source])] = True
    return _sparsified(parameters, {n: mask for n, mask in pruned.items() if mask.any()}, chosen, q, smoothing)


def _members(model_info: ModelInfo, parameters: Tensors, weight: str) -> list[str]:
    """The tensors whose first dimension is that of a weight's rows."""
    block = next((b for b in blocks(model_info, parameters) if b.weight == weight), None)
    return list(block.names.values()) if block else [weight]


def _columns(name: str, parameters: Tensors, gone: NDArray[np.bool_]) -> NDArray[np.bool_]:
    if name not in parameters or np.ndim(parameters[name]) < 2 or parameters[name].shape[1] % gone.size:
        raise ModelError(f"cannot have inputs from {gone.size} rows, one or more columns for each", tensor=name)
    return gone.repeat(parameters[name].shape[1] // gone.size)


def _sparsified(
    parameters: Tensors, pruned: dict[str, NDArray[np.bool_]], chosen: dict[str, Floats], q: float, smoothing: float
) -> Reduced:
    """The model without what is pruned, and with the ratio ``q`` of the rest of each weight set to zero."""
    kept: dict[str, NDArray[Any]] = dict(parameters)
    sparse = {}
    for name, array in chosen.items() if q else ():
        score = np.abs(array.astype(np.float64)).reshape(len(array), -1) * importance(array, smoothing)[:, None]
        left = np.flatnonzero(~pruned.get(name, np.zeros(array.shape, bool)))
        sparse[name] = np.zeros(array.shape, bool)
        sparse[name].reshape(-1)[left[smallest(score.ravel()[left], q)]] = True
    for masks in (pruned, sparse):
        kept |= {name: np.where(mask, kept[name].dtype.type(0), kept[name]) for name, mask in masks.items()}
    return Reduced(kept, pruned, sparse)
