from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conformance.support.shared import shared
from nnc_adapters.pytorch import PytorchAdapter
from nnc_core.nnr_model import SourceModel

Identical = Callable[[Path], SourceModel]


@pytest.fixture(scope="session")
def torch() -> Any:
    found = pytest.importorskip("torch", reason="PyTorch is not installed")
    found.set_num_threads(1)
    found.manual_seed(17)
    return found


@pytest.fixture(scope="session")
def safetensors(torch: Any) -> Any:
    return pytest.importorskip("safetensors.torch", reason="safetensors is not installed")


@pytest.fixture
def adapter() -> PytorchAdapter:
    return PytorchAdapter()


@pytest.fixture
def identical(adapter: PytorchAdapter, tmp_path: Path) -> Identical:
    """Reads a model and writes it with its own tensors: not a byte may differ."""

    def check(source: Path) -> SourceModel:
        model = adapter.read(source)
        target = tmp_path / "identical"
        adapter.write(model.tensors, model.topology, target, force=True)
        assert contents(target) == contents(source)
        return model

    return check


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(path.iterdir())
    return {file.name if path.is_dir() else "": file.read_bytes() for file in files}


@pytest.fixture
def network(torch: Any) -> Any:
    """A small network with a layer of every common kind, in evaluation mode."""
    torch.manual_seed(17)
    nn = torch.nn
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 16, 2, stride=2, bias=False),
        nn.GroupNorm(4, 16),
        nn.Flatten(),
        nn.Linear(16 * 16 * 16, 20),
        nn.LayerNorm(20),
        nn.PReLU(20),
    )
    for parameter in layers.parameters():
        if parameter.ndim == 1:  # ones and zeros would not be worth coding
            parameter.data.normal_()
    layers[1].running_mean.normal_()
    layers[1].running_var.uniform_(0.5, 2)
    return layers.eval()


@pytest.fixture
def image(torch: Any) -> Any:
    return torch.linspace(-1, 1, 3 * 8 * 8).reshape(1, 3, 8, 8)


@pytest.fixture
def shared_models() -> Path:
    return shared("models")


@pytest.fixture
def save(torch: Any) -> Callable[..., Path]:
    """Saves a state in a file; gives its path."""

    def call(state: Any, path: Path, *, legacy: bool = False, **kwargs: Any) -> Path:
        torch.save(state, path, _use_new_zipfile_serialization=not legacy, **kwargs)
        return path

    return call
