"""``nnc compress``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from nnc_adapters import api
from nnc_adapters.cli import console
from nnc_adapters.cli.options import PIPE, file_path, force_option, json_option, threads_option
from nnc_core import CodingParameters
from nnc_core.coder.plan import Rule

_DEFAULT = CodingParameters()
_PROFILES = {"2022": 0, "2024": 1}


def _rules(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[Rule, ...]:
    try:
        return tuple(Rule.parse(text) for text in value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("source", metavar="IN", type=file_path)
@click.option("-o", "--output", type=file_path, help="The bitstream to write, - for stdout [default: IN.nnr].")
@click.option("--qp", type=int, default=_DEFAULT.qp, show_default=True, help="Quantization parameter of weights.")
@click.option(
    "--nonweight-qp", type=int, default=_DEFAULT.nonweight_qp, show_default=True, help="The same for all other tensors."
)
@click.option(
    "--qp-density",
    type=int,
    metavar="N",
    default=_DEFAULT.qp_density,
    show_default=True,
    help="The step size doubles with every 2^N of qp.",
)
@click.option("--no-dq", is_flag=True, help="Quantize uniformly, not dependently.")
@click.option("--no-param-opt", is_flag=True, help="Leave the adaptation rates of contexts at their defaults.")
@click.option("--no-row-skip", is_flag=True, help="Code rows of zeros like any other.")
@click.option(
    "--scan-order",
    type=click.IntRange(0, 4),
    default=_DEFAULT.scan_order,
    show_default=True,
    help="0: row by row; 1 to 4: in square blocks of 8, 16, 32 or 64, with entry points.",
)
@click.option(
    "--unary",
    type=int,
    default=_DEFAULT.cabac_unary_length_minus1,
    show_default=True,
    help="cabac_unary_length_minus1 of the binarization.",
)
@click.option("--profile", type=click.Choice(list(_PROFILES)), default="2024", show_default=True, help="Edition.")
@click.option(
    "--rule",
    "rules",
    metavar="REGEX=KEY=VALUE,...",
    multiple=True,
    callback=_rules,
    help="Other values for tensors whose name matches.",
)
@threads_option
@force_option
@json_option
def compress(source: Path, output: Path | None, threads: int | None, force: bool, as_json: bool, **coding: Any) -> None:
    """Compress the model IN into an NNR bitstream."""
    to_pipe = str(output) == PIPE
    if to_pipe and as_json:
        raise click.UsageError("--json and the bitstream cannot both go to stdout")
    parameters = _parameters(**coding)
    target = sys.stdout.buffer if to_pipe else output
    with console.progress("compressing") as progress:
        report = api.compress(source, target, parameters=parameters, threads=threads, force=force, progress=progress)
    if as_json:
        derived = {"percent": report.percent, "bits_per_weight": report.bits_per_weight}
        console.print_json({**console.plain(report), **derived})
    else:
        console.message(_summary(report))


def _parameters(
    *,
    no_dq: bool,
    no_param_opt: bool,
    no_row_skip: bool,
    unary: int,
    profile: str,
    **same_names: Any,
) -> CodingParameters:
    try:
        parameters = CodingParameters(
            dq_flag=not no_dq,
            param_opt_flag=not no_param_opt,
            row_skip_enabled_flag=not no_row_skip,
            cabac_unary_length_minus1=unary,
            general_profile_idc=_PROFILES[profile],
            **same_names,
        )
        for rule in parameters.rules:
            changes: dict[str, Any] = dict(rule.changes)
            replace(parameters, **changes)  # what is out of range for a model is so for a tensor
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return parameters


def _summary(report: api.CompressReport) -> str:
    return (
        f"{report.bytes_before} to {report.bytes_after} bytes ({report.percent:.2f} %), {report.tensors} tensors, "
        f"{report.weights} weights, {report.bits_per_weight:.3f} bits per weight, {report.seconds:.2f} s"
    )
