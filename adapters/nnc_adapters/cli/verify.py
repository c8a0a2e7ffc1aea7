"""``nnc verify``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from nnc_adapters import verification
from nnc_adapters.cli import console
from nnc_adapters.cli.errors import ExitCode
from nnc_adapters.cli.options import (
    any_path,
    json_option,
    limit_option,
    readable,
    reading_options,
    rule_option,
    talking_options,
    threads_option,
    url_path,
)
from nnc_adapters.cli.sections import Sectioned
from nnc_adapters.cli.workers import executor_of, worker_options
from nnc_adapters.comparison import MIN_SQNR, TensorComparison
from nnc_adapters.verification import VerifyReport
from nnc_core import Limits, Rule

_ORDERS: dict[str, Callable[[TensorComparison], Any]] = {
    "position": lambda t: 0,
    "sqnr": lambda t: math.inf if t.sqnr_db is None else t.sqnr_db,
    "error": lambda t: -(t.error_to_rms or 0.0),
    "lost": lambda t: (-(t.lost_zeros or 0), -(t.lost or 0.0)),
    "size": lambda t: -math.prod(t.shape),
    "name": lambda t: t.name,
}


@click.command(cls=Sectioned)
@click.argument("original", metavar="ORIGINAL", type=url_path)
@click.argument("compressed", metavar="FILE.nnr", type=any_path)
@click.option(
    "--min-sqnr",
    type=float,
    metavar="DB",
    default=MIN_SQNR,
    show_default=True,
    help="The worst signal-to-noise ratio that is acceptable for a tensor.",
)
@click.option(
    "--sort", type=click.Choice(list(_ORDERS)), default="position", show_default=True, help="The order of the tensors."
)
@worker_options
@rule_option
@reading_options
@threads_option
@limit_option
@talking_options
@json_option
def verify(
    original: Path,
    compressed: Path,
    min_sqnr: float,
    sort: str,
    rules: tuple[Rule, ...],
    reading: dict[str, Any],
    threads: int | None,
    limits: Limits,
    as_json: bool,
    **who: Any,
) -> None:
    """Compare a bitstream with its original model: the error of each tensor, and what must stay exact.

    The exit code is 1 if a tensor is destroyed (see --min-sqnr), missing or has another shape, if zeros became
    non-zero, if values changed that must be exact, if the topology differs, or if the model cannot be restored (into a
    temporary folder). Give the same --rule as to compress if it quantizes what would be exact. FILE.nnr may also be -
    for stdin, a container that carries NNR, or a sharded model.
    """
    with (
        readable(compressed) as path,
        executor_of(**who) as executor,
        console.progress("verifying") as meter,
    ):
        report = verification.verify(
            original,
            path,
            min_sqnr=min_sqnr,
            rules=rules,
            **reading,
            threads=threads,
            executor=executor,
            meter=meter,
            limits=limits,
        )
    report = replace(report, tensors=tuple(sorted(report.tensors, key=_ORDERS[sort])))
    if as_json:
        console.print_json(report)
    else:
        _show(report)
    if not report.accepted:
        raise click.exceptions.Exit(ExitCode.NEGATIVE_FINDING)


def _show(report: VerifyReport) -> None:
    table = console.table("~tensor", "dtype", "~shape", ">SQNR dB", ">error/rms", ">lost", ">rel. error", "~remarks")
    for t in report.tensors:
        shape = "x".join(map(str, t.shape)) or "scalar"
        table.add_row(console.printable(t.name), t.dtype, shape, *_numbers(t), _remarks(t))
    console.print_table(table)
    console.message(f"topology {report.topology}{f': {report.topology_problem}' if report.topology_problem else ''}")
    if report.sqnr_db is not None:
        console.message(f"SQNR of the weights {report.sqnr_db:.1f} dB; worst tensor {report.worst}")
    bad = sum(t.problem is not None for t in report.tensors)
    total = len(report.tensors)
    console.message(f"{bad} of {total} tensors not acceptable" if bad else f"all {total} tensors acceptable")


def _numbers(t: TensorComparison) -> tuple[str, ...]:
    """SQNR, largest error over rms, share of lost values, and for variances the largest relative error."""
    if t.sqnr_db is None or t.error_to_rms is None or t.lost is None:
        return ("",) * 4
    if t.exact:
        return ("exact", *("",) * 3)
    sqnr = f"{t.sqnr_db:.1f}" if math.isfinite(t.sqnr_db) else "none"
    relative = "" if t.relative_error is None else f"{t.relative_error:.3g}"
    return sqnr, f"{t.error_to_rms:.3g}", f"{100 * t.lost:.1f} %", relative


def _remarks(t: TensorComparison) -> str:
    return console.printable(t.problem or (t.exact_because or "" if t.exact else ""))
