"""The program ``nnc``: one file per command."""

from __future__ import annotations

from typing import Any

import click

import nnc_core
from nnc_adapters.cli import console
from nnc_adapters.cli.compress import compress
from nnc_adapters.cli.convert import convert
from nnc_adapters.cli.decompress import decompress
from nnc_adapters.cli.embed import embed
from nnc_adapters.cli.errors import reported
from nnc_adapters.cli.extract import extract
from nnc_adapters.cli.formats import formats
from nnc_adapters.cli.inspect import inspect
from nnc_adapters.cli.updates import chain, diff, fold, patch
from nnc_adapters.cli.validate import validate
from nnc_adapters.cli.verify import verify


class _Program(click.Group):
    """A group that reports expected errors in one place: those of its commands, and those of showing help."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        console.escape_what_cannot_be_encoded()
        with reported():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with reported():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the whole of their first paragraph."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, _summary(command)) for name, command in sorted(self.commands.items())])


def _summary(command: click.Command) -> str:
    return " ".join((command.help or "").split("\n\n")[0].split())


@click.group(
    cls=_Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 negative finding, 2 usage, 3 bad bitstream, 4 not supported, 5 file error, "
    "6 limit exceeded, 7 missing package, 8 update does not come next, 130 interrupted.",
)
@click.version_option(nnc_core.__version__, prog_name="nnc")
def main() -> None:
    """Compress neural networks with ISO/IEC 15938-17 (Neural Network Coding)."""


_COMMANDS = (
    chain,
    compress,
    convert,
    decompress,
    diff,
    embed,
    extract,
    fold,
    formats,
    inspect,
    patch,
    validate,
    verify,
)
for _command in _COMMANDS:
    main.add_command(_command)
