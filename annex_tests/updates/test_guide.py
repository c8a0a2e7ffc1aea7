"""What docs/updates.md tells a reader to type works, in the order in which it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

from nnc_adapters.cli import main

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "updates.md"


def blocks(kind: str) -> str:
    return "\n".join(re.findall(rf"^```{kind}\n(.*?)^```$", GUIDE.read_text(), re.DOTALL | re.MULTILINE))


def version(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    weights = {"layer.weight": rng.normal(0, 0.1, (24, 16)), "layer.bias": rng.normal(0, 1, 24)}
    for _ in range(number):
        weights = {name: w + rng.normal(0, 1e-4, w.shape) for name, w in weights.items()}
    return {name: w.astype(np.float32) for name, w in weights.items()}


def test_the_commands_work_one_after_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        safetensors.numpy.save_file(version(number), f"v{number}.safetensors")
    commands = [line for line in blocks("").splitlines() if line.startswith("nnc ")]
    assert len(commands) == 11
    for command in commands:
        done = CliRunner().invoke(main, shlex.split(command, comments=True)[1:])
        assert done.exit_code == 0, f"{command}\n{done.output}"
    for name, number in (("restored", 1), ("both", 2), ("folded", 2)):
        found = safetensors.numpy.load_file(f"{name}.safetensors")
        assert all(np.array_equal(found[n], w) for n, w in version(number).items())


def test_the_python_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(blocks("python"), str(GUIDE), "exec"), {})
