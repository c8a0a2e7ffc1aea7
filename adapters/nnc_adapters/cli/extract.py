"""``nnc extract``."""

from __future__ import annotations

from pathlib import Path

import click

from nnc_adapters import containers
from nnc_adapters.cli import console
from nnc_adapters.cli.options import (
    any_path,
    force_option,
    json_option,
    limit_option,
    pipe_path,
    readable,
    talking_options,
    writable,
)
from nnc_core import Limits


@click.command()
@click.argument("source", metavar="CONTAINER", type=any_path)
@click.option("-o", "--output", type=pipe_path, required=True, help="The bitstream to write, - for stdout.")
@click.option("--tensor", metavar="NAME", help="Only this tensor.")
@limit_option
@force_option
@talking_options
@json_option
def extract(source: Path, output: Path, tensor: str | None, limits: Limits, force: bool, as_json: bool) -> None:
    """Take the bitstream out of a container; per-tensor bitstreams are merged.

    CONTAINER may be - for stdin.
    """
    with (
        readable(source) as path,
        writable(output, as_json=as_json, force=force) as target,
        console.progress("extracting") as meter,
    ):
        report = containers.extract(path, target, tensor=tensor, force=force, meter=meter, limits=limits)
    if as_json:
        console.print_json(report)
    else:
        console.message(f"{output}: {report.bytes} bytes")
