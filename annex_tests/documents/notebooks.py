"""Runs notebooks, and keeps what they print: ``python -m annex_tests.documents.notebooks examples/tour.ipynb``."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any


def printed(notebook: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Each cell of code, and what it prints when all before it have run."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            output = io.StringIO()
            with redirect_stdout(output):
                exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
            yield cell, output.getvalue()


def kept(cell: dict[str, Any]) -> str:
    """What a cell printed when its notebook was last kept."""
    return "".join(line for output in cell["outputs"] for line in output["text"])


def keep(path: Path) -> None:
    """Run a notebook and put into it what it prints."""
    notebook = json.loads(path.read_text("utf-8"))
    for count, (cell, text) in enumerate(printed(notebook), 1):
        cell["execution_count"] = count
        lines = text.splitlines(keepends=True)
        cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": lines}] if text else []
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
