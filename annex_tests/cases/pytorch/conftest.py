"""What the tests in this folder share."""

from __future__ import annotations

import pytest

import nnc_adapters


@pytest.fixture(autouse=True)
def seed():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(17)
    torch.set_num_threads(1)


@pytest.fixture
def saved(tmp_path):
    """A file with a state: tensors in safetensors, anything else as PyTorch saves it."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")

    def save(state, **options):
        if all(isinstance(value, torch.Tensor) for value in state.values()) and not options:
            safetensors.save_file(state, tmp_path / "m.safetensors")
            return tmp_path / "m.safetensors"
        torch.save(state, tmp_path / "m.pt", **options)
        return tmp_path / "m.pt"

    return save


@pytest.fixture
def through(tmp_path):
    """A model after compressing and decompressing; what was done in between is in ``m.nnr``."""

    def call(path, **options):
        target = tmp_path / "restored" / path.name
        target.parent.mkdir(exist_ok=True)
        nnc_adapters.compress(path, tmp_path / "m.nnr", force=True, **options)
        opaque = {"opaque": True} if options.get("opaque") else {}
        nnc_adapters.decompress(tmp_path / "m.nnr", target, force=True, **opaque)
        return target

    return call
