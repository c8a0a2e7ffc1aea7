"""``nnc convert``."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from nnc_adapters.cli import console
from nnc_adapters.cli.options import file_path, force_option, json_option, limit_option, threads_option
from nnc_adapters.convert import By, ConvertReport, plan
from nnc_adapters.convert import convert as convert_model
from nnc_core import Limits


@click.command()
@click.argument("source", metavar="IN", type=file_path)
@click.argument("target", metavar="OUT", type=file_path, required=False)
@click.option(
    "--into",
    type=file_path,
    metavar="TEMPLATE",
    required=True,
    help="The same network in the other framework; it is kept, all but its weights.",
)
@click.option("--map", "mapping", type=file_path, metavar="FILE", help="A JSON object: target name to source name.")
@click.option("--by", type=click.Choice(get_args(By)), help="How to find out which tensor is which.")
@click.option("--print-map", is_flag=True, help="Print the mapping that would be used, and write nothing.")
@threads_option
@limit_option
@force_option
@json_option
def convert(
    source: Path,
    target: Path | None,
    into: Path,
    mapping: Path | None,
    by: By | None,
    print_map: bool,
    threads: int | None,
    limits: Limits,
    force: bool,
    as_json: bool,
) -> None:
    """Write TEMPLATE to OUT with the weights of IN, a model of the same network in another framework.

    Each of the three is a model or a bitstream (.nnr). Axes and gates are put in the order of the framework. Tensors
    belong together by equal names, or where nothing else has their role and shape; --by order or --by structure trust
    the order in which the models have them; --map says it all.
    """
    if mapping is not None and by is not None:
        raise click.UsageError("--map and --by exclude each other")
    if print_map:
        console.print_json(plan(source, into, mapping=mapping, by=by, limits=limits))
        return
    if target is None:
        raise click.UsageError("give OUT, or --print-map")
    report = convert_model(
        source, target, into=into, mapping=mapping, by=by, threads=threads, force=force, limits=limits
    )
    if as_json:
        console.print_json(report)
    else:
        _show(report)


def _show(report: ConvertReport) -> None:
    console.message(f"{report.target}: {report.tensors} tensors, {report.weights} weights, {report.seconds:.2f} s")
    for text, names in (("kept as it was", report.kept), ("not used", report.unused)):
        for name in names:
            console.message(f"{text}: {name}")
