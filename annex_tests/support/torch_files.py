"""What tests of files of PyTorch have in common."""

from __future__ import annotations

import pytest

from conformance.support.shared import shared
from nnc_adapters.base import Options

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
safetensors = pytest.importorskip("safetensors.torch", reason="safetensors is not installed")
prune = pytest.importorskip("torch.nn.utils.prune")
OPAQUE = Options(opaque=True)


def case(name):
    """One of the inputs that came with a report."""
    return shared(f"cases/pytorch/{name}")


def tensors(path):
    """The tensors in a file, by the keys that lead to them."""
    if path.suffix == ".safetensors":
        return safetensors.load_file(path)
    return dict(_inside(torch.load(path, weights_only=False), ()))


def _inside(value, path):
    if isinstance(value, torch.Tensor):
        yield ".".join(path), value
    for key, inner in value.items() if isinstance(value, dict) else ():
        yield from _inside(inner, (*path, str(key)))


def same(first, second):
    return first.dtype == second.dtype and torch.equal(first.view(torch.uint8), second.view(torch.uint8))


def linear():
    return torch.nn.Sequential(torch.nn.Linear(24, 32))


def near(module, weight):
    return (module.state_dict()[next(iter(module.state_dict()))] - weight).abs().max() < 0.05
