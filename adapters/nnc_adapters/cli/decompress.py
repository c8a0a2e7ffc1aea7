"""``nnc decompress``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnc_adapters.cli import console
from nnc_adapters.cli.batch import Job, batch_options, jobs, run
from nnc_adapters.cli.options import (
    any_path,
    force_option,
    json_option,
    limit_option,
    opaque_option,
    readable,
    talking_options,
    threads_option,
    url_path,
    writable,
)
from nnc_adapters.cli.sections import Sectioned
from nnc_adapters.cli.workers import executor_of, worker_options
from nnc_core.lazy import LazyModule
from nnc_core.limits import Limits

if TYPE_CHECKING:
    from nnc_adapters import api
    from nnc_adapters.cli import looking
else:
    api, looking = LazyModule("nnc_adapters.api"), LazyModule("nnc_adapters.cli.looking")


@click.command(cls=Sectioned)
@click.argument("sources", metavar="IN.nnr...", type=any_path, nargs=-1, required=True)
@click.option(
    "-o", "--output", type=any_path, help="The model to write, - for stdout [default: IN with the format's suffix]."
)
@click.option("--into", type=url_path, metavar="MODEL", help="Take everything except the weights from this model.")
@click.option("--pruned", is_flag=True, help="Write tensors without pruned parts, to a .safetensors or .npz file.")
@click.option("-t", "--test", is_flag=True, help="Decode everything and write nothing.")
@click.option("-l", "--list", "listed", is_flag=True, help="List sizes and formats; decode and write nothing.")
@worker_options
@batch_options
@opaque_option
@threads_option
@limit_option
@force_option
@talking_options
@json_option
def decompress(
    sources: tuple[Path, ...],
    output: Path | None,
    into: Path | None,
    pruned: bool,
    test: bool,
    listed: bool,
    output_dir: Path | None,
    recurse: bool,
    remove: bool,
    opaque: bool,
    threads: int | None,
    limits: Limits,
    force: bool,
    as_json: bool,
    **who: Any,
) -> None:
    """Restore a model in its original format.

    IN.nnr may also be - for stdin, or a container that carries NNR; -r takes all .nnr, .nnc and .nctm files below
    folders. A sharded model is given by its folder or its index. If the output ends in .safetensors or .npz and the
    model has another format, all its tensors are written by name.
    """
    if test or listed:
        _check_alone(test and listed, output, output_dir, into, remove=remove or pruned)
        found = [Job(path, None) for path in looking.bitstreams(sources, recurse=recurse)]
        looking.look(found, threads, limits, test=test, as_json=as_json)
        return
    found = jobs(
        sources, output=output, output_dir=output_dir, recurse=recurse, remove=remove, members=looking.bitstreams_in
    )

    def work(job: Job) -> api.DecompressReport:
        with (
            readable(job.source) as path,
            writable(output, as_json=as_json, force=force) as target,
            executor_of(**who) as executor,
            console.progress("decompressing") as meter,
        ):
            report = api.decompress(
                path,
                target,
                folder=job.folder,
                into=into,
                pruned=pruned,
                opaque=opaque,
                threads=threads,
                executor=executor,
                force=force,
                meter=meter,
                limits=limits,
            )
        if not as_json:
            where, tensors = output or report.target, console.counted(report.tensors, "tensor")
            console.message(f"{where}: {tensors}, {report.weights} weights, {report.seconds:.2f} s")
        return report

    run(found, work, remove=remove, as_json=as_json)


def _check_alone(both: bool, *outputs: Path | None, remove: bool) -> None:
    if both:
        raise click.UsageError("--test and --list are mutually exclusive")
    if remove or any(output is not None for output in outputs):
        raise click.UsageError("--test and --list write and remove nothing")
