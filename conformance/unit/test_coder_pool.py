"""Jobs in several threads: their order, what they hold, and how well they share the threads."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnc_core
from nnc_core import CodingParameters
from nnc_core.coder import payload
from nnc_core.coder.pool import LEAST_WINDOW, WORTHWHILE, Job, Window, decoding_threads, in_order, merged
from nnc_core.entropy import native

RESNET_56 = [
    432,
    16,
    16,
    *[2304, 16, 16] * 18,
    4608,
    32,
    32,
    *[9216, 32, 32] * 17,
    18432,
    64,
    64,
    *[36864, 64, 64] * 17,
]
LARGE_FIRST = [1_000_000, *[10_000] * 100]
LARGE_IN_BETWEEN = [*[10_000] * 30, 500_000, *[10_000] * 20, 400_000, *[10_000] * 60]


class Simulated(Executor):
    """An executor that runs nothing, but keeps count of when jobs would be done that take as long as their results."""

    def __init__(self, threads: int) -> None:
        self.now = 0.0
        self._idle = threads
        self._queue: deque[tuple[Future[Any], float]] = deque()
        self._running: list[tuple[float, int, Future[Any]]] = []

    def submit(self, run: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        outcome = run(*arguments, **named)
        self._queue.append((future, sum(outcome.results)))
        future.outcome = outcome  # type: ignore[attr-defined]
        self._start()
        return future

    def _start(self) -> None:
        while self._idle and self._queue:
            future, cost = self._queue.popleft()
            self._idle -= 1
            heapq.heappush(self._running, (self.now + cost, id(future), future))

    def advance(self) -> None:
        """Go on to when the next job is done."""
        self.now, _, future = heapq.heappop(self._running)
        self._idle += 1
        self._start()
        future.set_result(future.outcome)  # type: ignore[attr-defined]


@pytest.mark.parametrize("weights", [RESNET_56, LARGE_FIRST, LARGE_IN_BETWEEN], ids=["ResNet-56", "first", "between"])
@pytest.mark.parametrize(("threads", "gain"), [(2, 1.85), (4, 3.3)])
def test_threads_share_the_work_whatever_the_order_of_large_and_small(
    weights: list[int], threads: int, gain: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated = Simulated(threads)
    monkeypatch.setattr(Window, "wait", lambda _: simulated.advance())
    jobs = (Job(partial(int, w), 4 * w) for w in weights)
    assert list(in_order(jobs, executor=simulated, running=1.5)) == weights
    assert sum(weights) / simulated.now > min(gain, 0.97 * sum(weights) / max(weights))


def _sleep(size: int, seconds: float) -> int:
    time.sleep(seconds)
    return size


class Held:
    """Counts the bytes of the jobs that were drawn and whose results were not taken yet."""

    def __init__(self, sizes: list[int]) -> None:
        self._sizes = sizes
        self.now = self.most = 0

    def jobs(self) -> Iterator[Job[int]]:
        for size in self._sizes:
            self.now += size
            self.most = max(self.most, self.now)
            yield Job(partial(_sleep, size, 0.0005), size)

    def take(self, threads: int) -> list[int]:
        taken = []
        for size in in_order(self.jobs(), threads):
            self.now -= size
            taken.append(size)
        return taken


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([10, 1000, LEAST_WINDOW // 8, LEAST_WINDOW, 2 * LEAST_WINDOW]), max_size=40))
def test_what_is_drawn_fits_the_window_but_for_one_tensor_that_waits(sizes: list[int]) -> None:
    held = Held(sizes)
    assert held.take(3) == sizes
    largest = max(sizes, default=0)
    assert held.most <= max(2 * largest, LEAST_WINDOW) + 2 * (largest + WORTHWHILE)


def test_results_count_as_what_they_are() -> None:
    sizes = [LEAST_WINDOW // 4] * 64
    drawn = 0

    def jobs() -> Iterator[Job[int]]:
        nonlocal drawn
        for size in sizes:
            drawn += 1
            yield Job(partial(_sleep, size, 0.001), size)

    results = in_order(jobs(), 2, result_size=lambda _: 1)
    next(results)
    time.sleep(0.3)
    next(results)
    next(results)
    assert drawn > 8  # what is done does not keep others from starting
    assert len(list(results)) == 61


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3 * WORTHWHILE), max_size=30))
def test_small_neighbours_share_a_job(sizes: list[int]) -> None:
    groups = list(merged(Job(partial(int, size), size) for size in sizes))
    assert [result for job, _ in groups for result in job.run().results] == sizes
    assert sum(count for _, count in groups) == len(sizes)
    assert all(count == 1 or job.size <= WORTHWHILE for job, count in groups)


def _fail() -> int:
    raise OverflowError("on purpose")


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_after_the_results_before_it(threads: int) -> None:
    jobs: list[Job[int]] = [Job(partial(int, 1), 4), Job(partial(int, 2), 4), Job(_fail, 4), Job(partial(int, 3), 4)]
    results = in_order(jobs, threads)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(OverflowError):
        next(results)


def test_what_has_not_started_is_dropped_with_the_iterator() -> None:
    release, ran = threading.Event(), []

    def run(number: int) -> int:
        if number:
            release.wait(5)
        ran.append(number)
        return number

    results = in_order((Job(partial(run, n), WORTHWHILE) for n in range(30)), 2)
    assert next(results) == 0
    release.set()
    del results
    assert len(ran) <= 30


TENSORS = {f"t{n}": np.random.default_rng(n).normal(0, 1, (40, 10 * n + 1)).astype(np.float32) for n in range(12)}
TENSORS["raw"] = np.full((3, 3), np.nan, np.float32)


def test_any_executor_gives_the_same_bytes_and_tensors() -> None:
    expected = nnc_core.encode(TENSORS, threads=1)
    with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(2, get_context("spawn")) as processes:
        assert nnc_core.encode(TENSORS, executor=threads) == expected
        assert nnc_core.encode(TENSORS, executor=processes) == expected
        decoded = [nnc_core.decode(expected, executor=pool) for pool in (threads, processes)]
    for name, array in nnc_core.decode(expected, threads=1).items():
        for each in decoded:
            np.testing.assert_array_equal(each[name], array)


@pytest.mark.parametrize(("sizes", "expected"), [([64] * 5000, 1), ([64, 64, 1 << 20], 3), ([1 << 20], 3), ([], 1)])
def test_tiny_tensors_are_decoded_in_one_thread(sizes: list[int], expected: int) -> None:
    assert decoding_threads(3, sizes) == expected
    with pytest.raises(ValueError, match="threads is 0"):
        decoding_threads(0, sizes)


def test_threads_do_not_change_the_bytes() -> None:
    expected = nnc_core.encode(TENSORS, threads=1, parameters=CodingParameters(scan_order=1))
    assert nnc_core.encode(TENSORS, threads=5, parameters=CodingParameters(scan_order=1)) == expected


def test_threads_share_a_large_tensor_that_has_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    shared: list[int] = []

    def encode(*arguments: Any, **options: Any) -> Any:
        shared.append(options["threads"])
        return native.encode(*arguments, **options)

    def decode(*arguments: Any) -> Any:
        shared.append(arguments[-1])
        return native.decode(*arguments)

    monkeypatch.setattr(payload, "encode", encode)
    monkeypatch.setattr(payload, "decode", decode)
    monkeypatch.setattr(payload, "SHARED", 1 << 14)
    large = np.random.default_rng(1).normal(size=(300, 200)).astype(np.float32)
    tensors = {"large": large, "small": large[:10, :10].copy()}
    alone, together = (nnc_core.encode(tensors, scan_order=2, threads=n) for n in (1, 3))
    assert together == alone
    assert set(shared) == {1, 3}
    shared.clear()
    decoded = nnc_core.decode(alone, threads=3)
    assert shared == [3, 1]
    for name, array in nnc_core.decode(alone, threads=1).items():
        assert np.array_equal(decoded[name], array)
