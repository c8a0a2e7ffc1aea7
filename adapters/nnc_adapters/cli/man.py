"""``nnc man``: the manual, made of what the commands say about themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

import nnc_core
from nnc_adapters.cli import console
from nnc_adapters.cli.options import data_folder, force_option
from nnc_adapters.shared.files import replacing

__all__ = ["man", "pages"]


@click.command()
@click.argument("topic", metavar="[COMMAND]", required=False)
@click.option("--install", is_flag=True, help="Install all pages for this user.")
@force_option
def man(topic: str | None, install: bool, force: bool) -> None:
    """Show the manual page of nnc or of COMMAND, or install all pages.

    Where stdout is not a terminal, the source of the page goes there.
    """
    found = dict(pages())
    name = f"nnc-{topic}.1" if topic else "nnc.1"
    if install:
        for page, text in found.items():
            with replacing(_folder() / page, force=force) as stream:
                stream.write(text.encode())
        console.message(f"{_folder()}: {len(found)} pages; man nnc shows the first")
    elif name not in found:
        raise click.BadParameter(f"there is no command {topic!r}", param_hint="COMMAND")
    elif console.is_terminal() and shutil.which("man"):
        _show(found[name], name)
    else:
        click.echo(found[name], nl=False)


def _folder() -> Path:
    folder = data_folder() / "man" / "man1"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _show(text: str, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_text(text, encoding="utf-8")
        subprocess.run(["man", str(path)], check=False, stdin=sys.stdin)


def pages() -> Iterator[tuple[str, str]]:
    """The pages of the manual by file name, in the language of man."""
    from nnc_adapters.cli import SUMMARIES, main

    with click.Context(main, info_name="nnc") as root:
        commands = [f".TP\n.BR nnc-{_escaped(name)} (1)\n{_escaped(text)}" for name, text in sorted(SUMMARIES.items())]
        more = [".SH COMMANDS", *commands]
        yield "nnc.1", _page(main, root, "Compress neural networks (ISO/IEC 15938-17)", more)
        for name in sorted(SUMMARIES):
            command = main.commands[name]
            with click.Context(command, info_name=name, parent=root) as ctx:
                see = [".SH SEE ALSO", ".BR nnc (1)"]
                yield f"nnc-{name}.1", _page(command, ctx, SUMMARIES[name], see)


def _page(command: click.Command, ctx: click.Context, summary: str, more: list[str]) -> str:
    name = ctx.command_path.replace(" ", "-")
    usage = " ".join(command.collect_usage_pieces(ctx))
    lines = [
        f'.TH {name.upper()} 1 "" "NNC Suite {nnc_core.__version__}"',
        ".SH NAME",
        f"{_escaped(name)} \\- {_escaped(summary.rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_escaped(ctx.command_path)}",
        _escaped(usage),
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
        ".SH OPTIONS",
        *_options(command, ctx),
        *more,
        *([".SH NOTES", *_paragraphs(command.epilog)] if command.epilog else []),
    ]
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> Iterator[str]:
    """The paragraphs of a help text; those after a ``\\b`` keep their lines."""
    for paragraph in re.split(r"\n\s*\n", text.strip("\n ")):
        yield ".PP"
        if paragraph.startswith("\b"):
            yield from (".nf", *map(_escaped, paragraph.strip("\b\n").split("\n")), ".fi")
        else:
            yield _escaped(" ".join(paragraph.split()))


def _options(command: click.Command, ctx: click.Context) -> Iterator[str]:
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
        if record is not None:
            yield f".TP\n.B {_escaped(record[0])}"
            yield _escaped(record[1] or "")


def _escaped(text: str) -> str:
    """Text as man shows it: no letter of it begins a request or an escape."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{text}" if text.startswith((".", "'")) else text
