"""A bitstream to carry, with tensors of every kind and names that no file system likes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import nnc_core
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

TENSORS = {
    "conv": np.linspace(-1, 1, 96, dtype=np.float32).reshape(8, 12),
    "conv/weight": np.linspace(-2, 2, 64, dtype=np.float64),
    "steps": np.arange(-20, 20, dtype=np.int64).reshape(4, 10),
    "b": np.full(3, np.inf, np.float32),
    "Conv": np.zeros((5, 7), np.float16),
    "../évasion %2F\\C:\n.nnr": np.ones(40, np.float32),
    "..": np.ones(2, np.int8),
    "/a//b/": np.ones(2, np.int8),
    "CON": np.ones((2, 2, 2), np.int32),
}
TOPOLOGY = Topology(TopologyStorageFormat.NNR_TPL_UNREC, b"a description" * 10)


@pytest.fixture(scope="session")
def coded() -> bytes:
    return nnc_core.encode(TENSORS, topology=TOPOLOGY)


@pytest.fixture
def bitstream(tmp_path: Path, coded: bytes) -> Path:
    path = tmp_path / "coded.nnr"
    path.write_bytes(coded)
    return path
