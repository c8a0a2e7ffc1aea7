"""What the README tells readers to type works, in this order, as it stands there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NNC = [sys.executable, "-m", "nnc_adapters.cli"]


def blocks(language: str) -> list[str]:
    """The blocks of the README in a language; those of the shell say none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [block for name, block in found if name == language]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the models that the README speaks of."""
    shutil.copy(ROOT / "examples" / "digits.onnx", tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def commands() -> list[list[str]]:
    lines = (line for block in blocks("") for line in block.splitlines() if line.startswith("nnc "))
    return [shlex.split(line, comments=True)[1:] for line in lines]


def test_the_commands_work_one_after_the_other(folder: Path) -> None:
    for package in ("torch", "keras", "tensorflow", "h5py", "onnxruntime"):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    subprocess.run([sys.executable, "-c", MODELS], check=True, capture_output=True, timeout=200)
    assert {command[0] for command in commands()} >= {"compress", "inspect", "verify", "decompress", "embed", "convert"}
    for command in commands():
        result = subprocess.run([*NNC, *command], capture_output=True, text=True, timeout=100)
        assert result.returncode == 0, (command, result.stderr)
    assert (folder / "again.nnr").read_bytes() == (folder / "model.nnr").read_bytes()
    assert (folder / "restored.onnx").read_bytes() == (folder / "into.onnx").read_bytes()


MODELS = """
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


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.split()[1])
@pytest.mark.usefixtures("folder")
def test_the_python_works(block: str) -> None:
    if "torch" in block and find_spec("torch") is None:
        pytest.skip("torch is not installed")
    subprocess.run([sys.executable, "-W", "error", "-c", block], check=True, timeout=100)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / "README.md").read_text("utf-8"))
    assert links
    assert all((ROOT / link).exists() for link in links)
