"""What documents tell a reader to type works, in the order in which it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from annex_tests.documents.blocks import DOCUMENTS, ROOT, Story, blocks, environment, text_of
from annex_tests.documents.scenes import DONE, FIRST, LATER
from nnc_adapters.cli import main

TOLD = [document for document in DOCUMENTS if blocks(document)]
PACKAGES = {
    "README.md": ("onnx",),
    "docs/formats.md": ("torch", "keras", "tensorflow", "h5py", "onnxruntime"),
    "docs/convert.md": ("torch", "keras", "onnxruntime"),
    "docs/recipes.md": ("onnx", "safetensors"),
    "docs/reduction.md": ("torch",),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, away from the person's own settings."""
    for name, value in environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(tmp_path / "work")
    return tmp_path / "work"


@pytest.mark.parametrize(
    "document",
    # exporters of frameworks warn about themselves and each other
    [pytest.param(d, marks=pytest.mark.filterwarnings("ignore") if "convert" in d else ()) for d in TOLD],
)
@pytest.mark.usefixtures("folder")
def test_the_blocks_of_a_document_work_one_after_the_other(document: str) -> None:
    for package in PACKAGES.get(document, ()):
        pytest.importorskip(package)
    FIRST.get(document, lambda: None)()
    story = Story(document, lambda scene: LATER[scene]())
    for block in blocks(document):
        story.tell(block)
    assert DONE.get(document, lambda: True)()
    if story.skipped:
        pytest.skip("; ".join(story.skipped))


@pytest.mark.parametrize("document", TOLD)
def test_every_block_has_a_language_and_remarks_that_are_known(document: str) -> None:
    text = re.sub(r"^```[\w{}-]+\n.*?^```$", "", text_of(document), flags=re.M | re.S)
    assert "```" not in text
    for block in blocks(document):
        assert block.remarks.keys() <= {"exit", "needs", "file", "scene", "elsewhere", "untested"}, block
    assert text_of(document).count("<!-- test:") == sum(bool(block.remarks) for block in blocks(document))


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.M))


@pytest.mark.parametrize("document", TOLD)
def test_what_runs_a_block_elsewhere_exists(document: str) -> None:
    for block in blocks(document):
        where = block.remarks.get("elsewhere", "make test")
        target = where.removeprefix("make ")
        assert target in targets() if target != where else (ROOT / where).is_file(), (document, block)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_targets_files_and_options_that_the_text_names_exist(document: str) -> None:
    for span in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", text_of(document), flags=re.M | re.S)):
        if target := re.match(r"make ([a-z-]+)", span):
            assert target[1] in targets(), span
        if program := re.match(r"(?:python )?((?:conformance|annex_tests|examples)/[\w/.]+)", span):
            assert (ROOT / program[1]).exists(), span
        if command := re.match(r"nnc ([a-z]+)\b(.*)", span):
            assert set(re.findall(r"--[a-z-]+", command[2])) <= options(command[1]), span


def options(command: str) -> set[str]:
    params = main.commands[command].params
    return {
        option for param in params if isinstance(param, click.Option) for option in (*param.opts, *param.secondary_opts)
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for link in re.findall(r"\]\((?!http)([^)#\s]+)\)", text_of(document)):
        assert (ROOT / document).parent.joinpath(link).exists(), link
