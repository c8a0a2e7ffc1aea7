"""The blocks of code in documents, and how they are run.

A document is a story: its blocks are run in their order, in one folder and, those in Python, with the same variables.
What else a block needs stands in a comment above it, which no reader sees:

    <!-- test: exit: 5 -->                     the exit code of its last command
    <!-- test: needs: torch, git-lfs -->       packages or programs; it is skipped where one is missing
    <!-- test: file: net.py -->                it is the content of a file
    <!-- test: scene: folded -->               scenes.py prepares more files
    <!-- test: elsewhere: make demo -->        a target of the Makefile, or a file of tests, that runs it
    <!-- test: untested: uploads something --> the reason

Several are separated by semicolons. A block of text is what the block before it prints, up to an ellipsis.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from nnc_adapters.cli import main

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", "docs/**/*.md", "adapters/*.md", "conformance/suite/*.md", "examples/*.md")
    for path in ROOT.glob(pattern)
)
_BLOCK = re.compile(
    r"(?:^<!-- test: (?P<remarks>.*?) -->\n+)?^```(?P<language>[\w{}-]*)\n(?P<text>.*?)^```$", re.M | re.S
)
_SHELL = re.compile(r"[|<>&$`*;]|^(?!nnc )")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code, its place, and what the comment above it says."""

    language: str
    text: str
    line: int
    remarks: dict[str, str]


def text_of(document: str) -> str:
    return (ROOT / document).read_text("utf-8")


def blocks(document: str) -> list[Block]:
    """The blocks of a document, in order, without directives of the site."""
    return [block for block in _blocks(text_of(document)) if not block.language.startswith("{")]


def _blocks(text: str) -> Iterator[Block]:
    for found in _BLOCK.finditer(text):
        remarks = dict(remark.split(": ", 1) for remark in (found["remarks"] or "").split("; ") if remark)
        yield Block(found["language"], found["text"], text.count("\n", 0, found.end("language")) + 1, remarks)


def missing(names: str) -> list[str]:
    """Which of these packages and programs are not here."""
    return [name for name in names.split(", ") if name and not (shutil.which(name) or _is_package(name))]


def _is_package(name: str) -> bool:
    return name.isidentifier() and find_spec(name) is not None


@dataclass(slots=True)
class Story:
    """Runs the blocks of one document in the working folder."""

    document: str
    prepare: Callable[[str], None]
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "story"})
    printed: str = ""
    skipped: list[str] = field(default_factory=list)

    def tell(self, block: Block) -> None:
        """Run a block, or say why not."""
        remarks = block.remarks
        if remarks.keys() & {"elsewhere", "untested"}:
            return
        if absent := missing(remarks.get("needs", "")):
            self.skipped.append(f"line {block.line} needs {' and '.join(absent)}")
            return
        if "scene" in remarks:
            self.prepare(remarks["scene"])
        if "file" in remarks:
            Path(remarks["file"]).write_text(block.text, "utf-8")
        else:
            _RUNNERS[block.language](self, block)

    def shell(self, block: Block) -> None:
        code = int(block.remarks.get("exit", 0))
        text = re.sub(r"(^|  +)#.*", "", block.text.replace("\\\n", " "), flags=re.M)
        lines = [line for line in text.splitlines() if line]
        if any(_SHELL.search(line) for line in lines):
            self._bash(block, text, code)
        else:
            self._commands(lines, code)

    def _bash(self, block: Block, text: str, code: int) -> None:
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", text], capture_output=True, text=True, timeout=120)
        self.printed = done.stdout + done.stderr
        assert done.returncode == code, f"{self.document}:{block.line}\n{self.printed}"

    def _commands(self, lines: list[str], code: int) -> None:
        """Commands of ours alone need no process of their own."""
        for line in lines:
            done = CliRunner().invoke(main, shlex.split(line)[1:], prog_name="nnc")
            self.printed = done.output
            assert done.exit_code == (code if line is lines[-1] else 0), f"{self.document}: {line}\n{done.output}"

    def python(self, block: Block) -> None:
        exec(compile("\n" * block.line + block.text, self.document, "exec"), self.names)

    def output(self, block: Block) -> None:
        expected, _, _ = block.text.partition("...")
        assert " ".join(expected.split()) in " ".join(self.printed.split())

    def json(self, block: Block) -> None:
        json.loads(block.text)

    def toml(self, block: Block) -> None:
        tomllib = __import__("tomllib" if sys.version_info >= (3, 11) else "tomli")
        tomllib.loads(block.text)


_RUNNERS: dict[str, Callable[[Story, Block], None]] = {
    "sh": Story.shell,
    "python": Story.python,
    "text": Story.output,
    "json": Story.json,
    "toml": Story.toml,
}


def environment(home: Path) -> dict[str, str]:
    """Variables for programs that would write to a person's home, or ask who that is."""
    folders = {name: str(home / name) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    person = {f"GIT_{role}_{key}": "nobody" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**folders, **person, "PATH": path, "GIT_CONFIG_NOSYSTEM": "1"}
