"""Is an installed package whole? Codes a tensor, runs commands, and prints the checksum of the bitstream.

    python conformance/packaging/smoke.py

Needs the package and what it depends on. The checksum must be the same on every machine and in every version of Python.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

import nnc_core


def weights() -> dict[str, np.ndarray]:
    """Weights from integer arithmetic alone, so that no library's random numbers matter."""
    numbers = np.arange(64 * 32, dtype=np.uint32) * np.uint32(2654435761) >> np.uint32(16)
    values = numbers.astype(np.int32) % 1024 * (numbers.astype(np.int32) % 7 - 3)
    return {"fc.weight": (values / 65536).astype(np.float32).reshape(64, 32)}


def check_codec() -> str:
    data = nnc_core.encode(weights(), qp=-32)
    error = np.abs(nnc_core.decode(data)["fc.weight"] - weights()["fc.weight"]).max()
    assert error < 2**-7, f"the weights came back with an error of {error}"
    return hashlib.sha256(data).hexdigest()[:8]


def check_commands() -> None:
    with tempfile.TemporaryDirectory() as folder:
        coded, again = (str(Path(folder, name)) for name in ("coded.nnr", "again.npz"))
        nnc_core.write(coded, weights())
        for command in (["--version"], ["inspect", coded], ["validate", coded], ["decompress", coded, "-o", again]):
            subprocess.run(
                [sys.executable, "-m", "nnc_adapters.cli", *command], cwd=folder, check=True, capture_output=True
            )
        assert np.load(again)["fc.weight"].shape == (64, 32)


if __name__ == "__main__":
    assert version("nnc-suite") == nnc_core.__version__
    checksum = check_codec()
    check_commands()
    print(f"nnc-suite {nnc_core.__version__}, Python {sys.version.split()[0]}: {checksum}")
