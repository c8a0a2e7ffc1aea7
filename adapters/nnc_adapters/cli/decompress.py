"""``nnc decompress``."""

from __future__ import annotations

from pathlib import Path

import click

from nnc_adapters import api
from nnc_adapters.cli import console
from nnc_adapters.cli.options import (
    PIPE,
    file_path,
    force_option,
    json_option,
    limit_option,
    opaque_option,
    pipe_path,
    readable,
    talking_options,
    threads_option,
    writable,
)
from nnc_core import Limits


@click.command()
@click.argument("source", metavar="IN.nnr", type=pipe_path)
@click.option(
    "-o", "--output", type=pipe_path, help="The model to write, - for stdout [default: IN with the format's suffix]."
)
@click.option("--into", type=file_path, metavar="MODEL", help="Take everything but the weights from this model.")
@click.option("--pruned", is_flag=True, help="Write tensors without what was pruned, to a .safetensors or .npz file.")
@opaque_option
@threads_option
@limit_option
@force_option
@talking_options
@json_option
def decompress(
    source: Path,
    output: Path | None,
    into: Path | None,
    pruned: bool,
    opaque: bool,
    threads: int | None,
    limits: Limits,
    force: bool,
    as_json: bool,
) -> None:
    """Restore a model in the format it had.

    IN.nnr may be - for stdin, and a container that carries NNR. If the output ends in .safetensors or .npz, and the
    model is of another format, all its tensors are written by name.
    """
    if output is None and str(source) == PIPE:
        raise click.UsageError("cannot derive an output name from stdin; give --output")
    with (
        readable(source) as path,
        writable(output, as_json=as_json, force=force) as target,
        console.progress("decompressing") as meter,
    ):
        report = api.decompress(
            path,
            target,
            into=into,
            pruned=pruned,
            opaque=opaque,
            threads=threads,
            force=force,
            meter=meter,
            limits=limits,
        )
    if as_json:
        console.print_json(report)
    else:
        where = output or report.target
        console.message(f"{where}: {report.tensors} tensors, {report.weights} weights, {report.seconds:.2f} s")
