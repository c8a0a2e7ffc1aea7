"""Data go to stdout, messages and progress to stderr."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nnc_adapters.reports import Progress as ProgressCallback

_PIPE_WIDTH = 10_000  # lines that another program reads are not to be folded
_NARROWEST = 20  # a folded column that is still readable
_GAP = 3


def printable(text: str) -> str:
    """Escape what is not printable: names come out of files, and a terminal obeys control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escape_what_cannot_be_encoded() -> None:
    """Let stdout write names that its encoding lacks as stderr does, with escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def message(text: str) -> None:
    """Tell a person something that is no result."""
    click.echo(printable(text), err=True)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON; see `plain`."""
    click.echo(json.dumps(plain(value), indent=2, allow_nan=False))


def plain(value: Any) -> Any:
    """What JSON can say: dataclasses as objects, enums as names, infinities and NaN as null, bytes as their number."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes | bytearray | memoryview):
        return f"{len(value)} bytes"
    if isinstance(value, IntEnum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def table(*columns: str) -> Table:
    """A table with these columns: ``>`` in front of a name aligns one right, ``~`` lets one be folded."""
    result = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        side: JustifyMethod = "right" if column[0] == ">" else "left"
        result.add_column(column.lstrip(">~"), justify=side, overflow="fold", no_wrap=column[0] != "~")
    return result


def print_table(content: Table) -> None:
    """Print a table as wide as the terminal, but readable; where stdout is none, as wide as it wants to be."""
    console = Console(markup=False, highlight=False, emoji=False)
    console.width = max(console.width, _least_width(content)) if console.is_terminal else _PIPE_WIDTH
    console.print(content)


def _least_width(content: Table) -> int:
    widths = [max(cell_len(str(cell)) for cell in (c.header, *c.cells)) for c in content.columns]
    folded = [w if c.no_wrap else min(w, _NARROWEST) for w, c in zip(widths, content.columns, strict=True)]
    return sum(folded) + _GAP * (len(folded) - 1)


@contextmanager
def progress(label: str) -> Iterator[ProgressCallback | None]:
    """A progress bar that follows what its callback is told; ``None`` where stderr is no terminal, or a dumb one."""
    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
