"""Running jobs in several threads without losing their order, or holding many results."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def thread_count(threads: int | None) -> int:
    """``threads``, or one for each core that this process may use; ValueError below 1."""
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1:
        raise ValueError(f"threads is {threads}, expected 1 or more")
    return threads


def in_order(jobs: Iterable[Callable[[], T]], threads: int | None = None) -> Iterator[T]:
    """Yield the results of ``jobs`` in order; no more jobs are drawn ahead than there are threads.

    The jobs are drawn in the caller's thread. When one fails or the caller stops, those not started are dropped.
    """
    count = thread_count(threads)
    if count == 1:
        for job in jobs:
            yield job()
        return
    with ThreadPoolExecutor(count) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(job))
                del job  # or the last job's tensor would be held for as long as the next one takes
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
