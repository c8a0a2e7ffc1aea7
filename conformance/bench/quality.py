"""What do levels cost, how close are target sizes met, and how small is a model without loss?

    python -m conformance.bench.quality [--json]

Levels: CPU seconds of planning and coding on one thread (the median of three runs), and bytes, at the default quality
and for 30 dB. Target sizes: the bitstream in percent of what was allowed. Without loss: tensors as bfloat16, in percent
of their bytes, beside zstandard at level 19 and ZipNN, which are given the same bytes in one row.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import nnc_core
from conformance.bench import minilm
from conformance.support.shared import SHARED
from nnc_adapters import registry

Tensors = dict[str, NDArray[Any]]

NAMES = ("ResNet56_CIFAR100.pt", "face_rfb_320.onnx", "silero_vad.onnx", "resnet20_cifar10.th", "mtcnn_rnet.pt")
LEVELS, SHARES = (1, 3, 5, 7, 8, 9), (25, 15, 8)
LEVELLED, LOSSLESS = ("ResNet56_CIFAR100", "silero_vad"), ("ResNet56_CIFAR100", "silero_vad", "MiniLM")
RUNS = 3


def models() -> dict[str, Tensors]:
    paths = [path for name in NAMES if (path := SHARED / "models" / name).is_file()]
    found = {path.stem: floats(path) for path in paths}
    path = minilm.weights_file()
    return found | ({"MiniLM": floats(path)} if path else {})


def floats(path: Path) -> Tensors:
    tensors = registry.find(path).read(path).tensors
    arrays = {name: np.asarray(tensors[name]) for name in tensors}
    return {name: array for name, array in arrays.items() if array.dtype.kind == "f"}


def levels(name: str, tensors: Tensors) -> Iterator[dict[str, Any]]:
    for goal in ({}, {"sqnr": 30.0}):
        for level in LEVELS:
            seconds = []
            for _ in range(RUNS):
                start = time.process_time()
                data = nnc_core.encode(tensors, level=level, threads=1, **goal)
                seconds.append(time.process_time() - start)
            aim = "30 dB" if goal else "default"
            yield {"model": name, "goal": aim, "level": level, "seconds": median(seconds), "bytes": len(data)}


def targets(name: str, tensors: Tensors) -> Iterator[dict[str, Any]]:
    before = sum(array.nbytes for array in tensors.values())
    for share in SHARES:
        target = before * share // 100
        try:
            size = len(nnc_core.encode(tensors, target_size=target))
            met: Any = 100 * size / target
        except nnc_core.ModelError as error:
            met = str(error)
        yield {"model": name, "target": f"{share} %", "bytes allowed": target, "percent of it": met}


def lossless(name: str, tensors: Tensors) -> Iterator[dict[str, Any]]:
    narrow = {key: array.astype(ml_dtypes.bfloat16) for key, array in tensors.items()}
    raw = b"".join(array.tobytes() for array in narrow.values())
    sizes = {
        "ours": len(nnc_core.encode(narrow, lossless=True)),
        "ours, names in a list": len(nnc_core.encode(narrow, lossless=True, indexed_reference_flag=True)),
        **{packer: size(raw) for packer, size in PACKERS.items()},
    }
    yield {"model": name, **{key: None if size is None else 100 * size / len(raw) for key, size in sizes.items()}}


def zstandard_size(raw: bytes) -> int | None:
    try:
        import zstandard
    except ImportError:
        return None
    return len(zstandard.ZstdCompressor(19).compress(raw))


def zipnn_size(raw: bytes) -> int | None:
    try:
        import zipnn
    except ImportError:
        return None
    return len(zipnn.ZipNN(input_format="byte", bytearray_dtype="bfloat16").compress(raw))


PACKERS: dict[str, Callable[[bytes], int | None]] = {"zstd -19": zstandard_size, "ZipNN": zipnn_size}


def table_of(title: str, rows: list[dict[str, Any]]) -> Table:
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="left" if column == "model" else "right")
    for row in rows:
        table.add_row(*map(cell, row.values()))
    return table


def cell(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found, console, tables = models(), Console(width=140), {}
    small = {name: tensors for name, tensors in found.items() if name != "MiniLM"}
    for title, chosen, measure in (
        ("without loss, bfloat16: percent of its bytes", {n: found[n] for n in LOSSLESS if n in found}, lossless),
        ("target sizes", small, targets),
        ("levels", {n: small[n] for n in LEVELLED if n in small}, levels),
    ):
        rows = [row for name, tensors in chosen.items() for row in measure(name, tensors)]
        tables[title] = rows
        if not arguments.json and rows:
            console.print(table_of(title, rows))
    if arguments.json:
        print(json.dumps(tables, indent=1))


if __name__ == "__main__":
    main()
