"""The table of docs/reduction.md is what the example prints."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).with_name("reduce_and_compress.py")

needs_torch = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("sklearn") is None, reason="needs torch and sklearn"
)


@needs_torch
def test_each_reduction_makes_the_digits_network_smaller() -> None:
    """The sizes depend on how a processor rounds, their order does not."""
    output = subprocess.run([sys.executable, EXAMPLE], check=True, capture_output=True, text=True, timeout=240).stdout
    rows = [re.findall(r"([\d.]+)", line) for line in output.splitlines()]
    sizes, right, parameters = zip(*([float(number) for number in row] for row in rows), strict=True)
    assert sizes[0] > sizes[1] > sizes[2]
    assert min(right) >= 95
    assert parameters[2] < parameters[0] / 3
