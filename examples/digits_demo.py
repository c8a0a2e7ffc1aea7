"""Compress a trained classifier to NNR, restore it, and see that it still reads digits.

    python examples/digits_demo.py [--keep FOLDER]

Needs the package with the extra ``onnx``, and onnxruntime and scikit-learn to measure (``make demo`` installs them).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
from digits_data import Digits, split
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import nnc_adapters

MODEL = Path(__file__).with_name("digits.onnx")


def logits(model: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"image": images})
    return result


def accuracy(result: NDArray[np.float32], data: Digits) -> float:
    return float((result.argmax(1) == data.labels).mean())


def run(folder: Path) -> Table:
    """Compress and restore `MODEL` inside ``folder``; return what became of size and accuracy."""
    compressed, restored = folder / "digits.nnr", folder / "digits.onnx"
    there = nnc_adapters.compress(MODEL, compressed, force=True)
    back = nnc_adapters.decompress(compressed, restored, force=True)
    _, held_out = split()
    before, after = logits(MODEL, held_out.images), logits(restored, held_out.images)

    title = f"{MODEL.name}: {there.weights} weights in {there.tensors} tensors"
    table = Table("", "original", "after NNR", title=title)
    table.add_row("bytes", str(there.bytes_before), f"{there.bytes_after} ({there.percent:.1f} %)")
    table.add_row("bits per weight", "32", f"{there.bits_per_weight:.2f}")
    table.add_row(
        f"accuracy on {len(held_out.labels)} images",
        f"{100 * accuracy(before, held_out):.2f} %",
        f"{100 * accuracy(after, held_out):.2f} %",
    )
    table.add_row("largest output difference", "", f"{np.abs(after - before).max():.4f} of {np.abs(before).max():.1f}")
    table.add_row("seconds", "", f"{there.seconds:.2f} to compress, {back.seconds:.2f} to restore")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave digits.nnr and digits.onnx in FOLDER")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as folder:
        table = run(keep or Path(folder))
    Console().print(table)


if __name__ == "__main__":
    main()
