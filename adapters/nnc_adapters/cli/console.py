"""Data go to stdout, messages and progress to stderr."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

import click

from nnc_adapters.shared.text import printable as printable

if TYPE_CHECKING:
    from nnc_adapters.reports import Meter

_PIPE_WIDTH = 10_000  # lines that another program reads are not to be folded
_NARROWEST = 20  # a folded column that is still readable
_GAP = 2
_PRINTED_AT_ONCE = 1 << 16


def escape_what_cannot_be_encoded() -> None:
    """Let stdout write names that its encoding lacks as stderr does, with escapes."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def message(text: str) -> None:
    """Print a diagnostic, unless the user wants to hear of errors only."""
    if not _said("quiet"):
        click.echo(printable(text), err=True)


def keep(ctx: click.Context, name: str, value: Any) -> None:
    """Note what the user says about messages: ``progress``, ``quiet`` or ``verbose``."""
    ctx.meta[f"{__name__}.{name}"] = value
    if name == "verbose" and value:
        _listen(ctx, value)


def _said(name: str) -> Any:
    ctx = click.get_current_context(silent=True)
    return ctx.meta.get(f"{__name__}.{name}") if ctx is not None else None


def _listen(ctx: click.Context, verbosity: int) -> None:
    """Print what the libraries log while the command runs."""
    import logging

    from nnc_adapters.cli.config import FILE

    class Printed(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            click.echo(printable(record.getMessage()), err=True)

    if FILE in ctx.meta:
        click.echo(printable(f"{ctx.meta[FILE]}: options that the command line does not give"), err=True)
    handler = Printed()
    for name in ("nnc_core", "nnc_adapters"):
        logger = logging.getLogger(name)
        ctx.call_on_close(partial(logger.setLevel, logger.level))
        ctx.call_on_close(partial(logger.removeHandler, handler))
        logger.setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)
        logger.addHandler(handler)


def print_json(value: Any) -> None:
    """Print ``value`` as JSON, what it has of iterators as they come; see `nnc_adapters.cli.json_output`."""
    from nnc_adapters.cli.json_output import pieces

    _print(chain(pieces(value), "\n"))


class Table:
    """Rows of text under column names: ``>`` in front of a name aligns one right, ``~`` lets one be folded."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self.columns = columns
        self.rows: list[tuple[str, ...]] = []

    def add_row(self, *cells: str) -> None:
        """Add a row with a cell for each column."""
        self.rows.append(tuple(map(sys.intern, cells)))  # of many rows, most cells are alike

    def lines(self, width: int) -> Iterator[str]:
        """The lines of the table, folded to ``width`` characters as far as it stays readable."""
        names = [column.lstrip(">~") for column in self.columns]
        widths = self._widths(names, width)
        yield from self._folded(names, widths)
        yield "\u2500" * (sum(widths) + _GAP * (len(widths) - 1))
        for row in self.rows:
            yield from self._folded(row, widths)

    def _widths(self, names: list[str], width: int) -> list[int]:
        """What each column takes; those that can be folded share what the others leave."""
        widths = [max(map(cells_of, column)) for column in zip(names, *self.rows, strict=True)]
        excess = sum(widths) + _GAP * (len(widths) - 1) - width
        foldable = sorted((w, i) for i, w in enumerate(widths) if self.columns[i][0] == "~" and w > _NARROWEST)
        for wide, i in reversed(foldable):
            cut = max(0, min(excess, wide - _NARROWEST))
            widths[i] -= cut
            excess -= cut
        return widths

    def _folded(self, row: Sequence[str], widths: list[int]) -> Iterator[str]:
        pieces = [_fold(cell, width) for cell, width in zip(row, widths, strict=True)]
        for line in zip_longest(*pieces, fillvalue=""):
            aligned = map(_aligned, line, widths, self.columns)
            yield (" " * _GAP).join(aligned).rstrip()


def _aligned(text: str, width: int, column: str) -> str:
    padding = " " * (width - cells_of(text))
    return padding + text if column[0] == ">" else text + padding


def _fold(text: str, width: int) -> list[str]:
    """The text in pieces that are not wider than ``width``."""
    if cells_of(text) <= width:
        return [text]
    pieces = [""]
    for character in text:
        if cells_of(pieces[-1]) + cells_of(character) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def counted(number: int, noun: str) -> str:
    """``1 tensor``, ``2 tensors``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def cells_of(text: str) -> int:
    """How many character cells of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    import unicodedata  # which takes long, and is rarely needed

    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "FW" else 1


def table(*columns: str) -> Table:
    """A table with these columns; see `Table`."""
    return Table(columns)


def is_terminal() -> bool:
    """Whether stdout goes to a person."""
    return sys.stdout is not None and sys.stdout.isatty()


def bar(part: float, whole: float, width: int = 12) -> str:
    """A bar that fills ``part`` of ``whole`` of ``width`` characters, to an eighth of one."""
    eighths = round(8 * width * part / whole) if whole else 0
    return "\u2588" * (eighths // 8) + (chr(0x2590 - eighths % 8) if eighths % 8 else "")


def _columns() -> int:
    from shutil import get_terminal_size  # which takes long to import

    return get_terminal_size().columns


def print_table(content: Table) -> None:
    """Print a table as wide as the terminal, but readable; if stdout is not a terminal, as wide as its contents."""
    width = _columns() if is_terminal() else _PIPE_WIDTH
    _print(f"{line}\n" for line in content.lines(width))


def _print(pieces: Iterable[str]) -> None:
    """Print text that comes in pieces, many of them at once."""
    waiting, characters = [], 0
    for piece in pieces:
        waiting.append(piece)
        characters += len(piece)
        if characters > _PRINTED_AT_ONCE:
            click.echo("".join(waiting), nl=False)
            waiting, characters = [], 0
    click.echo("".join(waiting), nl=False)


@contextmanager
def progress(label: str) -> Iterator[Meter | None]:
    """A bar of bytes with speed and remaining time that follows what its meter is told; None where nobody watches.

    That is where stderr is not a terminal, or a dumb one, unless the user asks for it, and where he wants silence.
    """
    asked = _said("progress")
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if asked is False or (not asked and (not terminal or _said("quiet"))):
        yield None
        return
    from rich.console import Console  # here, since only long commands on a terminal need it
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    console = Console(stderr=True, force_terminal=asked)
    if not asked and (not console.is_terminal or console.is_dumb_terminal):
        yield None
        return
    numbers = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), BarColumn(), *numbers, console=console, transient=True) as bar:
        yield _meter(bar, label)


def _meter(bar: Any, label: str) -> Meter:
    """What moves a bar; each stage of the work begins anew, since it has a speed of its own."""
    task, current, begun = bar.add_task(label, total=None), label, False

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal current, begun
        if begins := not begun or stage != current:
            bar.reset(task, description=stage)
            current, begun = stage, True
        bar.update(task, completed=done, total=total, refresh=begins)

    return tell
