"""Data types of model files as numpy types, and the way from decoded values back to them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import MissingDependencyError, ModelError

__all__ = ["FLOATS", "INTEGERS", "converted", "fitted", "named", "stored"]

FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
"""The names of the types that are coded as floating point."""

INTEGERS = frozenset({"int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"})
"""The names of the types that are coded as integers, where the values allow it."""

_LARGEST_BFLOAT16 = (2 - 2**-7) * 2.0**127


def named(name: str, extra: str = "bfloat16") -> np.dtype[Any]:
    """The numpy type called ``name``; those that numpy lacks need ml_dtypes, which ``extra`` brings.

    Raises `MissingDependencyError` without that package, `ValueError` for a name that neither knows.
    """
    if name == "bool" or (hasattr(np, name) and isinstance(getattr(np, name), type)):
        return np.dtype(name)
    try:
        import ml_dtypes
    except ModuleNotFoundError as error:
        raise MissingDependencyError("ml_dtypes", extra, f"the data type {name}") from error
    if not hasattr(ml_dtypes, name):
        raise ValueError(f"there is no data type {name!r}")
    found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return found


def stored(array: NDArray[Any]) -> memoryview:
    """The bytes of an array as files have them: little endian, row after row."""
    flat = np.ascontiguousarray(array).reshape(-1).view(f"=u{array.dtype.itemsize}")
    return flat.astype(f"<u{array.dtype.itemsize}", copy=False).view(np.uint8).data


def converted(array: NDArray[Any], target: np.dtype[Any]) -> NDArray[Any]:
    """``array`` as the data type that a model declares.

    Floating point is rounded to nearest, ties to even; a finite value too large for the type becomes its largest.
    Integers are not changed. `ValueError` where integers do not fit, or one kind is given for the other.
    """
    if array.dtype == target:
        return array
    if target.name in FLOATS and (np.issubdtype(array.dtype, np.floating) or array.dtype.name in FLOATS):
        return _rounded(array, target)
    if target.name in INTEGERS and np.issubdtype(array.dtype, np.integer):
        bounds = np.iinfo(target)
        if array.size and (int(array.min()) < bounds.min or int(array.max()) > bounds.max):
            raise ValueError(f"values from {array.min()} to {array.max()} do not fit {target}")
        return array.astype(target)
    raise ValueError(f"values are {array.dtype}, the model has {target}")


def fitted(array: NDArray[Any], name: str, shape: tuple[int, ...], target: np.dtype[Any]) -> NDArray[Any]:
    """The tensor ``name`` as a model has a place for it; `ModelError` where its shape or its values are others."""
    if array.shape != shape:
        raise ModelError(f"has shape {array.shape}, the model has {shape}", tensor=name)
    try:
        return converted(array, target)
    except ValueError as error:
        raise ModelError(str(error), tensor=name) from error


def _rounded(array: NDArray[Any], target: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(target)
        # quantization may push a weight just past the largest number, where infinity would ruin the model
        lost = np.isinf(result) & np.isfinite(array)
    if lost.any():
        result[lost] = np.copysign(_largest(target), array[lost]).astype(target)
    return result


def _largest(target: np.dtype[Any]) -> float:
    return _LARGEST_BFLOAT16 if target.name == "bfloat16" else float(np.finfo(target).max)
