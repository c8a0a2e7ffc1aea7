"""The program ``nnc``: one file per command."""

from __future__ import annotations

import sys
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import click

import nnc_core
from nnc_adapters.cli import console
from nnc_adapters.cli.errors import reported
from nnc_adapters.cli.signals import Terminated, ended_in_order
from nnc_core.lazy import LazyMapping

SUMMARIES: Final = {
    "chain": "List updates in order; the exit code is 1 if one is missing.",
    "completion": "Print the script that lets a shell complete nnc commands, or install it.",
    "compress": "Compress a model into an NNR bitstream.",
    "convert": "Move weights to another framework: write TEMPLATE to OUT with the weights of IN, the same network.",
    "decompress": "Restore a model in its original format.",
    "diff": "Write an update: what changed from BASE to NEW, two versions of a model in any formats.",
    "embed": "Put a bitstream, or those in a container, into a container without recoding.",
    "extract": "Take the bitstream out of a container; per-tensor bitstreams are merged.",
    "fold": "Merge consecutive updates into one; the first must begin a chain.",
    "formats": "List the formats of models and containers, and what to install for those that are missing.",
    "inspect": "Show the units and tensors of a bitstream without decoding it.",
    "man": "Show the manual page of nnc or of COMMAND, or install all pages.",
    "patch": "Apply updates to BASE in the order given, and write the new model; BASE is a model or a bitstream.",
    "report": "Make a page for the browser that shows where the bytes of a bitstream go and what its tensors lost.",
    "validate": "List every violation of ISO/IEC 15938-17 in a bitstream, with its position, rule and an explanation.",
    "verify": "Compare a bitstream with its original model: the error of each tensor, and what must stay exact.",
}
"""The commands and the first paragraphs of their help, here so that a list of them imports none."""

_MODULES = dict.fromkeys(("chain", "diff", "fold", "patch"), "updates")


_GZIP = ("-t", "--test", "-l", "--list")
"""What of ``nnc decompress`` can be asked without its name."""


class _Commands(LazyMapping[click.Command]):
    """The commands by name; their modules are imported when they are asked for."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in self:
            raise KeyError(name)
        module = import_module(f"nnc_adapters.cli.{_MODULES.get(name, name)}")
        command: click.Command = getattr(module, name)
        return command

    def _names(self) -> Collection[str]:
        return SUMMARIES


class _Program(click.Group):
    """A group that reports expected errors in one place: those of its commands, and those of showing help."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program, until it is done or a signal ends it."""
        try:
            with ended_in_order():
                return super().main(*args, **kwargs)
        except Terminated as end:
            sys.exit(end.exit_code)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        console.escape_what_cannot_be_encoded()
        with reported():
            return super().make_context(*args, **kwargs)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take ``nnc -t FILE`` and ``nnc -l FILE`` as users of gzip and zstd mean them."""
        return super().parse_args(ctx, ["decompress", *args] if args[:1] and args[0] in _GZIP else args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Say what is missing where a file stands in the place of a command."""
        if args[0] not in SUMMARIES and Path(args[0]).exists():
            ctx.fail(f"{args[0]} is a file; did you mean nnc compress {args[0]}, or nnc decompress?")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with reported():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with the whole of their first paragraph."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(SUMMARIES.items()))


_TASKS: Final = """\
  nnc compress model.onnx --target-size 20%        meet a size
  nnc report model.nnr model.onnx                  where the bytes go, as a page
  nnc inspect model.nnr --tree --sort size         the same in the terminal
  nnc verify model.onnx model.nnr --sort sqnr      the worst layer first
  nnc decompress model.nnr -o restored.onnx        the model again
  nnc diff old.onnx new.onnx -o update.nnr         an update between checkpoints
  nnc patch old.onnx update.nnr -o patched.onnx    and what it makes
  nnc_core.open("model.nnr")["layer.weight"]       one tensor, in Python"""

_COMMANDS: Any = _Commands()


@click.group(
    cls=_Program,
    commands=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"\b\nCommon tasks:\n{_TASKS}\n\n"
    "Exit codes: 0 done, 1 negative finding, 2 usage, 3 bad bitstream, 4 not supported, 5 file error, "
    "6 limit exceeded, 7 missing package, 8 update does not come next, 130 interrupted.\n\n"
    "nnc -t FILE.nnr tests a bitstream, nnc -l FILE.nnr lists what is in it.",
)
@click.version_option(nnc_core.__version__, prog_name="nnc")
def main() -> None:
    """Compress neural networks with ISO/IEC 15938-17 (Neural Network Coding)."""
