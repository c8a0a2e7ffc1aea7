"""A disk that is full is one clear line, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

resource = pytest.importorskip("resource", reason="the system has no limit for the size of files")

NNC = [sys.executable, "-m", "nnc_adapters.cli"]
ROOM = 4096


def _small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))


def assert_leaves_nothing(arguments: list[str | Path], target: Path) -> None:
    before = set(target.parent.iterdir())
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [*NNC, *arguments, "-o", target]
    result = subprocess.run(command, capture_output=True, text=True, preexec_fn=_small_files, env=environment)
    assert result.returncode == 5, result.stderr
    assert result.stderr == f"error: {target}: File too large\n"
    assert set(target.parent.iterdir()) == before


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_models_and_bitstreams(command: str, model: Path, bitstream: Path, tmp_path: Path) -> None:
    assert_leaves_nothing([command, model if command == "compress" else bitstream], tmp_path / "target")


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("container", ["safetensors", "zip", "npz", "isobmff", "hdf5", "folder", "concatenation"])
def test_containers(container: str, per_tensor: bool, bitstream: Path, tmp_path: Path) -> None:
    if container == "hdf5" and find_spec("h5py") is None:
        pytest.skip("h5py is not installed")
    switch = ["--per-tensor"] if per_tensor else []
    assert_leaves_nothing(["embed", bitstream, "--container", container, *switch], tmp_path / "target")
