"""The notebooks in examples/ run, and print what they say they do."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from annex_tests.documents.blocks import ROOT
from annex_tests.documents.notebooks import kept, printed

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_cells_print_what_is_kept_in_the_notebook(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    monkeypatch.chdir(ROOT / "examples")
    cells = list(printed(json.loads(path.read_text("utf-8"))))
    assert len(cells) >= 5
    for cell, text in cells:
        assert _without_seconds(text) == _without_seconds(kept(cell)), cell["id"]


def _without_seconds(text: str) -> str:
    return re.sub(r"[\d.]+ s\b", "s", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_has_the_form_that_programs_expect(path: Path) -> None:
    notebook = json.loads(path.read_text("utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert path.stat().st_size < 50_000
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
