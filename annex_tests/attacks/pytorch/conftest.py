"""What the tests in this folder share."""

from __future__ import annotations

import pytest

from nnc_adapters.pytorch import PytorchAdapter


@pytest.fixture(scope="session")
def torch():
    found = pytest.importorskip("torch", reason="PyTorch is not installed")
    found.set_num_threads(1)
    return found


@pytest.fixture
def adapter():
    return PytorchAdapter()


@pytest.fixture
def canary(tmp_path):
    """A file that appears when code runs."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


@pytest.fixture
def read(adapter, tmp_path):
    def call(data, name="m.pt"):
        (tmp_path / name).write_bytes(data)
        model = adapter.read(tmp_path / name)
        for array in model.tensors.values():
            assert array.nbytes <= len(data)
        return model

    return call
