"""Who does the work on models of several files: this process, others of this machine, or other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["executor_of", "worker_options"]

_Command = TypeVar("_Command", bound="Callable[..., Any]")

_OPTIONS = (
    click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Work on the files in N processes."),
    click.option("--dask", metavar="ADDRESS", help="Work on the files with Dask; the address of its scheduler."),
    click.option("--ray", metavar="ADDRESS", help="Work on the files with Ray: auto, or an address."),
)


def worker_options(command: _Command) -> _Command:
    """The options that say who works on the files of a sharded model."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@contextmanager
def executor_of(*, workers: int | None, dask: str | None, ray: str | None) -> Iterator[Executor | None]:
    """Who does the work; None: this process. A usage error for more than one of them."""
    given = {"--workers": workers, "--dask": dask, "--ray": ray}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise click.UsageError(f"{' and '.join(named)} are mutually exclusive")
    with ExitStack() as stack:
        yield None if not named else stack.enter_context(_executor(workers, dask, ray))


def _executor(workers: int | None, dask: str | None, ray: str | None) -> Any:
    from nnc_adapters.sharded import dask_executor, process_executor, ray_executor

    if workers is not None:
        return process_executor(workers)
    return dask_executor(dask) if dask is not None else ray_executor(str(ray))
