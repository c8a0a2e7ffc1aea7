"""The bytes of files, brought into memory where they are touched."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import ModelError

__all__ = ["mapped", "window"]


def mapped(file: Path | BinaryIO) -> memoryview:
    """All bytes of a file; the mapping ends with the last piece of it that is in use."""
    if isinstance(file, Path):
        with file.open("rb") as stream:
            return mapped(stream)
    if os.fstat(file.fileno()).st_size == 0:  # nothing can be mapped
        return memoryview(b"")
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def window(file: Path | BinaryIO, start: int, size: int) -> NDArray[np.uint8]:
    """``size`` bytes from ``start`` in a mapping of their own, so that what was touched is let go with the array.

    `ModelError` where the file has become shorter.
    """
    if size == 0:
        return np.empty(0, np.uint8)
    try:
        return np.asarray(np.memmap(file, np.uint8, "r", start, (size,)))
    except (OSError, ValueError) as error:
        name = str(file) if isinstance(file, Path) else None
        raise ModelError(f"cannot read {size} bytes at byte {start}: {error}", file=name) from error
