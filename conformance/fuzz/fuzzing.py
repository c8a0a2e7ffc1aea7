"""Runs many hostile cases and reports whatever does not end as it should: what the scripts ``fuzz*.py`` have in common.

Every case runs in a worker process with a memory limit and an alarm, so that a crash, a hang or an appetite for memory
is blamed on the case that caused it; so are warnings, and anything that is printed. Such cases are kept in a folder.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rich.console import Console
from rich.progress import Progress


class Case(NamedTuple):
    """Hostile ``files`` by name; ``run`` has ``reader`` read them, and gives the way in which that ended, in a word.

    An exception from ``run`` is a finding.
    """

    reader: str
    what: str
    files: Mapping[str, bytes]
    run: Callable[[], str]


class Cases(Protocol):
    """The cases of a run, of which there is no end; in the first ``cuts`` the data to start from are cut short."""

    cuts: int

    def __getitem__(self, number: int) -> Case:
        """The same case whenever number and seed are."""
        ...


class Outcome(NamedTuple):
    """How a case ended: ``finding`` says what was wrong, if anything."""

    number: int
    reader: str
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

    endings: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    findings: Counter[str] = field(default_factory=Counter)
    slowest: Outcome = field(default_factory=lambda: Outcome(0, "", "", 0))

    def add(self, outcome: Outcome) -> None:
        """Count a case."""
        self.endings[outcome.reader][outcome.ending] += 1
        self.slowest = max(self.slowest, outcome, key=lambda o: o.seconds)
        if outcome.finding:
            self.findings[outcome.reader] += 1

    def lines(self) -> Iterator[str]:
        """One for each reader, and one for all."""
        for reader, endings in sorted(self.endings.items()):
            most = ", ".join(f"{ending} {count}" for ending, count in endings.most_common())
            yield f"{reader}: {endings.total()} cases, {self.findings[reader]} findings: {most}"
        total = sum(endings.total() for endings in self.endings.values())
        yield f"{total} cases, {self.findings.total()} findings"


# One case -------------------------------------------------------------------------------------------------------------


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


def run_case(number: int, case: Case, bounds: Bounds) -> Outcome:
    """Run one case and time it, in this process."""
    before, start = _peak_megabytes(), time.perf_counter()
    finding = ""
    # recorded, and not made errors: these could be caught and taken for what the data are guilty of
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            with _alarm(bounds.seconds):
                ending = case.run()
        except _TooLong:
            ending, finding = "hang", f"more than {bounds.seconds:g} s\n{traceback.format_exc()}"
        except Exception as error:  # the very thing that is looked for
            ending, finding = type(error).__name__, traceback.format_exc()
        seconds = time.perf_counter() - start
        gc.collect(1)  # what is left open warns when it is let go
    grown = _peak_megabytes() - before
    if bounds.megabytes and grown > bounds.megabytes / 2 and not finding:
        ending, finding = "memory", f"the process grew by {grown} MB"
    if warned and not finding:
        ending, finding = "warning", "\n".join(str(warning) for warning in warned)
    return Outcome(number, case.reader, ending, seconds, finding)


def _peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)


# Many cases -----------------------------------------------------------------------------------------------------------


class _Worker:
    """A process that runs the cases it is sent the numbers of; it is replaced when it dies."""

    def __init__(self, cases: Cases, bounds: Bounds) -> None:
        self.number: int | None = None
        self.pipe, other = multiprocessing.Pipe()
        self._cases, self._bounds = cases, bounds
        self._said, path = tempfile.mkstemp()
        os.unlink(path)
        context = multiprocessing.get_context("fork")  # the cases are there already, and so are patches of a test
        self._process = context.Process(target=_serve, args=(other, cases, bounds, self._said), daemon=True)
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
        os.close(self._said)

    def _elapsed(self) -> float:
        return time.perf_counter() - self._started

    def _lost(self, ending: str, finding: str) -> Outcome:
        number, said = self.number or 0, _taken(self._said)
        self.stop()
        return Outcome(number, self._cases[number].reader, ending, self._elapsed(), f"{finding}\n{said}")


def _serve(pipe: Connection, cases: Cases, bounds: Bounds, said: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(said, 1)
    os.dup2(said, 2)
    faulthandler.enable(2)
    gc.freeze()
    if bounds.megabytes:
        _bound_memory(bounds.megabytes << 20)
    while True:
        number = pipe.recv()
        outcome = run_case(number, cases[number], bounds)
        sys.stdout.flush()
        sys.stderr.flush()
        if (text := _taken(said)) and not outcome.finding:
            outcome = outcome._replace(ending="output", finding=text)
        pipe.send(outcome)


def _taken(file: int) -> str:
    """What a file holds, which is empty then."""
    text = os.pread(file, 1 << 16, 0).decode("utf-8", "replace")
    if text:
        os.lseek(file, 0, os.SEEK_SET)
        os.ftruncate(file, 0)
    return text


def _bound_memory(more: int) -> None:
    """Let allocations fail that go far beyond what is in use now."""
    usage = Path("/proc/self/statm")
    used = int(usage.read_text().split()[0]) * resource.getpagesize() if usage.exists() else 1 << 32
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = used + more
    resource.setrlimit(resource.RLIMIT_AS, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


def run(cases: Cases, numbers: Sequence[int], jobs: int, bounds: Bounds) -> Iterator[Outcome]:
    """Run the cases of these numbers in ``jobs`` processes, and yield their outcomes as they come."""
    left = iter(numbers)
    workers = [_Worker(cases, bounds) for _ in range(jobs)]
    try:
        for worker, number in zip(workers, left, strict=False):
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
                if (following := next(left, None)) is not None:
                    worker.start(following)
    finally:
        for worker in workers:
            worker.stop()


# The command ----------------------------------------------------------------------------------------------------------


def parser(description: str | None, damaged: int) -> argparse.ArgumentParser:
    """The options that every run has; ``damaged`` is how many cases of damage it has by default."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--cases", type=int, default=damaged, help="how many with damage (default: %(default)s)")
    options.add_argument("--cuts", type=int, help="how many that are cut short (default: everything at every byte)")
    options.add_argument("--seed", type=int, default=1, help="another seed gives other cases (default: %(default)s)")
    options.add_argument("--jobs", type=int, default=multiprocessing.cpu_count(), help="processes (default: cores)")
    options.add_argument("--seconds", type=float, default=Bounds.seconds, help="for one case (default: %(default)s)")
    options.add_argument("--megabytes", type=int, default=Bounds.megabytes, help="for one case, 0: any amount")
    options.add_argument("--findings", type=Path, default=Path("build/fuzz"), help="folder (default: %(default)s)")
    options.add_argument("--replay", type=int, metavar="NUMBER", help="only this case, without a worker process")
    return options


def command(cases: Cases, options: argparse.Namespace) -> int:
    """Do what the options say; returns the exit code, 1 if there are findings."""
    if options.replay is not None:
        print(cases[options.replay].run())
        return 0
    console = Console()
    summary = Summary()
    cuts = cases.cuts if options.cuts is None else min(options.cuts, cases.cuts)
    numbers = [*chain(range(cuts), range(cases.cuts, cases.cuts + options.cases))]
    # A thread that redraws the bar would not survive the fork.
    with Progress(console=console, auto_refresh=False, disable=not console.is_terminal) as progress:
        task = progress.add_task("fuzz", total=len(numbers))
        for outcome in run(cases, numbers, options.jobs, Bounds(options.seconds, options.megabytes)):
            summary.add(outcome)
            if outcome.finding:
                path = keep(outcome, cases[outcome.number], options.seed, options.findings)
                console.print(f"{outcome.ending}: {path} ({_named(cases[outcome.number])})", **_PLAIN)
            progress.update(task, advance=1, refresh=outcome.number % 100 == 0)
    for line in summary.lines():
        console.print(line, **_PLAIN)
    if numbers:
        slowest = summary.slowest
        console.print(f"slowest {slowest.seconds:.2f} s ({_named(cases[slowest.number])})", **_PLAIN)
    return 1 if summary.findings else 0


_PLAIN: dict[str, Any] = {"markup": False, "highlight": False, "soft_wrap": True}


def _named(case: Case) -> str:
    return f"{case.reader}, {case.what}"


def keep(finding: Outcome, case: Case, seed: int, folder: Path) -> Path:
    """Save the files of a case in a folder of their own, and beside it what happened; returns that report's path."""
    path = folder / f"{_plain(case.reader)}-{seed}-{finding.number}"
    path.mkdir(parents=True, exist_ok=True)
    for number, (name, data) in enumerate(case.files.items()):
        (path / f"{number}-{_plain(name)}").write_bytes(data)  # the name could lead anywhere
    names = ", ".join(map(repr, case.files))
    report = path.with_suffix(".txt")
    report.write_text(f"{_named(case)}\n{names}\n{finding.ending}\n{finding.finding}\n", errors="backslashreplace")
    return report


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)[-60:]
