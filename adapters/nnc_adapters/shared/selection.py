"""Which tensors of a model are coded; the others stay as they are, in the topology."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.shared.dtypes import FLOATS, INTEGERS

__all__ = ["SMALLEST_FLOATS", "SMALLEST_INTEGERS", "fits", "is_coded"]

SMALLEST_FLOATS = 16
SMALLEST_INTEGERS = 256

_MOST = (1 << 31) - 1
# Types whose values are all within what the codec can express.
_ALWAYS_FIT = (FLOATS | INTEGERS) - {"float64", "int32", "uint32", "int64"}
# How many values are looked at together, so that a large tensor in a file does not have to fit into memory.
_PIECE = 1 << 20


def is_coded(data_type: str, elements: int, load: Callable[[], NDArray[Any]], *, all_floats: bool = False) -> bool:
    """Whether a tensor leaves the topology: numbers, enough of them, and within the codec's range.

    ``data_type`` is a name of numpy or ml_dtypes; ``load`` is called only where the values decide. With ``all_floats``
    tensors of floating-point numbers leave it however small they are.
    """
    smallest = 1 if all_floats else SMALLEST_FLOATS
    enough = (data_type in FLOATS and elements >= smallest) or (data_type in INTEGERS and elements >= SMALLEST_INTEGERS)
    return enough and fits(data_type, load)


def fits(data_type: str, load: Callable[[], NDArray[Any]]) -> bool:
    """Whether the values of a tensor are finite float32, or integers within +-(2**31 - 1), where there is a doubt."""
    if data_type in _ALWAYS_FIT:
        return True
    flat = load().reshape(-1)
    return all(_fits(flat[at : at + _PIECE]) for at in range(0, flat.size, _PIECE))


def _fits(values: NDArray[Any]) -> bool:
    if values.dtype.kind in "iu":
        return bool(values.min() >= -_MOST and values.max() <= _MOST)
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.astype(np.float32)).all())
