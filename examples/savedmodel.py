"""Compress a TensorFlow SavedModel to NNR and restore it: the same graph, nearly the same predictions.

    python examples/savedmodel.py [--keep FOLDER]

TensorFlow makes the model and runs it; for compressing and restoring the extra ``tensorflow`` is enough, which does
without TensorFlow itself.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from digits_data import split
from digits_keras import network
from numpy.typing import NDArray

import nnc_adapters


def logits(model: Path, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the SavedModel ``model`` says about images (n, 8, 8, 1): logits (n, 10)."""
    import tensorflow

    loaded = tensorflow.saved_model.load(model)  # its variables live as long as it is held
    return loaded.serve(images).numpy()


def run(folder: Path) -> None:
    """Export, compress and restore the digits network in ``folder``."""
    model, bitstream, restored = folder / "digits", folder / "digits.nnr", folder / "digits-restored"
    network().export(model, verbose=False)
    there = nnc_adapters.compress(model, bitstream)
    nnc_adapters.decompress(bitstream, restored)
    print(f"SavedModel {there.bytes_before} bytes, compressed {there.bytes_after} ({there.percent:.1f} %)")

    graphs = {(path / "saved_model.pb").read_bytes() for path in (model, restored)}
    print(f"saved_model.pb is {'the same' if len(graphs) == 1 else 'not the same'}")
    _, held_out = split()
    images = np.ascontiguousarray(held_out.images.transpose(0, 2, 3, 1))
    before, after = logits(model, images), logits(restored, images)
    agree = (before.argmax(1) == after.argmax(1)).sum()
    print(f"both read the same digit in {agree} of {len(images)} images")
    print(f"accuracy {accuracy(before, held_out.labels):.2f} %, after coding {accuracy(after, held_out.labels):.2f} %")


def accuracy(result: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    return float(100 * (result.argmax(1) == labels).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description="Compress a SavedModel to NNR and restore it.")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the models and the bitstream in FOLDER")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as folder:
        run(keep or Path(folder))


if __name__ == "__main__":
    main()
