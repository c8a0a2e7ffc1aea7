"""How much slower is the decoder in WebAssembly than the native one?

    python -m conformance.bench.wasm [--rounds N] [FILE.nnr ...]

Both decode the same bitstreams on one thread, from bytes in memory to arrays, in turns; a figure is the least CPU time
of the rounds. Without files, random weights of the usual distributions are coded. `make wasm` builds what is measured;
the goal is 1.4 times the native time.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import nnc_core
from conformance.bench.synthetic import laplace

SCRIPT = Path(__file__).resolve().parents[2] / "nnc_core" / "wasm" / "bench.mjs"
SHAPE = (1024, 2048)
TIMES = 20
"""How often a file is decoded in each turn; an engine needs the first times to compile what is used much."""


def workloads() -> Iterator[tuple[str, bytes]]:
    """Bitstreams of two million weights each."""
    dense, wide = laplace(SHAPE, 1), laplace(SHAPE, 12)
    sparse = np.where(np.random.default_rng(1).random(SHAPE) < 0.05, wide, np.float32(0))
    for name, weights, dq in (("dense", dense, True), ("dense, uniform", dense, False), ("fine", wide, True)):
        yield name, nnc_core.encode({"w": weights}, qp=-38, dq_flag=dq)
    yield "sparse", nnc_core.encode({"w": sparse}, qp=-38)


def native(data: bytes) -> float:
    def once() -> float:
        start = time.process_time()
        nnc_core.decode(data, threads=1)
        return time.process_time() - start

    return min(once() for _ in range(TIMES))


def in_node(path: Path) -> float:
    done = subprocess.run(["node", SCRIPT, path, str(TIMES)], capture_output=True, text=True, check=True)
    return float(done.stdout)


def measured(path: Path, rounds: int) -> tuple[float, float]:
    data = path.read_bytes()
    times = [(native(data), in_node(path)) for _ in range(rounds)]
    return min(ours for ours, _ in times), min(theirs for _, theirs in times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    table = Table("bitstream", "bytes", "native (ms)", "WebAssembly (ms)", "ratio")
    with tempfile.TemporaryDirectory() as folder:
        files = {path.name: path for path in options.files}
        for name, data in () if files else workloads():
            files[name] = Path(folder, f"{len(files)}.nnr")
            files[name].write_bytes(data)
        for name, path in files.items():
            ours, theirs = measured(path, options.rounds)
            size = f"{path.stat().st_size:,}"
            table.add_row(name, size, f"{1e3 * ours:.1f}", f"{1e3 * theirs:.1f}", f"{theirs / ours:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
