"""Calibration inputs as files: archives of numpy, with an array for each input of a model."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import ModelError
from nnc_core.limits import Limits

__all__ = ["read_inputs"]


def read_inputs(path: Path, limits: Limits) -> dict[str, NDArray[Any]]:
    """The arrays in an ``.npz`` file; `ModelError` for another file, `LimitError` for too many bytes."""
    try:
        with zipfile.ZipFile(path) as archive:
            limits.check("decoded_bytes", sum(member.file_size for member in archive.infolist()))
        with np.load(path, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, NotImplementedError, MemoryError) as error:
        raise ModelError(f"not an .npz file of calibration inputs: {error}", file=str(path)) from error
