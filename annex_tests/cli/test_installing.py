"""The manual, the completion of shells, and the programs of packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnc_core
from annex_tests.support.program import Nnc
from nnc_adapters.cli import SUMMARIES, main
from nnc_adapters.cli.man import pages


def test_there_is_a_page_for_every_command_with_every_option() -> None:
    found = dict(pages())
    assert found.keys() == {"nnc.1", *(f"nnc-{name}.1" for name in SUMMARIES)}
    for name in SUMMARIES:
        page = found[f"nnc-{name}.1"].replace("\\-", "-")
        options = [option for param in main.commands[name].params for option in param.opts if option.startswith("--")]
        assert all(option in page for option in options), name


def test_pages_are_read_without_warnings(tmp_path: Path) -> None:
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("groff is not installed")
    for name, text in pages():
        done = subprocess.run([groff, "-man", "-ww", "-Tascii"], input=text.encode(), capture_output=True, check=True)
        assert done.stderr == b"", name
        assert b"NAME" in re.sub(rb".\x08", b"", done.stdout)


def test_no_text_is_taken_for_a_request() -> None:
    lines = [line for _, text in pages() for line in text.splitlines()]
    requests = (".TH ", ".SH ", ".PP", ".TP", ".B ", ".BR ", ".nf", ".fi")
    assert all(line.startswith(requests) for line in lines if line.startswith((".", "'")))


def test_pages_are_installed_once(nnc: Nnc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert nnc("man", "--install").exit_code == 0
    assert (tmp_path / "man/man1/nnc-compress.1").read_text().startswith(".TH NNC-COMPRESS 1")
    assert nnc("man", "--install").exit_code == 5
    assert nnc("man", "--install", "-f").exit_code == 0


def test_a_page_goes_to_stdout(nnc: Nnc) -> None:
    assert nnc("man").stdout.startswith(".TH NNC 1")
    assert nnc("man", "report").stdout == dict(pages())["nnc-report.1"]
    assert nnc("man", "nothing").exit_code == 2


@pytest.mark.parametrize(
    ("shell", "place"),
    [
        ("bash", "data/bash-completion/completions/nnc"),
        ("zsh", "data/zsh/site-functions/_nnc"),
        ("fish", "config/fish/completions/nnc.fish"),
    ],
)
def test_completion_is_printed_and_installed(
    nnc: Nnc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shell: str, place: str
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    printed = nnc("completion", shell).stdout
    assert f"_NNC_COMPLETE={shell}_complete" in printed
    assert nnc("completion", shell, "--install").exit_code == 0
    assert (tmp_path / place).read_text() == printed


def test_completion_asks_for_a_shell_that_it_knows(nnc: Nnc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/tcsh")
    assert nnc("completion").exit_code == 2
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert "fish_complete" in nnc("completion").stdout


def completed(words: str) -> set[str]:
    program = "from nnc_adapters.cli import main; main(prog_name='nnc')"
    environment = {
        **os.environ,
        "_NNC_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


def test_commands_and_options_are_completed() -> None:
    assert completed("nnc comp") == {"compress", "completion"}
    assert {"--target-size", "--threads"} <= completed("nnc compress --t")
    assert completed("nnc inspect --sort si") == {"size"}


def test_the_packages_are_programs(tmp_path: Path) -> None:
    path = tmp_path / "w.nnr"
    nnc_core.write(path, {"w": np.eye(4, dtype=np.float32)})
    run = [sys.executable, "-m"]
    listed = subprocess.run([*run, "nnc_core", path], capture_output=True, text=True, check=True)
    assert "'w'  float32 [4, 4]" in listed.stdout
    for package in ("nnc_core", "nnc_adapters"):
        version = subprocess.run([*run, package, "--version"], capture_output=True, text=True, check=True)
        assert nnc_core.__version__ in version.stdout
    assert subprocess.run([*run, "nnc_core", __file__], capture_output=True, check=False).returncode == 1
    assert b"nnc_adapters" not in subprocess.run([*run, "nnc_core", "-h"], capture_output=True, check=True).stderr
