"""``nnc convert``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click

from nnc_adapters.cli import console
from nnc_adapters.cli.errors import ExitCode
from nnc_adapters.cli.options import file_path, force_option, json_option, limit_option, talking_options, threads_option
from nnc_adapters.cli.sections import Sectioned
from nnc_adapters.convert import By, CheckError, ConvertReport, plan
from nnc_adapters.convert import convert as convert_model

_SHOWN = 4


def _flatten(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, Any]:
    return dict(_answer(value) for value in values)


def _answer(text: str) -> tuple[str, Any]:
    name, equals, answer = text.rpartition("=")
    if not equals or not name:
        raise click.BadParameter(f"{text!r} is not NAME=C,H,W or NAME=no")
    return name, False if answer == "no" else _numbers(answer)


def _shapes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[list[int]]:
    return [_numbers(value) for value in values]


def _numbers(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isdecimal() and int(number) for number in numbers):
        raise click.BadParameter(f"{text!r} is not a list of whole numbers above zero, such as 8,4,4")
    return [int(number) for number in numbers]


@click.command(cls=Sectioned)
@click.argument("source", metavar="IN", type=file_path)
@click.argument("target", metavar="OUT", type=file_path, required=False)
@click.option(
    "--into",
    type=file_path,
    metavar="TEMPLATE",
    required=True,
    help="The same network in the other framework; only its weights are replaced.",
)
@click.option(
    "--map", "mapping", type=file_path, metavar="FILE", help="JSON with target and source names; may be partial."
)
@click.option("--by", type=click.Choice(get_args(By)), help="Match tensors by this alone.")
@click.option(
    "--flatten",
    metavar="NAME=C,H,W",
    multiple=True,
    callback=_flatten,
    help="The image that a tensor takes flattened, or NAME=no if both sides store it in one order; may be repeated.",
)
@click.option(
    "--module",
    metavar="FILE.py:NAME",
    multiple=True,
    help="The class or function that makes the PyTorch network; its code is run. Twice if both models are PyTorch.",
)
@click.option(
    "--input",
    "inputs",
    metavar="N,C,H,W",
    multiple=True,
    callback=_shapes,
    help="The shape of an input, if no file has it.",
)
@click.option(
    "--check/--no-check",
    default=None,
    help="Run both models on a random input and compare [default: if both can be run].",
)
@click.option("--fold", is_flag=True, help="Fold batch normalization into convolutions if one model has it folded.")
@click.option("--print-map", is_flag=True, help="Print the matching of tensors as JSON, and write nothing.")
@threads_option
@limit_option
@force_option
@talking_options
@json_option
def convert(
    source: Path,
    target: Path | None,
    into: Path,
    print_map: bool,
    force: bool,
    as_json: bool,
    check: bool | None,
    threads: int | None,
    module: tuple[str, ...],
    **options: Any,
) -> None:
    """Move weights to another framework: write TEMPLATE to OUT with the weights of IN, the same network.

    Each of the three is a model or a bitstream (.nnr). Axes, gates and flattened images are reordered for the
    framework. If files and names leave the matching open, both models are run, or an error says which option decides.
    If outputs differ, nothing is written and the exit code is 1.
    """
    if print_map:
        console.print_json(plan(source, into, module=list(module) or None, **options))
        return
    if target is None:
        raise click.UsageError("give OUT, or --print-map")
    try:
        with console.progress("converting") as meter:
            report = convert_model(
                source,
                target,
                into=into,
                check=check,
                threads=threads,
                force=force,
                module=list(module) or None,
                meter=meter,
                **options,
            )
    except CheckError as error:
        console.message(f"error: {error}")
        raise click.exceptions.Exit(ExitCode.NEGATIVE_FINDING) from None
    if as_json:
        console.print_json(report)
    else:
        _show(report)


def _show(report: ConvertReport) -> None:
    tensors = console.counted(report.tensors, "tensor")
    console.message(f"{report.target}: {tensors}, {report.weights} weights, {report.seconds:.2f} s")
    if report.difference is None:
        console.message(f"not checked by running: {report.unchecked}")
    else:
        console.message(f"checked by running: outputs differ by {report.difference:.1e} of their range")
    for text, names in (
        ("kept as they were", report.kept),
        ("not used", report.unused),
        ("told apart by order alone" + ", confirmed by running" * bool(report.proven), report.doubtful),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            console.message(f"{text}: {', '.join(names[:_SHOWN])}{more}")
    for remark in report.remarks:
        console.message(f"note: {remark}")
