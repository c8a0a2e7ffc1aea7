"""Calibration inputs: archives of numpy, with an array for each input of a model, and batches that a model takes."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.records import dataclass

__all__ = ["Expected", "batches", "read_inputs"]

_BATCH = 16
"""How many inputs a model takes at once, if it does not say."""


def read_inputs(path: Path, limits: Limits) -> dict[str, NDArray[Any]]:
    """The arrays in an ``.npz`` file; `ModelError` for another file, `LimitError` for too many bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            limits.check("decoded_bytes", sum(member.file_size for member in archive.infolist()))
        with np.load(path, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, NotImplementedError, MemoryError) as error:
        raise ModelError(f"not an .npz file of calibration inputs: {error}", file=str(path)) from error


@dataclass(frozen=True, slots=True)
class Expected:
    """An input as a model declares it; None stands for any size."""

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


def batches(expected: Sequence[Expected], inputs: Mapping[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
    """Calibration inputs in batches of the size that the model takes; `ModelError` where they do not fit it."""
    names = [each.name for each in expected]
    for name in names:
        if name not in inputs:
            raise ModelError(f"the calibration inputs lack {name!r}; the model takes {', '.join(names)}")
    for name in inputs:
        if name not in names:
            raise ModelError(f"the calibration inputs have {name!r}; the model takes {', '.join(names)}")
    arrays = {each.name: _checked(each, np.asarray(inputs[each.name])) for each in expected}
    counts = {len(array) if array.ndim else 1 for array in arrays.values()}
    sizes = {each.shape[0] for each in expected if each.shape and each.shape[0] is not None}
    if len(counts) > 1 or not all(array.ndim for array in arrays.values()):
        yield arrays
        return
    (count,), size = counts, max(sizes, default=_BATCH)
    if sizes and (len(sizes) > 1 or count % size):
        raise ModelError(f"{count} calibration inputs do not make batches of {size}, which the model takes")
    for first in range(0, count, size):
        yield {name: array[first : first + size] for name, array in arrays.items()}


def _checked(expected: Expected, array: NDArray[Any]) -> NDArray[Any]:
    """The array in the type of an input; its first dimension may be any multiple of what the model takes."""
    where, wanted, shape = f"the calibration input {expected.name!r}", expected.dtype, expected.shape
    fits = array.ndim == len(shape) and all(w in (None, n) for w, n in zip(shape[1:], array.shape[1:], strict=True))
    if not fits:
        text = ", ".join("any" if each is None else str(each) for each in shape)
        raise ModelError(f"{where} has shape {array.shape}, and the model takes ({text})")
    if not array.size:
        raise ModelError(f"{where} is empty")
    if array.dtype.kind not in "biuf" or (array.dtype.kind == "f" and wanted.kind != "f"):
        raise ModelError(f"{where} has dtype {array.dtype}, and the model takes {wanted}")
    with np.errstate(over="ignore"):
        array = array.astype(wanted, copy=False)
    if wanted.kind == "f" and not np.isfinite(array).all():
        raise ModelError(f"{where} has values that are not finite")
    return array
