"""Tasks in any executor, and the folder in which what is finished stays until everything is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from contextlib import contextmanager, suppress
from dataclasses import field
from pathlib import Path
from typing import Any, Final, TypeVar

from nnc_adapters.shared.files import check_free, put_in_place, walk
from nnc_adapters.shared.unfinished import undone
from nnc_core.records import dataclass

__all__ = ["RECEIPT", "Finished", "finished_in", "run"]

Result = TypeVar("Result")
_PARTIAL: Final = ".partial"
_MARKER: Final = ".nnc-unfinished"
"""A file that says whose folder it is."""
RECEIPT: Final = ".receipt"
"""What ends the name of the file that says what was finished, and from what."""


def run(
    executor: Executor | None, work: Callable[..., Result], tasks: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[int, Result]]:
    """Call ``work`` with each of the ``tasks``, and yield their numbers and results as they come.

    When one fails or the caller stops, those not started are dropped. `ChildProcessError` where a worker ended before
    its work did.
    """
    if executor is None:
        for number, task in enumerate(tasks):
            yield number, work(*task)
        return
    futures: dict[Future[Result], int] = {}
    try:
        for number, task in enumerate(tasks):
            futures[executor.submit(work, *task)] = number
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenExecutor as error:
        message = "a worker ended before its work did; was it killed, or out of memory?"
        raise ChildProcessError(f"{message} What is finished is kept: the same command goes on from there") from error
    finally:
        for future in futures:
            future.cancel()


@dataclass(frozen=True, slots=True)
class Finished:
    """A ``folder`` that is being filled, and the ``names`` of the files that belong in it, as far as they are known."""

    folder: Path
    names: set[str] = field(default_factory=set)


@contextmanager
def finished_in(target: Path, *, force: bool = False) -> Iterator[Finished]:
    """A folder beside ``target`` for finished files, which takes its place when the block ends well.

    Then it has the files that were named and no others. When the block does not end well, what is finished stays, and
    the next run finds it; a folder with nothing in it vanishes. `FileExistsError` where ``target`` exists, unless
    ``force``, and where there is another folder of this name.
    """
    check_free(target, force=force)
    finished = Finished(_unfinished(target.with_name(target.name + _PARTIAL)))
    with undone(lambda: _left_tidy(finished.folder)):
        yield finished
        _tidy(finished.folder, finished.names.__contains__)
        put_in_place(finished.folder, target, force=force)


def _unfinished(folder: Path) -> Path:
    """The folder, made if it is not there; one that others have filled is left alone."""
    folder.mkdir(exist_ok=True)
    if not (folder / _MARKER).exists():
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is in the way: finished files would go there; move it")
        (folder / _MARKER).touch()
    return folder


def _left_tidy(folder: Path) -> None:
    """Leave what is finished, or nothing."""
    with suppress(OSError):
        _tidy(folder, lambda name: not _is_temporary(name))
        if [path.name for path in folder.iterdir()] == [_MARKER]:
            _tidy(folder, lambda name: False)


def _is_temporary(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last.startswith(".nnc-") and last.endswith(".tmp")


def _tidy(folder: Path, wanted: Callable[[str], bool]) -> None:
    """Remove the files that are not ``wanted``, and what folders are empty then."""
    for where, _, files in [*walk(folder)][::-1]:
        here = Path(where)
        for name in files:
            if not wanted((here / name).relative_to(folder).as_posix()):
                (here / name).unlink()
        if not any(here.iterdir()):
            here.rmdir()
