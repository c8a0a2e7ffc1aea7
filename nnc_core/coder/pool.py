"""Running jobs in several threads without losing their order, or holding more than a window of bytes."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from nnc_core.records import dataclass

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

T = TypeVar("T")

LEAST_WINDOW: Final = 64 << 20
"""The window in bytes, unless twice the largest tensor is more."""
WORTHWHILE: Final = 64 << 10
"""Bytes of tensors from which on a job is worth a thread of its own; smaller neighbours share one."""
LIGHT: Final = 1 << 10
"""Bytes of a tensor on average up to which threads would wait for the interpreter most of the time."""
_MOST_JOBS: Final = 256


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """Something to run, and the bytes of the tensors that it is about; picklable for pools of processes."""

    run: Callable[[], T]
    size: int


def thread_count(threads: int | None) -> int:
    """``threads``, or one for each core that this process may use; ValueError below 1."""
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1:
        raise ValueError(f"threads is {threads}, expected 1 or more")
    return threads


def decoding_threads(threads: int | None, sizes: Sequence[int]) -> int:
    """``threads``, or as `thread_count`; one for tensors that are as small as `LIGHT` on average."""
    count = thread_count(threads)
    return 1 if sum(sizes) <= LIGHT * len(sizes) else count


def in_order(
    jobs: Iterable[Job[T]],
    threads: int | None = None,
    executor: Executor | None = None,
    *,
    running: float = 1,
    result_size: Callable[[T], int] | None = None,
) -> Iterator[T]:
    """Yield the results of ``jobs`` in order; they run in ``executor`` or else in ``threads`` threads.

    Jobs are drawn in the caller's thread, as long as all that are drawn fit the window. A job counts ``running`` times
    its size, its result as ``result_size`` says, or else like the job. When one fails or the caller stops, those not
    started are dropped.
    """
    if executor is None and thread_count(threads) == 1:
        yield from (job.run() for job in jobs)
        return
    with _executor(threads, executor) as pool:
        window: Window[Outcome[T]] = Window(pool, running, result_size and partial(_total, result_size))
        try:
            for outcome in _in_order((job for job, _ in merged(jobs)), window):
                yield from outcome.results
                if outcome.error is not None:
                    raise outcome.error
        finally:
            window.cancel()


def _executor(threads: int | None, executor: Executor | None) -> AbstractContextManager[Executor]:
    return thread_pool(thread_count(threads)) if executor is None else nullcontext(executor)


def thread_pool(threads: int) -> Executor:
    """A pool of so many threads."""
    from concurrent.futures import ThreadPoolExecutor  # which takes long to import, and one thread does without

    return ThreadPoolExecutor(threads)


def _in_order(jobs: Iterator[Job[T]], window: Window[T]) -> Iterator[T]:
    waiting: deque[Future[T]] = deque()
    job = next(jobs, None)
    while waiting or job is not None:
        while job is not None and window.has_room(job.size):
            waiting.append(window.start(job))
            job = next(jobs, None)
        if waiting[0].done():
            yield window.take(waiting.popleft())
        else:
            window.wait()


class Window(Generic[T]):
    """Jobs that are started in an executor, as long as what they hold fits a number of bytes.

    That is twice the largest tensor, or 64 MiB. Where nothing is held, one job can always start.
    """

    def __init__(self, executor: Executor, running: float = 1, result_size: Callable[[T], int] | None = None) -> None:
        self._executor = executor
        self._running = running
        self._result_size = result_size
        self._largest = 0
        self._sizes: dict[Future[T], int] = {}

    def has_room(self, size: int) -> bool:
        """Whether a job for tensors of ``size`` bytes can start."""
        if not self._sizes or len(self._sizes) >= _MOST_JOBS:
            return not self._sizes
        held = sum(self._held(future) for future in self._sizes)
        return held + self._running * size <= max(2 * self._largest, 2 * size, LEAST_WINDOW)

    def start(self, job: Job[T]) -> Future[T]:
        """Start a job; its result is to be fetched with `take`."""
        future = self._executor.submit(job.run)
        self._largest = max(self._largest, job.size)
        self._sizes[future] = job.size
        return future

    def take(self, future: Future[T]) -> T:
        """The result of a job, as soon as it is there; the window then has room for others."""
        try:
            return future.result()
        finally:
            del self._sizes[future]

    def wait(self) -> None:
        """Wait until one more job is done."""
        from concurrent.futures import FIRST_COMPLETED, wait

        wait([future for future in self._sizes if not future.done()], return_when=FIRST_COMPLETED)

    def cancel(self) -> None:
        """Drop what has not started."""
        for future in self._sizes:
            future.cancel()

    def _held(self, future: Future[T]) -> float:
        if self._result_size is None or not future.done() or future.cancelled() or future.exception():
            return self._running * self._sizes[future]
        return self._result_size(future.result())


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """The results of neighbouring jobs, up to one that failed."""

    results: list[T]
    error: Exception | None


def merged(jobs: Iterable[Job[T]]) -> Iterator[tuple[Job[Outcome[T]], int]]:
    """Jobs that each run several neighbours, of which alone none would be worth a thread, and how many those are."""
    runs: list[Callable[[], T]] = []
    size = 0
    for job in jobs:
        if runs and size + job.size > WORTHWHILE:
            yield _merge(runs, size)
            size = 0
        runs.append(job.run)
        size += job.size
        del job  # or the last job's tensor would be held for as long as the next one takes
    if runs:
        yield _merge(runs, size)


def _merge(runs: list[Callable[[], T]], size: int) -> tuple[Job[Outcome[T]], int]:
    """The list is emptied, so that nothing but the job holds what is in it."""
    moved = runs.copy()
    runs.clear()
    return Job(partial(_run, moved), size), len(moved)


def _run(runs: list[Callable[[], T]]) -> Outcome[T]:
    results: list[T] = []
    try:
        results.extend(run() for run in runs)
    except Exception as error:  # it comes after the results before it
        return Outcome(results, error)
    return Outcome(results, None)


def _total(size: Callable[[Any], int], outcome: Outcome[Any]) -> int:
    return sum(map(size, outcome.results))
