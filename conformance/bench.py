"""How fast is the codec, how much memory does it take, and how does that compare with the public codec NNCodec?

    python conformance/bench.py [--quick] [--no-peer] [--json]

Every run is a process of its own; ours and the peer's alternate, and each figure is a median, the ratios of pairs of
runs. Both decode the peer's bitstream (without the peer: ours). Imports and file access are not counted. Aims on one
thread: encoding 5 times, decoding 1.5 times as fast as the peer; memory as `bench_worker` says. ``make bench`` sets up
the peer; without it the ratios are left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import bench_worker
import peer_codec
from rich.console import Console
from rich.table import Table

from nnc_core import CodingParameters

Runs = list[dict[str, Any]]


@dataclass(frozen=True)
class Workload:
    """What `bench_worker` makes, with or without dependent quantization, and how often it is run."""

    name: str
    dq: bool
    rounds: int


@dataclass(frozen=True)
class Figures:
    """One row: times in seconds, memory in MiB; ``ratio`` is how often faster than the peer one thread is."""

    workload: str
    dq: bool
    what: str
    weights: int
    bins: int
    seconds: float
    seconds_all_threads: float | None
    peak_mib: float | None
    bound_mib: float | None
    peer_seconds: float | None
    peer_peak_mib: float | None
    ratio: float | None


def workloads(quick: bool) -> Iterator[Workload]:
    scales = (0.5, 3) if quick else (0.15, 0.5, 1, 3, 10)
    names = [f"laplace:{scale}" for scale in scales]
    rounds = 1 if quick else 3
    for dq in (True,) if quick else (True, False):
        yield from (Workload(name, dq, rounds) for name in names)
        yield Workload("network:2500000" if quick else "network:25000000", dq, rounds)
        if bench_worker.CHECKPOINT.is_file():
            yield Workload("resnet56", dq, rounds)


def ours(*arguments: str | Path) -> dict[str, Any]:
    command = [sys.executable, bench_worker.__file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(map(str, arguments))} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def run(work: Workload, folder: Path, with_peer: bool) -> list[Figures]:
    """Measure one workload: quantize, encode, decode."""
    tensors, coded, theirs = folder / "tensors.npz", folder / "ours.nnr", folder / "theirs.nnr"
    flags = () if work.dq else ("--no-dq",)
    options = peer_codec.options(CodingParameters(-38, -75, 2, dq_flag=work.dq))
    ours("make", work.name, tensors)
    runs: dict[str, Runs] = {}

    def note(key: str, result: dict[str, Any]) -> None:
        runs.setdefault(key, []).append(result)

    for _ in range(work.rounds):
        note("quantize", ours("quantize", tensors, *flags))
        note("encode", ours("encode", tensors, coded, "--threads=1", *flags))
        if with_peer:
            note("peer encode", peer_codec.run("encode", tensors, theirs, *options))
        note("encode, all", ours("encode", tensors, coded, *flags))
        source = theirs if with_peer else coded
        note("decode", ours("decode", source, "--threads=1"))
        if with_peer:
            note("peer decode", peer_codec.run("decode", source, folder / "decoded.npz"))
        note("decode, all", ours("decode", source))
    return [figures(work, what, runs) for what in ("quantize", "encode", "decode")]


def figures(work: Workload, what: str, runs: dict[str, Runs]) -> Figures:
    mine, every, peer = runs[what], runs.get(f"{what}, all", []), runs.get(f"peer {what}", [])
    ratios = [theirs["seconds"] / our["seconds"] for our, theirs in zip(mine, peer, strict=False)]
    return Figures(
        workload=work.name,
        dq=work.dq,
        what=what,
        weights=runs["decode"][0]["weights"],
        bins=runs["decode"][0]["bins"],
        seconds=median(r["seconds"] for r in mine),
        seconds_all_threads=_median(every, "seconds"),
        peak_mib=_median(mine, "peak_mib"),
        bound_mib=_median(mine, "bound_mib"),
        peer_seconds=_median(peer, "seconds"),
        peer_peak_mib=_median(peer, "peak_mib"),
        ratio=median(ratios) if ratios else None,
    )


def _median(runs: Runs, key: str) -> float | None:
    values = [run[key] for run in runs if key in run]
    return median(values) if values else None


COLUMNS = ("workload", "dq", "", "Mweights/s", "ns/weight", "ns/bin", "all threads", "peak MiB", "bound")
PEER_COLUMNS = ("peer Mweights/s", "peer peak", "times faster")


def table_of(rows: list[Figures]) -> Table:
    caption = "All threads: Mweights/s; else one thread. Peak: beyond the interpreter's own, the peer's with it."
    table = Table(title="throughput and memory", caption=caption)
    for column in COLUMNS + PEER_COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:3] else "right")
    for r in rows:
        table.add_row(*cells(r), end_section=r.what == "decode")
    return table


def cells(r: Figures) -> list[str]:
    def rate(seconds: float | None) -> str:
        return "-" if seconds is None else f"{r.weights / seconds / 1e6:.2f}"

    def number(value: float | None, digits: int = 0) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    per_weight = f"{r.seconds * 1e9 / r.weights:.1f}"
    per_bin = "-" if r.what == "quantize" else f"{r.seconds * 1e9 / r.bins:.1f}"
    speed = [rate(r.seconds), per_weight, per_bin, rate(r.seconds_all_threads)]
    memory = [number(r.peak_mib), number(r.bound_mib)]
    peer = [rate(r.peer_seconds), number(r.peer_peak_mib), number(r.ratio, 2)]
    return [r.workload, "yes" if r.dq else "no", r.what, *speed, *memory, *peer]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and smaller workloads, one run of each")
    parser.add_argument("--no-peer", action="store_true", help="measure only this codec")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON instead of a table")
    options = parser.parse_args()
    console = Console(stderr=True)
    reason = "not wanted" if options.no_peer else peer_codec.missing()
    if reason:
        console.print(f"without the peer: {reason}")
    rows: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        for work in workloads(options.quick):
            with console.status(f"{work.name}, dq {'on' if work.dq else 'off'}"):
                rows += run(work, Path(folder), with_peer=not reason)
    if options.json:
        print(json.dumps([asdict(r) for r in rows], indent=1))
    else:
        Console().print(table_of(rows))


if __name__ == "__main__":
    main()
