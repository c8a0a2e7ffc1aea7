"""From errors to exit codes and one clear line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import click

from nnc_adapters.cli.console import printable
from nnc_core.errors import (
    BitstreamError,
    LimitError,
    MissingDependencyError,
    ModelError,
    NncError,
    UnsupportedError,
    UpdateError,
)


class ExitCode(IntEnum):
    """What the program's exit code says; stable."""

    OK = 0
    NEGATIVE_FINDING = 1
    USAGE = 2
    BITSTREAM = 3
    UNSUPPORTED = 4
    FILE = 5
    LIMIT = 6
    MISSING_DEPENDENCY = 7
    UPDATE = 8
    INTERRUPTED = 130
    BROKEN_PIPE = 141


_CODES: dict[type[Exception], ExitCode] = {
    BitstreamError: ExitCode.BITSTREAM,
    UnsupportedError: ExitCode.UNSUPPORTED,
    LimitError: ExitCode.LIMIT,
    MissingDependencyError: ExitCode.MISSING_DEPENDENCY,
    ModelError: ExitCode.FILE,
    UpdateError: ExitCode.UPDATE,
    OSError: ExitCode.FILE,
}


EXPECTED = tuple(_CODES)
"""The errors that are told in a line."""


@contextmanager
def reported() -> Iterator[None]:
    """Turn an expected error of the block into a line on stderr and the exit code of its kind."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()  # a reader that has gone is noticed here, not at interpreter shutdown
    except KeyboardInterrupt:
        raise click.exceptions.Exit(ExitCode.INTERRUPTED) from None
    except BrokenPipeError:
        _silence_stdout()
        raise click.exceptions.Exit(ExitCode.BROKEN_PIPE) from None
    except EXPECTED as error:
        click.echo(f"error: {describe(error)}", err=True)
        raise click.exceptions.Exit(code_of(error)) from None


def describe(error: Exception) -> str:
    """One line for a person: what is wrong and where."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, NncError) and error.file and not isinstance(error, ModelError):  # which says it itself
        text = f"{error.file}: {text}"
    if isinstance(error, LimitError):
        text += f"; --limit {error.limit}=N raises it"
    return printable(text)


def code_of(error: Exception) -> ExitCode:
    """The exit code for an expected error."""
    return next(code for kind, code in _CODES.items() if isinstance(error, kind))


def _silence_stdout() -> None:
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError:  # stdout is not a real file
        return
