"""How fast is the codec, how small are its files, how much memory does it take, and how do others compare?

    python -m conformance.bench.speed [--quick] [--no-peer] [--only WORKLOAD,...] [--rounds N] [--json FILE]

Every run is a process of its own on one thread; ours and those of others alternate, and each figure is the median of
its runs, a ratio the median of the ratios of pairs. CPU time is what counts: wall time wanders with whatever else runs.
Times in process leave out imports and file access; the rows of whole processes include both. Goals on one thread:
encoding 9 times, decoding 3 times as fast as the public codec NNCodec, 2 ns for a zero of a sparse tensor.
``make bench`` installs what is compared; what is not there is left out, and said.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from conformance.bench import jobs as bench_jobs
from conformance.bench import minilm
from conformance.bench import others as bench_others
from conformance.bench import worker as bench_worker
from conformance.support import peer_codec
from nnc_core import CodingParameters

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "build" / "bench.json"
QP = CodingParameters(-38, -75, 2)
_SPLIT = {"resnet56": 0, "minilm": 4}
"""The scan order with which speed-ups are simulated: half of MiniLM is one tensor, which only entry points divide."""


@dataclass(frozen=True)
class Workload:
    """What `bench_worker` makes; ``peer`` says whether NNCodec takes part, ``others`` whether byte packers do."""

    name: str
    dq: bool = True
    scan: int = 0
    peer: bool = True
    others: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Row:
    """One line: a workload in one direction. Seconds are of CPU time but for ``wall``; ``sqnr`` is in dB."""

    workload: str
    what: str
    tool: str
    weights: int
    bytes: int
    cpu: float
    wall: float
    sqnr: float | None = None
    peak_mib: float | None = None
    bound_mib: float | None = None
    ratio: float | None = None
    size_ratio: float | None = None
    speed_up: tuple[float, float] | None = None


def workloads(quick: bool) -> Iterator[Workload]:
    """The list, small ones first."""
    yield Workload("startup", whole=True)
    yield Workload("tiny:1000")
    if not quick:
        yield Workload("tiny:10000", peer=False)  # which takes NNCodec minutes
    yield Workload("digits", whole=True)
    for scale in (1,) if quick else (0.15, 1, 10):
        yield Workload(f"laplace:{scale}")
        yield Workload(f"laplace:{scale}", dq=False)
    for share in (0.99,) if quick else (0.9, 0.99, 0.999):
        yield Workload(f"sparse:{share}")
    if bench_worker.CHECKPOINT.is_file():
        yield Workload("resnet56", others=True, whole=True)
    yield Workload("update", peer=False)
    if not quick:
        if minilm.weights_file() is not None:
            yield Workload("minilm", others=True, whole=True)
        yield Workload("huge:100000000", peer=False)
        yield Workload("huge:100000000", scan=4, peer=False)


def run(work: Workload, folder: Path, rounds: int, with_peer: bool) -> list[Row]:
    """Measure one workload in both directions."""
    tensors, coded = folder / "tensors.npz", folder / "ours.nnr"
    theirs, decoded = folder / "theirs.nnr", folder / "decoded.npz"
    bench_worker.call("make", work.name, tensors)
    flags = ("--threads=1", f"--scan={work.scan}", *(() if work.dq else ("--no-dq",)))
    options = peer_codec.options(replace(QP, dq_flag=work.dq, scan_order=work.scan))
    peer = with_peer and work.peer
    runs: dict[str, list[dict[str, Any]]] = {}

    def note(key: str, result: dict[str, Any]) -> None:
        runs.setdefault(key, []).append(result)

    for _ in range(rounds):
        note("encode", bench_worker.call("encode", tensors, coded, *flags))
        if peer:
            note("peer encode", peer_codec.run("encode", tensors, theirs, *options))
        note("decode", bench_worker.call("decode", theirs if peer else coded, "--threads=1"))
        if peer:
            note("peer decode", peer_codec.run("decode", theirs, decoded))
    quality = bench_worker.call("compare", tensors, coded)["sqnr"]
    speed_up = bench_jobs.speed_up(tensors, work.dq, _SPLIT[work.name]) if work.name in _SPLIT else None
    return [row for what in ("encode", "decode") for row in _rows(work, what, runs, quality, speed_up)]


def _rows(
    work: Workload,
    what: str,
    runs: dict[str, list[dict[str, Any]]],
    quality: float,
    speed_up: dict[str, tuple[float, float]] | None,
) -> Iterator[Row]:
    mine, peer = runs[what], runs.get(f"peer {what}", [])
    name = work.name + ("" if work.dq else ", uniform") + (f", scan order {work.scan}" if work.scan else "")
    size, theirs = int(_median(runs["encode"], "bytes")), _median(runs.get("peer encode", []), "bytes")
    yield Row(
        workload=name,
        what=what,
        tool="nnc",
        weights=mine[0]["weights"],
        bytes=size,
        cpu=_median(mine, "cpu"),
        wall=_median(mine, "seconds"),
        sqnr=quality,
        peak_mib=_median(mine, "peak_mib"),
        bound_mib=_median(mine, "bound_mib"),
        ratio=median(p["cpu"] / m["cpu"] for m, p in zip(mine, peer, strict=True)) if peer else None,
        size_ratio=size / theirs if peer else None,
        speed_up=speed_up[what] if speed_up else None,
    )
    if peer:
        cpu, wall = _median(peer, "cpu"), _median(peer, "seconds")
        yield Row(name, what, "NNCodec", mine[0]["weights"], int(theirs), cpu, wall)


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return median(each[key] for each in runs) if runs else 0.0


COLUMNS = (
    "workload",
    "",
    "tool",
    "bits/weight",
    "size",
    "SQNR dB",
    "CPU ns/weight",
    "wall s",
    "peer's CPU",
    "peak MiB",
)


def table_of(rows: list[Row]) -> Table:
    """The table for a terminal."""
    caption = "Peer's CPU: NNCodec's CPU time over ours, its size under ours; x2, x4: speed-up with threads, simulated."
    table = Table(title="speed, size, quality and memory on one thread", caption=caption)
    for column in (*COLUMNS, "x2, x4"):
        table.add_column(column, justify="left" if column in COLUMNS[:3] else "right")
    for each in rows:
        table.add_row(*cells(each))
    return table


def cells(r: Row) -> list[str]:
    """A row as text."""

    def number(value: float | None, digits: int) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    size = "" if r.size_ratio is None else f"{100 * r.size_ratio:.2f} %"
    bits = "" if not r.bytes else f"{8 * r.bytes / r.weights:.3f}"
    memory = "" if r.peak_mib is None else f"{r.peak_mib:.0f} of {r.bound_mib:.0f}"
    threads = "" if r.speed_up is None else ", ".join(f"{each:.2f}" for each in r.speed_up)
    per_weight = f"{1e9 * r.cpu / r.weights:.1f}"
    return [
        *(r.workload, r.what, r.tool, bits, size, number(r.sqnr, 1), per_weight, f"{r.wall:.2f}"),
        *(number(r.ratio, 2), memory, threads),
    ]


def main() -> None:
    """Run everything, print the table and keep the results for `bench_report`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and smaller workloads, one run of each")
    parser.add_argument("--no-peer", action="store_true", help="measure only this codec")
    parser.add_argument("--only", default="", help="workloads whose name begins with one of these, with commas between")
    parser.add_argument("--rounds", type=int, help="runs of each [default: 3, with --quick 1]")
    parser.add_argument(
        "--json", type=Path, default=RESULTS, help="where to keep the results [default: build/bench.json]"
    )
    options = parser.parse_args()
    console = Console(stderr=True)
    reason = "not wanted" if options.no_peer else peer_codec.missing()
    for what in filter(None, (reason and f"NNCodec: {reason}", *bench_others.missing())):
        console.print(f"left out: {what}")
    rounds = options.rounds or (1 if options.quick else 3)
    wanted = tuple(options.only.split(",")) if options.only else ("",)
    rows: list[Row] = []
    for work in (each for each in workloads(options.quick) if each.name.startswith(wanted)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            console.print(f"{work.name} ...")
            found = run(work, folder, rounds, not reason)
            if work.whole:
                found += [Row(**each) for each in bench_others.processes(work.name, folder, rounds, not reason)]
            if work.others:
                found += [Row(**each) for each in bench_others.packers(work.name, folder)]
        rows += found
        Console(width=180).print(table_of(found))
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps([asdict(each) for each in rows], indent=1))
    console.print(f"{options.json}: {len(rows)} rows; make bench-report shows them")


if __name__ == "__main__":
    main()
