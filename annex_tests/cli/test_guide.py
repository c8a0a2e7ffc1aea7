"""The configuration that docs/command-line.md shows, and the tasks with which the help begins."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from annex_tests.documents.blocks import blocks
from annex_tests.support.program import nnc
from nnc_adapters.cli import SUMMARIES, main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "zoo" / "below").mkdir(parents=True)
    for place in ("model.onnx", "other.onnx", "zoo/below/third.onnx"):
        shutil.copy(ROOT / "examples" / "digits.onnx", tmp_path / place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    return tmp_path


def test_the_configuration_is_taken(folder: Path) -> None:
    (configuration,) = (block.text for block in blocks("docs/command-line.md") if block.language == "toml")
    (folder / "nnc.toml").write_text(configuration)
    done = nnc("compress", "-v", "model.onnx")
    assert done.exit_code == 0, done.output
    assert "conv1.weight: quantized in steps of 3.05e-05 (qp -60), the given qp" in done.stderr
    assert 0.195 * 155868 < (folder / "model.nnr").stat().st_size <= 0.2 * 155868
    assert nnc("verify", "model.onnx", "model.nnr").exit_code == 0


def test_the_help_begins_with_common_tasks_that_work(folder: Path) -> None:
    text = nnc("--help").output
    tasks = re.findall(r"^    (nnc .*?)  +.*$", text, re.MULTILINE)
    assert len(tasks) >= 6
    shutil.copy("model.onnx", "old.onnx")
    shutil.copy("other.onnx", "new.onnx")
    for task in tasks:
        done = nnc(*shlex.split(task)[1:])
        assert done.exit_code == 0, f"{task}\n{done.output}"


def test_the_help_says_how_to_get_one_tensor_in_python(folder: Path) -> None:
    text = nnc("--help").output
    (line,) = re.findall(r"^    (nnc_core\.open\(.*?\)\[.*?\])", text, re.MULTILINE)
    nnc("compress", "model.onnx")
    array = eval(line.replace("layer.weight", "hidden.weight"), {"nnc_core": __import__("nnc_core")})
    assert array.shape == (64, 512)


@pytest.mark.parametrize("name", ["compress", "decompress", "verify", "report", "convert"])
def test_the_options_of_large_commands_stand_in_sections(name: str) -> None:
    text = nnc(name, "--help").output
    for param in main.commands[name].params:
        for option in param.opts:
            assert not option.startswith("--") or option in text, option
    assert {"Files:", "General:"} <= set(text.splitlines())
    assert name in SUMMARIES
