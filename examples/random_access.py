"""Take one tensor out of a large compressed model, without decoding the others.

    python examples/random_access.py [--megabytes N]

Needs nothing but the codec: the model is a row of random matrices, made here.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nnc_core
from nnc_core import SourceModel

SIDE = 512


def layers(megabytes: int) -> dict[str, NDArray[np.float32]]:
    """Matrices of 1 MiB with the spread of trained ones."""
    generator = np.random.default_rng(0)
    return {
        f"layers.{number}.weight": generator.laplace(0, 0.03, (SIDE, SIDE)).astype(np.float32)
        for number in range(megabytes)
    }


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What ``work`` returns, and the milliseconds it takes."""
    started = time.perf_counter()
    return work(), 1000 * (time.perf_counter() - started)


def run(folder: Path, megabytes: int) -> None:
    """Write a bitstream into ``folder``; read one tensor of it, then all."""
    tensors = layers(megabytes)
    path = folder / "large.nnr"
    with path.open("wb") as stream:
        nnc_core.write(stream, SourceModel(tensors))
    wanted = f"layers.{megabytes // 2}.weight"

    file, opening = timed(lambda: nnc_core.open(path))
    with file:
        one, decoding = timed(lambda: file[wanted])
        read = file.tensors[wanted].size
    everything, whole = timed(lambda: nnc_core.decode(path.read_bytes(), threads=1))

    before, total = sum(tensor.nbytes for tensor in tensors.values()), path.stat().st_size
    same = "the same" if np.array_equal(one, everything[wanted]) else "another"
    print(f"model      {len(tensors)} tensors, {before} bytes, compressed {total} bytes")
    print(f"open       {opening:.1f} ms, no tensor decoded")
    print(f"one tensor {decoding:.1f} ms, {read} bytes ({100 * read / total:.1f} % of the file): {wanted}")
    print(f"all        {whole:.1f} ms, {total} bytes, {same} tensor among them")


def main() -> None:
    parser = argparse.ArgumentParser(description="Decode one tensor of a large NNR file.")
    parser.add_argument("--megabytes", type=int, default=32, help="size of the model before compression [32]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), max(arguments.megabytes, 1))


if __name__ == "__main__":
    main()
