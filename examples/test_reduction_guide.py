"""What docs/reduction.md shows works as it stands there, and its table is what the example prints."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).with_name("reduce_and_compress.py")
GUIDE = (Path(__file__).parents[1] / "docs" / "reduction.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
PRUNED = """
import torch
from torch.nn.utils import prune
module = torch.nn.Linear(64, 32)
prune.ln_structured(module, "weight", amount=0.25, n=2, dim=0)
torch.save(module.state_dict(), "pruned.pt")
"""


needs_torch = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("sklearn") is None, reason="needs torch and sklearn"
)


@pytest.mark.parametrize("block", [text for language, text in BLOCKS if language == "python"], ids=lambda b: b[-40:-1])
def test_the_python_of_the_guide_works(block: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", block], check=True, timeout=100)


@needs_torch
def test_the_commands_of_the_guide_work(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", PRUNED], check=True, cwd=tmp_path, timeout=100)
    lines = [line for language, text in BLOCKS if not language for line in text.splitlines()]
    assert len(lines) == 5
    for line in lines:
        command = [sys.executable, "-m", "nnc_adapters.cli", *shlex.split(line)[1:]]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert result.returncode == 0, (line, result.stderr)
    assert (tmp_path / "small.nnr").stat().st_size < (tmp_path / "pruned.nnr").stat().st_size


@needs_torch
def test_each_reduction_makes_the_digits_network_smaller() -> None:
    """The sizes depend on how a processor rounds, their order does not."""
    output = subprocess.run([sys.executable, EXAMPLE], check=True, capture_output=True, text=True, timeout=240).stdout
    rows = [re.findall(r"([\d.]+)", line) for line in output.splitlines()]
    sizes, right, parameters = zip(*([float(number) for number in row] for row in rows), strict=True)
    assert sizes[0] > sizes[1] > sizes[2]
    assert min(right) >= 95
    assert parameters[2] < parameters[0] / 3
