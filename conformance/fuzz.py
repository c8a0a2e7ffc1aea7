"""Decodes many hostile bitstreams and reports whatever is neither success nor an `NncError`: run by ``make fuzz``.

Every case runs in a worker process with a memory limit and an alarm, so that a crash, a hang or an appetite for memory
is blamed on the case that caused it. Such cases are kept in a folder, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple

from hostile import Cases
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

import nnc_core
from nnc_core.bitstream import Bitstream

LIMITS = nnc_core.Limits(
    tensor_elements=1 << 20, decoded_bytes=1 << 23, units=1 << 10, name_length=1 << 10, topology_bytes=1 << 18
)
"""Tight, but enough for everything that the cases are made from."""


class Outcome(NamedTuple):
    """How a case ended: ``ending`` is ``decoded`` or a class of error; ``finding`` says what was wrong, if anything."""

    number: int
    ending: str
    seconds: float
    finding: str = ""


@dataclass(frozen=True)
class Bounds:
    """What one case may take; ``megabytes`` 0 means any amount."""

    seconds: float = 10
    megabytes: int = 256


@dataclass
class Summary:
    """What came out of a run."""

    endings: Counter[str] = field(default_factory=Counter)
    findings: list[Outcome] = field(default_factory=list)
    slowest: Outcome = field(default_factory=lambda: Outcome(0, "", 0))

    def add(self, outcome: Outcome) -> None:
        """Count a case."""
        self.endings[outcome.ending] += 1
        self.slowest = max(self.slowest, outcome, key=lambda o: o.seconds)
        if outcome.finding:
            self.findings.append(outcome)


# One case -------------------------------------------------------------------------------------------------------------


def exercise(data: bytes, *, threads: int = 1) -> str:
    """Use all of the reading side on one bitstream; return ``decoded`` or the class of the first error on purpose."""
    ending = "decoded"
    try:
        check_size(nnc_core.decode(data, limits=LIMITS, threads=threads))
    except nnc_core.NncError as error:
        ending = check_error(error)
    for look in (walk, decode_each, decode_file):
        with _refusing():
            look(data)
    return ending


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except nnc_core.NncError as error:
        check_error(error)


def walk(data: bytes) -> None:
    """Look at all headers and the topology, as ``nnc inspect`` does."""
    bitstream = Bitstream(data, LIMITS)
    for unit in bitstream.units:
        bitstream.trace(unit)
    _ = bitstream.topology


def decode_each(data: bytes) -> None:
    """Decode every tensor, no matter how the others fare."""
    file = nnc_core.NnrFile(data, LIMITS)
    for name in file:
        with _refusing():
            check_size({name: file[name]})
    _ = file.tensors


def decode_file(data: bytes) -> None:
    """Map a file with the data, and decode the first tensor in it."""
    with tempfile.NamedTemporaryFile() as stored:
        stored.write(data)
        stored.flush()
        with nnc_core.open(stored.name, limits=LIMITS) as file:
            for name in file:
                file.decode(name)


def check_error(error: nnc_core.NncError) -> str:
    """An error shall be able to tell what it is about; return its class."""
    if isinstance(error, nnc_core.BitstreamError):
        error.explain()
        if error.bit_offset is not None and error.bit_offset < 0:
            raise ValueError(f"an error before the start of its unit: {error}")
    return f"{type(error).__name__}{'' if str(error) else ' without a message'}"


def check_size(tensors: dict[str, NDArray[Any]]) -> None:
    """Limits are to hold for what comes out, whatever the headers say."""
    if sum(array.nbytes for array in tensors.values()) > LIMITS.decoded_bytes:
        raise ValueError("more came out than decoded_bytes allows")
    if any(array.size > LIMITS.tensor_elements for array in tensors.values()):
        raise ValueError("more came out than tensor_elements allows")


class _TooLong(BaseException):
    """The alarm; no handler for ordinary errors shall catch it."""


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _TooLong

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run_case(number: int, data: bytes, bounds: Bounds) -> Outcome:
    """Exercise one case and time it, in this process."""
    before, start = _peak_megabytes(), time.perf_counter()
    finding = ""
    try:
        with _alarm(bounds.seconds):
            ending = exercise(data, threads=2 if number % 100 == 0 else 1)
    except _TooLong:
        ending, finding = "hang", f"more than {bounds.seconds:g} s\n{traceback.format_exc()}"
    except Exception as error:  # the very thing that is looked for
        ending, finding = type(error).__name__, traceback.format_exc()
    grown = _peak_megabytes() - before
    if bounds.megabytes and grown > bounds.megabytes / 2 and not finding:
        ending, finding = "memory", f"the process grew by {grown} MB"
    return Outcome(number, ending, time.perf_counter() - start, finding)


def _peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)


# Many cases -----------------------------------------------------------------------------------------------------------


class _Worker:
    """A process that runs the cases it is sent the numbers of; it is replaced when it dies."""

    def __init__(self, cases: Cases, bounds: Bounds) -> None:
        self.number: int | None = None
        self.pipe, other = multiprocessing.Pipe()
        self._bounds = bounds
        context = multiprocessing.get_context("fork")  # the cases are there already, and so are patches of a test
        self._process = context.Process(target=_serve, args=(other, cases, bounds), daemon=True)
        self._process.start()
        other.close()

    def start(self, number: int) -> None:
        self.number, self._started = number, time.perf_counter()
        self.pipe.send(number)

    def collect(self) -> Outcome | None:
        """The outcome of the running case, None while there is none; a finding if the process died or must die."""
        if self.number is None:
            return None
        try:
            if self.pipe.poll():
                outcome: Outcome = self.pipe.recv()
                self.number = None
                return outcome
        except (EOFError, ConnectionError):
            self._process.join()
            return self._lost("crash", f"the process ended with code {self._process.exitcode}")
        # The alarm waits for native code to return, and it may never do so.
        if self._elapsed() > 2 * self._bounds.seconds + 1:
            return self._lost("hang", "native code does not return")
        return None

    def stop(self) -> None:
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _elapsed(self) -> float:
        return time.perf_counter() - self._started

    def _lost(self, ending: str, finding: str) -> Outcome:
        self.stop()
        return Outcome(self.number or 0, ending, self._elapsed(), finding)


def _serve(pipe: Connection, cases: Cases, bounds: Bounds) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("error")
    if bounds.megabytes:
        _bound_memory(bounds.megabytes << 20)
    while True:
        number = pipe.recv()
        pipe.send(run_case(number, cases[number][1], bounds))


def _bound_memory(more: int) -> None:
    """Let allocations fail that go far beyond what is in use now."""
    usage = Path("/proc/self/statm")
    used = int(usage.read_text().split()[0]) * resource.getpagesize() if usage.exists() else 1 << 32
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = used + more
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def run(cases: Cases, count: int, jobs: int, bounds: Bounds) -> Iterator[Outcome]:
    """Run the first ``count`` cases in ``jobs`` processes, and yield their outcomes as they come."""
    numbers = iter(range(count))
    workers = [_Worker(cases, bounds) for _ in range(jobs)]
    try:
        for worker, number in zip(workers, numbers, strict=False):
            worker.start(number)
        while running := [worker for worker in workers if worker.number is not None]:
            wait([worker.pipe for worker in running], timeout=1)
            for worker in running:
                outcome = worker.collect()
                if outcome is None:
                    continue
                yield outcome
                if worker.number is not None:  # it is gone, with its case
                    workers[workers.index(worker)] = worker = _Worker(cases, bounds)
                if (number := next(numbers, None)) is not None:
                    worker.start(number)
    finally:
        for worker in workers:
            worker.stop()


def keep(finding: Outcome, cases: Cases, seed: int, folder: Path) -> Path:
    """Save the case, and beside it what happened."""
    folder.mkdir(parents=True, exist_ok=True)
    what, data = cases[finding.number]
    path = folder / f"{seed}-{finding.number}.nnr"
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(f"{what}\n{finding.ending}\n{finding.finding}\n")
    return path


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _options(arguments)
    cases = Cases(options.seed)
    console = Console()
    if options.replay is not None:
        print(exercise(options.replay.read_bytes()))
        return 0
    summary = Summary()
    # A thread that redraws the bar would not survive the fork.
    with Progress(console=console, auto_refresh=False, disable=not console.is_terminal) as progress:
        task = progress.add_task("fuzz", total=options.cases)
        for outcome in run(cases, options.cases, options.jobs, Bounds(options.seconds, options.megabytes)):
            summary.add(outcome)
            if outcome.finding:
                path = keep(outcome, cases, options.seed, options.findings)
                console.print(f"{outcome.ending}: {path} ({cases[outcome.number][0]})", markup=False, soft_wrap=True)
            progress.update(task, advance=1, refresh=outcome.number % 100 == 0)
    endings = ", ".join(f"{ending} {count}" for ending, count in summary.endings.most_common())
    slowest = f"slowest {summary.slowest.seconds:.2f} s ({cases[summary.slowest.number][0]})"
    totals = f"{summary.endings.total()} cases, {len(summary.findings)} findings"
    console.print(f"{totals}: {endings}; {slowest}", markup=False, highlight=False, soft_wrap=True)
    return 1 if summary.findings else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives other cases (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="processes (default: cores)")
    parser.add_argument("--seconds", type=float, default=Bounds.seconds, help="for one case (default: %(default)s)")
    parser.add_argument("--megabytes", type=int, default=Bounds.megabytes, help="for one case, 0: any amount")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz"), help="folder (default: %(default)s)")
    parser.add_argument("--replay", type=Path, help="only this file, without a worker process")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
