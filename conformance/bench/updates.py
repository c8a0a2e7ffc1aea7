"""How small exact updates are, beside what projects for weight synchronisation do by hand.

Real weights in bfloat16 take simulated steps of an optimizer at three learning rates. Every size is in percent of the
bfloat16 weights. ``python -m conformance.bench.updates [--json]``; also part of ``make bench``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np

from conformance.bench.minilm import PACKAGE, matrices, weights_file
from nnc_core import UpdateDecoder, UpdateEncoder, UpdateOptions

RATES = (1.03e-6, 3.0e-6, 1.01e-5)
"""Learning rates at which 1.75, 4.1 and 10.5 percent of the weights change."""

Model = dict[str, np.ndarray]
Row = dict[str, float | None]


def models(rate: float) -> tuple[Model, Model]:
    """The weights before and after a step of this size."""
    rng = np.random.default_rng(1)
    base, new = {}, {}
    for name, weights in matrices().items():
        base[name] = weights.astype(ml_dtypes.bfloat16)
        step = rate * rng.normal(0, 1, weights.shape).astype(np.float32)
        new[name] = (weights + step).astype(ml_dtypes.bfloat16)
    return base, new


def changes(base: Model, new: Model) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The flat indices and new bit patterns of what changes, tensor by tensor."""
    for name in base:
        before, after = (model[name].reshape(-1).view(np.uint16) for model in (base, new))
        places = np.flatnonzero(before != after)
        yield places, after[places]


def gaps(places: np.ndarray) -> np.ndarray:
    """Distances between indices as 16-bit numbers; a longer one takes several."""
    steps = np.diff(places, prepend=0)
    return np.concatenate([np.full(int((steps >> 16).sum()), 0xFFFF), steps & 0xFFFF]).astype(np.uint16)


def compressors() -> dict[str, Callable[[bytes], bytes] | None]:
    """What is at hand; None for a package that is not installed."""
    found: dict[str, Callable[[bytes], bytes] | None] = dict.fromkeys(("zstd -3", "zstd -19", "ZipNN"))
    try:
        import zstandard

        found["zstd -3"] = zstandard.ZstdCompressor(level=3).compress
        found["zstd -19"] = zstandard.ZstdCompressor(level=19).compress
    except ImportError:
        pass
    try:
        import zipnn

        packer = zipnn.ZipNN(input_format="byte", bytearray_dtype="bfloat16", threads=1)
        found["ZipNN"] = lambda data: packer.compress(bytearray(data))
    except ImportError:
        pass
    return found


def ours(base: Model, new: Model, options: UpdateOptions) -> tuple[int, float, float]:
    """Bytes, and million weights per second of CPU time in encoding and decoding; the result is checked."""
    weights = sum(array.size for array in base.values())
    encoder, decoder = UpdateEncoder(base, options, threads=1), UpdateDecoder(base, threads=1)
    start = time.process_time()
    update = encoder.encode(new)
    coded = time.process_time()
    decoder.apply(update)
    done = time.process_time()
    if any(decoder.model[name].tobytes() != new[name].tobytes() for name in new):
        raise RuntimeError("the update does not restore the weights")
    return len(update), weights / (coded - start) / 1e6, weights / (done - coded) / 1e6


def row(rate: float) -> Row:
    """All sizes for one step, in percent of the weights."""
    base, new = models(rate)
    whole = sum(array.nbytes for array in base.values())
    found = list(changes(base, new))
    xor = b"".join((base[n].view(np.uint16) ^ new[n].view(np.uint16)).tobytes() for n in base)
    pieces = [piece.tobytes() for places, values in found for piece in (gaps(places), values)]
    zip_ = compressors()
    count = sum(len(places) for places, _ in found)
    ordered, encode, decode = ours(base, new, UpdateOptions(exact=True))
    plain, *_ = ours(base, new, UpdateOptions(exact=True, order="none"))

    def percent(size: int | None) -> float | None:
        return None if size is None else 100 * size / whole

    def packed(name: str, data: bytes) -> float | None:
        compress = zip_[name]
        return None if compress is None else percent(len(compress(data)))

    return {
        "changed": 200 * count / whole,
        "index + value": percent(6 * count),
        "gap + value": percent(sum(map(len, pieces))),
        "gap + value, zstd -3": packed("zstd -3", b"".join(pieces)),
        "XOR, zstd -3": packed("zstd -3", xor),
        "XOR, zstd -19": packed("zstd -19", xor),
        "XOR, ZipNN": packed("ZipNN", xor),
        "NNC, as they lie": percent(plain),
        "NNC": percent(ordered),
        "encode Mw/s": encode,
        "decode Mw/s": decode,
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args().json
    if weights_file() is None:
        print(f"exact updates: left out, the package {PACKAGE} is not installed")
        return
    rows = [row(rate) for rate in RATES]
    if as_json:
        print(json.dumps(rows))
        return
    print("exact updates of bfloat16 weights, in percent of the weights (MiniLM, simulated steps)")
    for name in rows[0]:
        cells = ("not there" if each[name] is None else f"{each[name]:9.2f}" for each in rows)
        print(f"{name:22}", *(f"{cell:>10}" for cell in cells))


if __name__ == "__main__":
    main()
