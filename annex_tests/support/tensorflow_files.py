"""What tests of files of TensorFlow and Keras have in common."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from annex_tests.support.handmade_tensorflow import (
    entry,
    index,
)

h5py = pytest.importorskip("h5py", reason="h5py is not installed")
SHARED = Path(os.environ.get("NNC_SHARED", Path(__file__).resolve().parents[2].parent / "shared")) / "cases"
RNG = np.random.default_rng(11)


def case(name):
    """One of the inputs that came with a report."""
    path = SHARED / "tensorflow" / name
    if not path.exists():
        pytest.skip(f"there is no {path}; set NNC_SHARED")
    return path


def checkpoint(folder, arrays):
    """A checkpoint with these arrays by their keys."""
    folder.mkdir(parents=True)
    data, pairs = b"", []
    for key, array in sorted(arrays.items()):
        pairs.append((key, entry(array, offset=len(data))))
        data += array.tobytes()
    (folder / "c.data-00000-of-00001").write_bytes(data)
    (folder / "c.index").write_bytes(index(*pairs))
    return folder


def values(path, arrays):
    """The arrays in a checkpoint that `checkpoint` made."""
    data, at, found = next(path.glob("*.data-*")).read_bytes(), 0, {}
    for key, array in sorted(arrays.items()):
        found[key] = np.frombuffer(data, array.dtype, array.size, at).reshape(array.shape)
        at += array.nbytes
    return found
