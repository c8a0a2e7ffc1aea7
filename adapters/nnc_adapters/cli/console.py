"""Data go to stdout, messages and progress to stderr."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from nnc_adapters.api import Progress as ProgressCallback

_PIPE_WIDTH = 10_000  # lines that another program reads are not to be folded


def printable(text: str) -> str:
    """Escape what is not printable: names come out of files, and a terminal obeys control characters."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
    """A table with these columns; a name in front of which is a ``>`` makes one that is aligned right."""
    result = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column in columns:
        result.add_column(column.lstrip(">"), justify="right" if column[0] == ">" else "left", overflow="fold")
    return result


def print_table(content: Table) -> None:
    """Print a table as wide as the terminal, or as wide as it wants to be where stdout is none."""
    console = Console(markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _PIPE_WIDTH
    console.print(content)


@contextmanager
def progress(label: str) -> Iterator[ProgressCallback | None]:
    """A progress bar that follows what its callback is told; ``None`` where stderr is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
