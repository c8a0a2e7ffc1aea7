"""Options that several commands share."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import click

from nnc_core import Limits

PIPE = "-"


def _limits(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> Limits:
    return replace(Limits(), **dict(_limit(text) for text in value))


def _limit(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    names = [f.name for f in fields(Limits)]
    if name not in names:
        raise click.BadParameter(f"{name!r} is no limit; there are {', '.join(names)}")
    if not number.isdecimal():
        raise click.BadParameter(f"{number!r} is no whole number")
    return name, int(number)


file_path = click.Path(path_type=Path)

limit_option = click.option(
    "--limit",
    "limits",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_limits,
    help="Raise or lower a bound on what a file may ask for; may be repeated.",
)
threads_option = click.option("--threads", type=click.IntRange(min=1), help="Worker threads [default: one per core].")
force_option = click.option("-f", "--force", is_flag=True, help="Replace an existing output file.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout, for programs.")


@contextmanager
def readable(source: Path) -> Iterator[Path]:
    """The file to read: ``source`` itself, or a temporary copy of stdin for ``-``."""
    if str(source) != PIPE:
        yield source
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "stdin.nnr")
        with copy.open("wb") as stream:
            shutil.copyfileobj(sys.stdin.buffer, stream)
        yield copy


def existing(path: Path) -> Path:
    """Return ``path``, or raise the `OSError` that says why it cannot be read."""
    os.stat(path)
    return path
