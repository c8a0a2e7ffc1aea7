"""The examples about frameworks and single tensors run, and show what they promise."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(script: str, *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / script), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=200, env=ENVIRONMENT).stdout


def test_digits_are_read_as_well_in_tensorflow_as_in_pytorch() -> None:
    for package in ("torch", "tensorflow", "keras", "h5py", "sklearn"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    output = run("pytorch_to_tensorflow.py")
    (percent,) = re.findall(r"as NNR \(([\d.]+) %\)", output)
    before, after = map(float, re.findall(r"([\d.]+)% in", output))
    assert float(percent) < 40
    assert before > 95
    assert abs(before - after) <= 0.5


def test_one_tensor_of_a_large_model_takes_a_fraction_of_its_bytes_and_time() -> None:
    output = run("random_access.py", "--megabytes", "16")
    numbers = {line.split("  ")[0].strip(): re.findall(r"[\d.]+", line) for line in output.splitlines()}
    one = re.search(r"one tensor ([\d.]+) ms, \d+ bytes \(([\d.]+) %", output)
    assert one is not None
    assert float(one[1]) < float(numbers["all"][0])
    assert float(one[2]) < 100 / 15
    assert "the same tensor among them" in output
