"""The files that documents speak of: models as small as they can be."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from annex_tests.documents.blocks import ROOT


def model() -> None:
    """The network that examples/ has, under the names that documents give it."""
    shutil.copy(ROOT / "examples" / "digits.onnx", "model.onnx")


def zoo() -> None:
    """Several models, some of them in folders."""
    Path("zoo/below").mkdir(parents=True)
    for place in ("model.onnx", "other.onnx", "zoo/below/third.onnx"):
        shutil.copy(ROOT / "examples" / "digits.onnx", place)


def examples() -> None:
    """The folder of examples, as in a clone."""
    Path("examples").mkdir()
    shutil.copy(ROOT / "examples" / "digits.onnx", "examples/digits.onnx")


def frameworks() -> None:
    """A model in each of many formats."""
    model()
    _run(
        """
import torch, keras, numpy as np
keras.Sequential([keras.layers.Input((64,)), keras.layers.Dense(32)]).export("saved_model", verbose=0)
keras.Sequential([keras.layers.Input((64,)), keras.layers.Dense(32)]).save("template.keras")
network = torch.nn.Linear(64, 32)
optimizer = torch.optim.Adam(network.parameters())
network(torch.randn(8, 64)).square().sum().backward()
optimizer.step()
torch.save({"model": network.state_dict(), "optimizer": optimizer.state_dict()}, "checkpoint.pt")
torch.save(network.state_dict(), "net.pt")
np.savez("inputs.npz", image=np.random.default_rng(1).random((32, 1, 8, 8), np.float32))
"""
    )


def versions() -> None:
    """Three versions of a network."""
    import safetensors.numpy

    rng = np.random.default_rng(0)
    weights = {"layer.weight": rng.normal(0, 0.1, (24, 16)), "layer.bias": rng.normal(0, 1, 24)}
    for number in range(3):
        arrays = {name: w.astype(np.float32) for name, w in weights.items()}
        safetensors.numpy.save_file(arrays, f"v{number}.safetensors")
        weights = {name: w + rng.normal(0, 1e-4, w.shape) for name, w in weights.items()}


def hub() -> None:
    """A model, and a folder as hubs have it."""
    import safetensors.numpy

    model()
    Path("encoder").mkdir()
    Path("encoder/config.json").write_text('{"model_type": "bert"}')
    Path("encoder/README.md").write_text("# Encoder\n")
    matrix = np.random.default_rng(0).normal(0, 0.1, (64, 64)).astype(np.float32)
    safetensors.numpy.save_file({"layer.weight": matrix}, "encoder/model.safetensors")


def checkpoint() -> None:
    """A folder of shards with their index, as hubs have it."""
    import safetensors.numpy

    Path("llama").mkdir()
    rng, weight_map = np.random.default_rng(0), {}
    for number in range(1, 5):
        name, file = f"model.layers.{number}.weight", f"model-{number:05d}-of-00004.safetensors"
        matrix = rng.normal(0, 0.02 * number, (32, 48)).astype(np.float32)
        safetensors.numpy.save_file({name: matrix}, f"llama/{file}")
        weight_map[name] = file
    Path("llama/model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    Path("llama/config.json").write_text('{"model_type": "llama"}')


def pruned() -> None:
    """A layer with the masks that PyTorch puts beside pruned weights."""
    _run(
        """
import torch
from torch.nn.utils import prune
module = torch.nn.Linear(64, 32)
prune.ln_structured(module, "weight", amount=0.25, n=2, dim=0)
torch.save(module.state_dict(), "pruned.pt")
"""
    )


def folded() -> None:
    """A network with batch normalization, and its export without."""
    Path("bn.py").write_text(_NORMALIZED)
    _run(
        """
import torch, bn
net = bn.Net()
net[1].running_var.uniform_(0.5, 1.5)
net[1].running_mean.uniform_(-1, 1)
torch.save(net.state_dict(), "bn.pt")
torch.onnx.export(net, torch.zeros(1, 1, 8, 8), "folded.onnx", dynamo=False)
"""
    )


_NORMALIZED = """
import torch
def Net():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU()).eval()
"""


def _run(program: str) -> None:
    """Frameworks warn about themselves and each other, and are slow to let go: they have a process of their own."""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, timeout=200)


FIRST: dict[str, Callable[[], None]] = {
    "README.md": examples,
    "docs/formats.md": frameworks,
    "docs/choosing.md": model,
    "docs/index.md": model,
    "docs/command-line.md": zoo,
    "docs/recipes.md": hub,
    "docs/reduction.md": pruned,
    "docs/sharded.md": checkpoint,
    "docs/updates.md": versions,
}
"""What is there before the first block of a document."""

LATER: dict[str, Callable[[], None]] = {"folded": folded}
"""What a comment asks for in the middle of one."""


def _same(first: str, second: str) -> bool:
    return Path(first).read_bytes() == Path(second).read_bytes()


def _patched() -> bool:
    return Path("patched.onnx").stat().st_size == Path("restored.onnx").stat().st_size


def _formats_done() -> bool:
    return _same("again.nnr", "model.nnr") and _same("restored.onnx", "into.onnx")


def _zoo_done() -> bool:
    left = list(Path("coded").rglob("*.nnr"))
    return Path("restored/below/third.onnx").is_file() and Path("curve.html").is_file() and not left


def _checkpoint_done() -> bool:
    shard = "model-00002-of-00004.safetensors"
    return _same("one.safetensors", f"restored/{shard}") and Path("threads.nnr/config.json").is_file()


def _pruned_done() -> bool:
    return Path("small.nnr").stat().st_size < Path("pruned.nnr").stat().st_size


def _versions_done() -> bool:
    import safetensors.numpy

    made = {
        name: safetensors.numpy.load_file(f"{name}.safetensors") for name in ("restored", "both", "folded", "v1", "v2")
    }
    pairs = (("restored", "v1"), ("both", "v2"), ("folded", "v2"))
    return all(np.array_equal(made[a][name], made[b][name]) for a, b in pairs for name in made[b])


DONE: dict[str, Callable[[], bool]] = {
    "README.md": _patched,
    "docs/formats.md": _formats_done,
    "docs/command-line.md": _zoo_done,
    "docs/reduction.md": _pruned_done,
    "docs/sharded.md": _checkpoint_done,
    "docs/updates.md": _versions_done,
}
"""Whether the files that a document makes are what it says."""
