"""``nnc.toml``: what a project wants every time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from annex_tests.support.program import Nnc

PROJECT = """
rules = ["out=exact=1"]

[compress]
level = 1
target-size = "15%"

[[compress.rule]]
match = "conv1"
qp = -20
dq = false

[verify]
min-sqnr = 15
"""


@pytest.fixture
def project(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model and a configuration, in which the program runs."""
    (model.parent / "nnc.toml").write_text(PROJECT)
    monkeypatch.chdir(model.parent)
    return model.parent


def compressed(nnc: Nnc, *arguments: str | Path) -> Any:
    result = nnc("compress", "model.onnx", "-f", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def headers(nnc: Nnc) -> dict[str, Any]:
    units = json.loads(nnc("inspect", "--json", "model.nnr").stdout)["units"]
    return {unit["names"][0]: unit["header"] for unit in units if unit["names"]}


def test_targets_and_rules_are_those_of_the_project(nnc: Nnc, project: Path) -> None:
    assert 10 < compressed(nnc)["percent"] <= 15
    assert headers(nnc)["conv1.weight"]["dq_flag"] is False
    found = json.loads(nnc("verify", "model.onnx", "model.nnr", "--json").stdout)
    exact = {tensor["name"]: tensor["exact_because"] for tensor in found["tensors"] if tensor["exact"]}
    assert exact["out.weight"] == "a rule"


def test_the_file_counts_in_folders_below_as_well(nnc: Nnc, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "below").mkdir()
    (project / "model.onnx").rename(project / "below/model.onnx")
    monkeypatch.chdir(project / "below")
    assert compressed(nnc)["percent"] <= 15


def test_the_command_line_counts_more(nnc: Nnc, project: Path) -> None:
    assert compressed(nnc, "--target-size", "20%")["percent"] > 15
    assert compressed(nnc, "--qp", "-38")["percent"] > 15  # another target altogether
    assert compressed(nnc, "--lossless")["percent"] > 50


def test_rules_of_the_command_line_come_after_those_of_the_file(nnc: Nnc, project: Path) -> None:
    compressed(nnc, "--rule", "conv1=dq=1")
    assert headers(nnc)["conv1.weight"]["dq_flag"] is True
    compressed(nnc, "--rule", "conv2=dq=0")
    assert (headers(nnc)["conv1.weight"]["dq_flag"], headers(nnc)["conv2.weight"]["dq_flag"]) == (False, False)


def test_a_file_can_be_named_and_switched_off(nnc: Nnc, project: Path) -> None:
    (project / "other.toml").write_text('target-size = "10%"')
    assert compressed(nnc, "--config", project / "other.toml")["percent"] <= 10
    assert compressed(nnc, "--no-config")["percent"] > 15


def test_verbose_commands_name_the_file(nnc: Nnc, project: Path) -> None:
    assert "nnc.toml" in nnc("compress", "-v", "-f", "model.onnx").stderr


def test_paths_count_from_the_folder_of_the_file(nnc: Nnc, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "nnc.toml").write_text('[compress]\ncalibrate = "absent.npz"')
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    result = nnc("compress", "../model.onnx", "-f")
    assert result.exit_code == 5
    assert str(project / "absent.npz") in result.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("levl = 3", "no command has an option --levl"),
        ("[compress]\nmin-sqnr = 3", "nnc compress has no option --min-sqnr"),
        ("[compres]\nlevel = 3", "[compres] is not a command"),
        ("level = ", "is not a TOML file"),
        ("level = 12", "12 is not in the range"),
        ('rules = ["conv"]', "'conv' is not a rule"),
        ("force = true", "only be given on the command line"),
        ("[compress]\nopaque-objects = true", "only be given on the command line"),
    ],
)
def test_what_is_wrong_in_the_file_is_a_usage_error(nnc: Nnc, project: Path, text: str, told: str) -> None:
    (project / "nnc.toml").write_text(text)
    result = nnc("compress", "model.onnx", "-f")
    assert result.exit_code == 2
    assert told in result.stderr


def test_no_file_runs_code(nnc: Nnc, project: Path) -> None:
    (project / "nnc.toml").write_text('[convert]\nmodule = "evil.py:Net"')
    (project / "evil.py").write_text("raise SystemExit(99)")
    result = nnc("convert", "model.onnx", "out.onnx", "--into", "model.onnx")
    assert result.exit_code == 2
    assert "only be given on the command line" in result.stderr


def test_options_of_other_commands_do_no_harm(nnc: Nnc, project: Path) -> None:
    (project / "nnc.toml").write_text("min-sqnr = 10\nthreads = 1")
    compressed(nnc)
    assert nnc("verify", "model.onnx", "model.nnr", "--min-sqnr", "300").exit_code == 1


def test_a_file_that_is_absent_is_a_usage_error(nnc: Nnc, project: Path) -> None:
    result = nnc("compress", "model.onnx", "--config", "absent.toml")
    assert result.exit_code == 2
    assert "absent.toml" in result.stderr


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = " + "[" * 20_000, "nested too deep"),
        ("a = " + "{a = " * 10_000, "nested too deep"),
        ("[" + "a." * 40_000 + "a]", "more than 65536 bytes"),
        ("[" + "a." * 10_000 + "a]", "[a] is not a command"),
    ],
)
def test_a_file_that_was_made_to_keep_the_program_busy_is_refused(
    nnc: Nnc, project: Path, text: str, fault: str
) -> None:
    (project / "nnc.toml").write_text(text)
    result = nnc("compress", "model.onnx", "-f")
    assert result.exit_code == 2, result.output
    assert fault in result.stderr
