"""What tests of files of TensorFlow and Keras have in common."""

from __future__ import annotations

import numpy as np
import pytest

from annex_tests.support.handmade_tensorflow import (
    entry,
    index,
)
from conformance.support.shared import shared

h5py = pytest.importorskip("h5py", reason="h5py is not installed")
RNG = np.random.default_rng(11)


def case(name):
    """One of the inputs that came with a report."""
    return shared(f"cases/tensorflow/{name}")


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
