"""What does each pass over a sharded checkpoint cost, and what would one of 1 TB take?

    python -m annex_tests.bench.sharded [--gb 1] [--type bfloat16] [--lossless]

Makes shards of safetensors with random weights in the shapes of a large language model, in a temporary folder that
needs three times their size. A process of its own compresses and restores each checkpoint with one thread; CPU time is
taken at the end of every pass, and the peak of the memory that is not a mapped file. The last lines reckon from that,
in proportion, how long a checkpoint of 1 TB keeps cores busy.
"""

from __future__ import annotations

import argparse
import json
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GB = 10**9
_SHAPES = ((4096, 4096), (4096, 1024), (4096, 1024), (4096, 4096), (14336, 4096), (14336, 4096), (4096, 14336))
_TYPES = {"bfloat16": ("BF16", 2), "float32": ("F32", 4)}

_CHILD = """
import json, sys, threading, time
import nnc_adapters
from nnc_adapters import sharded
from nnc_core import CodingParameters

peak, at = 0, {}
def watch():
    global peak
    while True:
        with open("/proc/self/status") as status:
            peak = max([peak, *(1024 * int(l.split()[1]) for l in status if l.startswith(("RssAnon", "RssShmem")))])
        time.sleep(0.02)
threading.Thread(target=watch, daemon=True).start()
def meter(stage, done, total):
    at[stage] = time.process_time()
start = time.process_time()
source, target, work, lossless = sys.argv[1:]
if work == "compress":
    options = {"parameters": CodingParameters(lossless=lossless == "True"), "meter": meter, "threads": 1}
    nnc_adapters.compress(source, target, sharded=True, **options)
elif work == "decompress":
    nnc_adapters.decompress(source, target, meter=meter, threads=1)
else:
    nnc_adapters.sharded.index.content_of(next(__import__("pathlib").Path(source).glob("*.safetensors")))
    at["hashing"] = time.process_time()
print(json.dumps({"start": start, "at": at, "peak": peak}))
"""


def weights(generator: np.random.Generator, shape: tuple[int, int], kind: str) -> NDArray[Any]:
    values = generator.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
    return (values.view(np.uint32) >> 16).astype(np.uint16) if kind == "BF16" else values


def layers(size: int, item: int) -> Iterator[list[tuple[str, tuple[int, int]]]]:
    """The tensors of each shard of about half a GB."""
    total, here, shard = 0, 0, []
    for number in range(10**6):
        for index, shape in enumerate(_SHAPES):
            if total >= size:
                if shard:
                    yield shard
                return
            shard.append((f"model.layers.{number}.{index}.weight", shape))
            total, here = total + shape[0] * shape[1] * item, here + shape[0] * shape[1] * item
            if here >= GB // 2:
                yield shard
                here, shard = 0, []


def checkpoint(folder: Path, size: int, name: str) -> int:
    """Make a checkpoint; the bytes that it takes."""
    folder.mkdir()
    kind, item = _TYPES[name]
    generator, total = np.random.default_rng(0), 0
    for number, shard in enumerate(layers(size, item), 1):
        header, at = {}, 0
        for tensor, shape in shard:
            end = at + shape[0] * shape[1] * item
            header[tensor] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, end]}
            at = end
        text = json.dumps(header).encode()
        with (folder / f"model-{number:05d}.safetensors").open("wb") as stream:
            stream.write(struct.pack("<Q", len(text)) + text)
            for _, shape in shard:
                stream.write(weights(generator, shape, kind))
        total += at
    (folder / "config.json").write_text("{}")
    return total


def measured(source: Path, target: Path, work: str, lossless: bool) -> dict[str, Any]:
    command = [sys.executable, "-c", _CHILD, str(source), str(target), work, str(lossless)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=1.0)
    parser.add_argument("--type", choices=_TYPES, default="bfloat16")
    parser.add_argument("--lossless", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source, coded, back = (Path(name, each) for each in ("checkpoint", "coded", "back"))
        size = checkpoint(source, int(options.gb * GB), options.type) / GB
        first = measured(source, coded, "compress", options.lossless)
        one = next(source.glob("*.safetensors")).stat().st_size / GB
        hashed = measured(source, coded, "hash", options.lossless)
        second = measured(coded, back, "decompress", options.lossless)
        small = sum(file.stat().st_size for file in coded.glob("*.nnr")) / GB
    start, planned, coded_at = first["start"], first["at"]["planning"], first["at"]["coding"]
    costs = {
        "planning": (planned - start) / size,
        "coding": (coded_at - planned) / size,
        "of which digests": (hashed["at"]["hashing"] - hashed["start"]) / one,
        "restoring": (second["at"]["decoding"] - second["start"]) / size,
    }
    print(f"{size:.2f} GB of {options.type} in shards of {one:.2f} GB become {100 * small / size:.1f} %")
    for what, seconds in costs.items():
        print(f"{what:17} {seconds:6.2f} CPU s per GB of checkpoint")
    print(f"memory            {first['peak'] / 1e6:6.0f} MB to compress, {second['peak'] / 1e6:.0f} MB to restore")
    for what, seconds in ("compressed", costs["planning"] + costs["coding"]), ("restored", costs["restoring"]):
        hours = 1000 * seconds / 3600
        print(f"1 TB is {what} in {hours:.1f} core hours: {hours / 64:.2f} h with 64 cores, {hours / 512:.2f} with 512")


if __name__ == "__main__":
    main()
