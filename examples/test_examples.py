"""The examples run, and show what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

EXAMPLES = Path(__file__).parent
ENVIRONMENT = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"}


def run(script: str, *arguments: str | Path) -> str:
    command = [sys.executable, EXAMPLES / script, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120, env=ENVIRONMENT).stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("demo")
    return run("digits_demo.py", "--keep", folder), folder


def percentages(output: str, row: str) -> list[float]:
    (line,) = (line for line in output.splitlines() if row in line)
    return [float(word.strip("()")) for word, unit in zip(line.split(), line.split()[1:], strict=False) if "%" in unit]


def test_the_demo_keeps_the_accuracy_of_the_digits_model(demo: tuple[str, Path]) -> None:
    before, after = percentages(demo[0], "accuracy")
    assert before > 99
    assert after > before - 0.5


def test_the_demo_reports_the_size_that_its_file_has_and_it_is_below_a_quarter(demo: tuple[str, Path]) -> None:
    output, folder = demo
    size = (folder / "digits.nnr").stat().st_size
    assert f"{size} (" in output
    assert size < (EXAMPLES / "digits.onnx").stat().st_size / 4


def test_the_restored_model_has_the_structure_of_the_original(demo: tuple[str, Path]) -> None:
    original, restored = onnx.load(EXAMPLES / "digits.onnx"), onnx.load(demo[1] / "digits.onnx")
    for before, after in zip(original.graph.initializer, restored.graph.initializer, strict=True):
        values = onnx.numpy_helper.to_array(before), onnx.numpy_helper.to_array(after)
        np.testing.assert_allclose(values[1], values[0], atol=0.05)
        before.ClearField("raw_data")
        after.ClearField("raw_data")
    assert restored == original


def test_a_quarter_of_the_images_is_held_out() -> None:
    code = "import digits_data; print(*(part.images.shape for part in digits_data.split()))"
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, cwd=EXAMPLES).stdout
    assert output == "(1347, 1, 8, 8) (450, 1, 8, 8)\n"
