"""Size, error and cost of decoding of what NNC may be chosen instead of, in one run; the table of docs/choosing.md.

    python -m conformance.bench.choosing

Some matrices of MiniLM (3.1 million weights), one thread, CPU time. Formats to compute with are decoded to float32 by
numpy, for the comparison; a library that computes with them need not do so at all.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import nnc_core
from conformance.bench import minilm

Weights = Mapping[str, NDArray[Any]]
_MATRICES = 12
_ROUNDS = 5


class Row(NamedTuple):
    """Bits and nanoseconds for each weight; the error is None where the format is lossless."""

    name: str
    bits: float
    decibels: float | None
    nanoseconds: float


def rounded(weights: Weights, bits: int, group: int | None) -> tuple[float, Callable[[], Weights]]:
    """Levels with a scale of 16 bits for each row or group: their bits for each weight, and how they are restored."""
    top = 2 ** (bits - 1) - 1
    rows = {name: array.reshape(-1, group or array.shape[-1]) for name, array in weights.items()}
    scales = {name: (np.abs(row).max(1, keepdims=True) / top).astype(np.float16) for name, row in rows.items()}
    levels = {name: np.round(row / scales[name].astype(np.float32)).astype(np.int8) for name, row in rows.items()}
    size = sum(bits * levels[name].size + 16 * scales[name].size for name in rows)

    def restored() -> Weights:
        made = {name: levels[name] * scales[name].astype(np.float32) for name in levels}
        return {name: array.reshape(weights[name].shape) for name, array in made.items()}

    return size / _count(weights), restored


def lossy(weights: Weights) -> Iterator[Row]:
    """Formats to compute with, and NNC at the same error."""
    for name, bits, group in (("int8 per row", 8, None), ("int4 in groups of 32", 4, 32)):
        size, restored = rounded(weights, bits, group)
        seconds, found = _measured(restored)
        error = _decibels(weights, found)
        yield Row(name, size, error, seconds * 1e9 / _count(weights))
        yield _nnc(weights, f"NNC, as good as {name}", sqnr=error)


def lossless(weights: Weights) -> Iterator[Row]:
    """What packs bfloat16 weights and gives every bit of them back."""
    import ml_dtypes
    import zipnn
    import zstandard

    halves = {name: array.astype(ml_dtypes.bfloat16) for name, array in weights.items()}
    data = b"".join(array.tobytes() for array in halves.values())
    packer = zipnn.ZipNN(input_format="byte", bytearray_dtype="bfloat16", threads=1)
    packed = {
        "zstd -3": (zstandard.ZstdCompressor(3).compress(data), zstandard.ZstdDecompressor().decompress),
        "zstd -19": (zstandard.ZstdCompressor(19).compress(data), zstandard.ZstdDecompressor().decompress),
        "ZipNN": (packer.compress(bytearray(data)), packer.decompress),
    }
    for name, (found, unpack) in packed.items():
        seconds, _ = _measured(partial(unpack, found))
        yield Row(name, 8 * len(found) / _count(weights), None, seconds * 1e9 / _count(weights))
    yield _nnc(halves, "NNC --lossless", lossless=True)._replace(decibels=None)


def _nnc(weights: Weights, name: str, **options: Any) -> Row:
    data = nnc_core.encode(weights, threads=1, **options)
    seconds, found = _measured(lambda: nnc_core.decode(data, threads=1))
    return Row(name, 8 * len(data) / _count(weights), _decibels(weights, found), seconds * 1e9 / _count(weights))


def _count(weights: Weights) -> int:
    return sum(array.size for array in weights.values())


def _measured(decode: Callable[[], Any]) -> tuple[float, Any]:
    best = math.inf
    for _ in range(_ROUNDS):
        start = time.process_time()
        found = decode()
        best = min(best, time.process_time() - start)
    return best, found


def _decibels(weights: Weights, found: Weights) -> float:
    power = sum(float(np.square(array, dtype=float).sum()) for array in weights.values())
    errors = (np.subtract(found[name], array, dtype=float) for name, array in weights.items())
    noise = sum(float(np.square(error).sum()) for error in errors)
    return 10 * math.log10(power / noise) if noise else math.inf


def main() -> int:
    """Print the table, in Markdown."""
    if minilm.weights_file() is None:
        print("the weights of MiniLM are not installed (make bench does that)", file=sys.stderr)
        return 1
    layers = ((name, array) for name, array in minilm.matrices().items() if "encoder" in name)
    weights = dict(islice(layers, _MATRICES))
    print("| format | bits per weight | SQNR | decoding, ns per weight |\n|---|---:|---:|---:|")
    for make in (lossy, lossless):
        for row in make(weights):
            error = "exact" if row.decibels is None else f"{row.decibels:.1f} dB"
            print(f"| {row.name} | {row.bits:.2f} | {error} | {row.nanoseconds:.1f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
