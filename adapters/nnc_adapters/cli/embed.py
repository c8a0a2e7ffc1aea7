"""``nnc embed``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from nnc_adapters import compress, containers
from nnc_adapters.cli import console
from nnc_adapters.cli.options import (
    any_path,
    file_path,
    force_option,
    json_option,
    limit_option,
    readable,
    talking_options,
)
from nnc_adapters.reports import Meter
from nnc_core import Limits, ModelError


def _known(ctx: click.Context, param: click.Parameter, name: str | None) -> str | None:
    names = [each.name for each in containers.carriers()] if name is not None else []
    if name is not None and name not in names:
        raise click.BadParameter(f"{name!r} is not a container; containers are {', '.join(names)}")
    return name


@contextmanager
def _coded(path: Path, limits: Limits, meter: Meter | None) -> Iterator[Path]:
    """``path`` if it carries NNR, or else a temporary bitstream of the model that it is."""
    try:
        containers.find(path)
    except ModelError:
        pass
    else:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        compress(path, coded := Path(folder, "coded.nnr"), meter=meter, limits=limits)
        yield coded


@click.command()
@click.argument("source", metavar="IN", type=any_path)
@click.option("-o", "--output", type=file_path, required=True, help="The container to write; its suffix says which.")
@click.option("--per-tensor", is_flag=True, help="One bitstream for each tensor, so that each can be read alone.")
@click.option("--into", type=file_path, metavar="EXISTING", help="Keep everything else that is in this file.")
@click.option(
    "--container",
    metavar="NAME",
    callback=_known,
    help="The container, if the suffix does not tell; see nnc formats.",
)
@limit_option
@force_option
@talking_options
@json_option
def embed(
    source: Path,
    output: Path,
    per_tensor: bool,
    into: Path | None,
    container: str | None,
    limits: Limits,
    force: bool,
    as_json: bool,
) -> None:
    """Put a bitstream, or those in a container, into a container without recoding.

    IN may be - for stdin. It may also be a model, which is compressed first with the default parameters.
    """
    with (
        readable(source) as given,
        console.progress("embedding") as meter,
        _coded(given, limits, meter) as path,
    ):
        report = containers.embed(
            path, output, per_tensor=per_tensor, into=into, container=container, force=force, meter=meter, limits=limits
        )
    if as_json:
        console.print_json(report)
    elif report.bitstreams is None:
        console.message(f"{report.target}: {report.format}{f', {report.way}' if report.way else ''}")
    else:
        console.message(
            f"{report.target}: {console.counted(report.bitstreams, 'bitstream')}, {report.bytes} bytes, {report.format}"
        )
