"""Parts of files as arrays."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import ModelError
from nnc_core.stored import StoredBytes

__all__ = ["window"]


def window(file: Path | BinaryIO, start: int, size: int) -> NDArray[np.uint8]:
    """``size`` bytes from ``start``, read when this is called; `ModelError` where the file does not have them."""
    stored = StoredBytes(file)
    if start + size > len(stored):
        name = str(file) if isinstance(file, Path) else None
        raise ModelError(f"cannot read {size} bytes at byte {start} of {len(stored)}", file=name)
    array = np.empty(size, np.uint8)
    stored.fill(array, start)
    array.flags.writeable = False
    return array
