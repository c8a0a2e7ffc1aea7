"""Several inputs, one after another: which files they are, where their outputs go, and what becomes of errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import click

from nnc_adapters.cli import console
from nnc_adapters.cli.errors import EXPECTED, ExitCode, code_of, describe
from nnc_adapters.cli.json_output import plain
from nnc_adapters.cli.options import PIPE, file_path
from nnc_adapters.remote import is_url

__all__ = ["Job", "batch_options", "jobs", "run"]

_Command = TypeVar("_Command", bound="Callable[..., Any]")

_OPTIONS = (
    click.option(
        "--output-dir",
        type=file_path,
        metavar="FOLDER",
        help="Write outputs to this folder, created if needed.",
    ),
    click.option("-r", "--recursive", "recurse", is_flag=True, help="Work on the files in folders, recursively."),
    click.option("--rm", "remove", is_flag=True, help="Remove each input file once its output is written."),
)


class Job(NamedTuple):
    """An input, and the folder that its output goes to; None: beside it."""

    source: Path
    folder: Path | None


def batch_options(command: _Command) -> _Command:
    """The options of commands that take several inputs."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def jobs(
    sources: Sequence[Path],
    *,
    output: Path | None,
    output_dir: Path | None,
    recurse: bool,
    remove: bool,
    members: Callable[[Path], Iterable[Path]],
) -> list[Job]:
    """What is to be done. ``members`` finds the inputs in a folder; below ``output_dir`` these keep their folders.

    `UsageError` for options that do not go together.
    """
    found = list(_jobs(sources, output_dir, members if recurse else None))
    _check(found, sources, output, output_dir)
    if remove:
        _check_removable(found, output)
    return found


def _jobs(
    sources: Iterable[Path], output_dir: Path | None, members: Callable[[Path], Iterable[Path]] | None
) -> Iterator[Job]:
    for source in sources:
        if members is None or not source.is_dir():
            yield Job(source, output_dir)
            continue
        for member in members(source):
            within = member.relative_to(source).parent
            yield Job(member, None if output_dir is None else output_dir / within)


def _check(found: Sequence[Job], sources: Sequence[Path], output: Path | None, output_dir: Path | None) -> None:
    piped = any(str(job.source) == PIPE for job in found)
    remote = next((job.source for job in found if is_url(job.source)), None)
    if not found:
        raise click.UsageError(f"there is nothing to work on in {' '.join(map(str, sources))}")
    if output is not None and output_dir is not None:
        raise click.UsageError("--output and --output-dir are mutually exclusive")
    if len(found) > 1 and (output is not None or piped):
        raise click.UsageError(f"{len(found)} inputs cannot share one pipe or --output; give --output-dir")
    if piped and output is None:
        raise click.UsageError("cannot derive an output name from stdin; give --output")
    if remote is not None and output is None and output_dir is None:
        raise click.UsageError(f"cannot derive an output name from {remote}; give --output or --output-dir")


def _check_removable(found: Iterable[Job], output: Path | None) -> None:
    if str(output) == PIPE:
        raise click.UsageError("--rm needs an output that is a file")
    for source, _ in found:
        if str(source) == PIPE or is_url(source) or source.is_dir():
            raise click.UsageError(f"--rm removes files, and {source} is not one")


def run(found: Sequence[Job], work: Callable[[Job], Any], *, remove: bool, as_json: bool = False) -> None:
    """Do ``work`` for each job; print what it returns as JSON if asked to, as a list if there are several jobs.

    Where there are several, an error is told and the next job goes on; the exit code is that of the first error.
    """
    if len(found) == 1:
        result = _done(found[0], work, remove)
        if as_json:
            console.print_json(result)
        return
    outcomes = [_tried(job, work, remove) for job in found]
    if as_json:
        console.print_json([outcome for outcome in outcomes if not isinstance(outcome, ExitCode)])
    codes = [outcome for outcome in outcomes if isinstance(outcome, ExitCode)]
    if codes:
        raise click.exceptions.Exit(codes[0])


def _tried(job: Job, work: Callable[[Job], Any], remove: bool) -> dict[str, Any] | ExitCode:
    try:
        return {"source": job.source, **plain(_done(job, work, remove))}
    except EXPECTED as error:
        told, name = describe(error), console.printable(str(job.source))
        click.echo(f"error: {told}" if name in told else f"error: {name}: {told}", err=True)
        return code_of(error)


def _done(job: Job, work: Callable[[Job], Any], remove: bool) -> Any:
    if job.folder is not None:
        job.folder.mkdir(parents=True, exist_ok=True)
    result = work(job)
    if remove:
        job.source.unlink()
    return result
