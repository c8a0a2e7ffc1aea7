"""NNR inside an NNEF archive (ISO/IEC 15938-17, Annex A): every tensor a bitstream of its own, the graph unchanged.

    python examples/nnef_archive.py [--keep FOLDER]

The other way, one bitstream that carries graph.nnef as well, is what ``nnc compress`` does. Needs the extras ``onnx``
(for the weights) and ``nnef``.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import digits_nnef
import numpy as np

import nnc_core
from nnc_adapters.nnef import NnefAdapter


def size(folder: Path, pattern: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(pattern))


def run(folder: Path) -> None:
    """Write the digits network as an archive into ``folder``, put NNR into it, and take it out again."""
    plain, carrier, restored = (folder / name for name in ("digits.nnef", "digits-nnr.nnef", "digits-restored.nnef"))
    digits_nnef.write(plain)
    adapter = NnefAdapter()
    adapter.embed(plain, carrier)
    adapter.extract(carrier, restored)

    for path in sorted(carrier.iterdir()):
        print(f"{path.name:22} {path.stat().st_size:6} bytes")
    graphs = {(path / "graph.nnef").read_bytes() for path in (plain, carrier, restored)}
    print(f"graph.nnef is {'the same' if len(graphs) == 1 else 'not the same'} in all three archives")
    before, after = size(plain, "*.dat"), size(carrier, "*.nnr") + size(carrier, "*.dat")
    print(f"weights: {before} bytes, {after} with NNR ({100 * after / before:.1f} %)")

    (kernel,) = nnc_core.decode((carrier / "conv2.weight.nnr").read_bytes()).values()
    print(f"conv2.weight alone: {kernel.shape}, largest error {largest_error(plain, kernel):.4f}")
    same = np.array_equal(kernel, adapter.read(restored).tensors["conv2.weight"])
    print(f"in the restored archive it is {'the same' if same else 'another'}")


def largest_error(archive: Path, kernel: np.ndarray) -> float:
    return float(np.abs(NnefAdapter().read(archive).tensors["conv2.weight"] - kernel).max())


def main() -> None:
    parser = argparse.ArgumentParser(description="Put NNR into an NNEF archive, and take it out again.")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the archives in FOLDER")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as folder:
        run(keep or Path(folder))


if __name__ == "__main__":
    main()
