"""The examples run, and show what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest

EXAMPLES = Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "COLUMNS": "120",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
}
LARGEST_LOSS = 0.3


def needs(*packages: str) -> pytest.MarkDecorator:
    """Skip a test where a package is not installed; does not import it."""
    missing = [package for package in packages if find_spec(package) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def run(script: str, *arguments: str | Path) -> str:
    command = [sys.executable, EXAMPLES / script, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=240, env=ENVIRONMENT).stdout


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


@pytest.fixture(scope="module")
def formats() -> dict[tuple[str, str], list[str]]:
    """The rows of the table of formats, by format and setting."""
    lines = run("accuracy_by_format.py", "--quick").splitlines()
    rows = [[cell.split(" %")[0].strip() for cell in line.strip("│").split("│")] for line in lines if line[:1] == "│"]
    return {(name, setting): cells for name, setting, *cells in rows}


EVERY_FORMAT = [
    "ONNX",
    pytest.param("NNEF", marks=needs("nnef", "nnef_tools", "torch")),
    pytest.param("PyTorch", marks=needs("torch")),
    pytest.param("Keras", marks=needs("keras", "tensorflow", "h5py")),
]


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_no_format_loses_accuracy(formats: dict[tuple[str, str], list[str]], name: str) -> None:
    before, right, *_ = formats[name, "original"]
    after, right_after, *_ = formats[name, "level 5"]
    assert float(right) > 99
    assert float(right_after) >= float(right) - LARGEST_LOSS
    assert int(after) < int(before) / 4


@pytest.mark.parametrize("name", EVERY_FORMAT)
def test_calibration_keeps_accuracy_and_outputs_in_every_format(
    formats: dict[tuple[str, str], list[str]], name: str
) -> None:
    for setting in ("level 5", "2 bits"):
        size, right, error, size_calibrated, right_calibrated, error_calibrated = formats[name, setting]
        assert int(size_calibrated) < 1.02 * int(size)
        assert float(error_calibrated.split()[0]) < float(error.split()[0]) - 15
        assert float(right_calibrated) >= max(float(right), 99)


@needs("nnef")
def test_an_nnef_archive_carries_a_bitstream_for_each_tensor_and_its_graph_unchanged(tmp_path: Path) -> None:
    output = run("nnef_archive.py", "--keep", tmp_path)
    plain, carrier, restored = (tmp_path / f"digits{end}.nnef" for end in ("", "-nnr", "-restored"))
    assert {path.stem for path in carrier.glob("*.nnr")} == {path.stem for path in plain.glob("*.dat")}
    assert {path.name for path in restored.iterdir()} == {path.name for path in plain.iterdir()}
    graphs = {(archive / "graph.nnef").read_bytes() for archive in (plain, carrier, restored)}
    assert len(graphs) == 1
    assert "graph.nnef is the same in all three archives" in output
    assert "in the restored archive it is the same" in output


@needs("keras", "tensorflow", "google_crc32c")
def test_a_saved_model_predicts_after_coding_as_before(tmp_path: Path) -> None:
    output = run("savedmodel.py", "--keep", tmp_path)
    assert (tmp_path / "digits" / "saved_model.pb").read_bytes() == (
        tmp_path / "digits-restored" / "saved_model.pb"
    ).read_bytes()
    assert (tmp_path / "digits.nnr").stat().st_size < 60_000
    (line,) = (line for line in output.splitlines() if line.startswith("accuracy"))
    before, after = (float(word) for word in line.split() if word[0].isdigit())
    assert before > 99
    assert after >= before - LARGEST_LOSS


@needs("torch", "sklearn")
def test_no_task_loses_accuracy() -> None:
    lines = run("accuracy_by_task.py", "--folds", "1", "--epochs", "8").splitlines()
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert len(rows) == 3
    for _, before, after, percent, *accuracies in rows:
        right, right_after = (float(cell.removesuffix(" %")) for cell in accuracies)
        assert right > 75
        assert right_after >= right - 0.6  # one of 180 answers
        assert int(after) < 0.4 * int(before)
        assert percent == f"{100 * int(after) / int(before):.1f} %"


@needs("keras", "tensorflow")
def test_nnr_is_smaller_than_zipped_int8_where_both_lose_the_same() -> None:
    lines = run("beside_tflite.py").splitlines()
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert [name for name, *_ in rows] == ["digits", "dense"]
    for _, _, int8, error, ours, our_error, same, same_error, _ in rows:
        assert float(same_error) <= float(error)
        assert int(same) < int(int8)
        assert int(ours) < int(int8)
        assert float(our_error) < -35
