"""Data types of decoded tensors: ``nnr_decompressed_data_format`` and numpy's."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import ElementValueError
from nnc_core.tables.code_points import DecompressedDataFormat

_DTYPES: Final[dict[int | None, type[np.generic]]] = {
    DecompressedDataFormat.INT32: np.int32,
    DecompressedDataFormat.FLOAT32: np.float32,
    DecompressedDataFormat.INT2: np.int8,
    DecompressedDataFormat.INT3: np.int8,
    DecompressedDataFormat.INT4: np.int8,
    DecompressedDataFormat.INT8: np.int8,
    DecompressedDataFormat.INT16: np.int16,
    DecompressedDataFormat.INT64: np.int64,
    DecompressedDataFormat.FLOAT16: np.float16,
    DecompressedDataFormat.FLOAT64: np.float64,
}
_FORMATS: Final = {
    "int8": DecompressedDataFormat.INT8,
    "int16": DecompressedDataFormat.INT16,
    "int64": DecompressedDataFormat.INT64,
    "float16": DecompressedDataFormat.FLOAT16,
    "float64": DecompressedDataFormat.FLOAT64,
}


@cache  # numpy takes its time to make a type
def output_dtype(data_format: int | None, integer: bool) -> np.dtype[Any]:
    """What ``nnr_decompressed_data_format`` asks for, if it is of the coded kind; otherwise int32 or float32."""
    default = np.dtype(np.int32 if integer else np.float32)
    wanted = np.dtype(_DTYPES.get(data_format, default))
    return wanted if wanted.kind == default.kind else default


@cache  # numpy takes longer to name a type than to quantize a small tensor
def data_format(dtype: np.dtype[Any]) -> DecompressedDataFormat | None:
    """The ``nnr_decompressed_data_format`` that asks for ``dtype``, where it is not what comes anyway."""
    return _FORMATS.get(dtype.name)


def converted(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """``array`` as C-contiguous ``dtype``; `ElementValueError` for integers that do not fit."""
    if array.dtype == dtype:
        return np.ascontiguousarray(array)
    if dtype.kind == "i":
        bounds = np.iinfo(dtype)
        if array.min() < bounds.min or array.max() > bounds.max:
            raise ElementValueError(f"integers do not fit {dtype}", element="nnr_decompressed_data_format")
    with np.errstate(over="ignore", invalid="ignore"):
        result = array.astype(dtype)
    if dtype == np.float16:
        # What was quantized was a half; the nearest multiple of the step may lie beyond all halves.
        beyond = np.isinf(result) & np.isfinite(array)
        result[beyond] = np.copysign(np.finfo(dtype).max, array[beyond])
    return np.ascontiguousarray(result)
