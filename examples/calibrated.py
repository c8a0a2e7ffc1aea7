"""The digits network at lower and lower rates, plain and calibrated: how well does it still read?

    python examples/calibrated.py

Calibration takes 256 training images without their labels; accuracy is measured on the images that were held out. Needs
what ``digits_demo.py`` needs.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from digits_data import split
from digits_demo import MODEL, accuracy, logits
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import nnc_adapters
from nnc_core import CodingParameters

SETTINGS = {f"level {level}": CodingParameters(level=level) for level in (1, 5, 9)}
SETTINGS |= {f"{bits} bits per weight": CodingParameters(bits_per_weight=bits) for bits in (4, 3, 2, 1.5)}
IMAGES = 256


def cells(parameters: CodingParameters, calibrate: dict[str, NDArray[np.float32]] | None) -> list[str]:
    """The size of the file, the accuracy of what is restored from it, and the error of its outputs."""
    _, held_out = split()
    with tempfile.TemporaryDirectory() as folder:
        compressed, restored = Path(folder, "digits.nnr"), Path(folder, "digits.onnx")
        report = nnc_adapters.compress(MODEL, compressed, parameters=parameters, calibrate=calibrate)
        nnc_adapters.decompress(compressed, restored)
        before, after = logits(MODEL, held_out.images), logits(restored, held_out.images)
    error = 10 * np.log10(np.square(after - before).sum() / np.square(before).sum())
    return [str(report.bytes_after), f"{100 * accuracy(after, held_out):.2f} %", f"{error:.1f} dB"]


def main() -> None:
    training, held_out = split()
    inputs = {"image": training.images[:IMAGES]}
    before = 100 * accuracy(logits(MODEL, held_out.images), held_out)
    table = Table(title=f"{MODEL.name}: {MODEL.stat().st_size} bytes, accuracy {before:.2f} %")
    table.add_column("setting")
    for name in ("bytes", "accuracy", "error", "bytes calibrated", "accuracy", "error"):
        table.add_column(name, justify="right")
    for name, parameters in SETTINGS.items():
        table.add_row(name, *cells(parameters, None), *cells(parameters, inputs))
    Console().print(table)


if __name__ == "__main__":
    main()
