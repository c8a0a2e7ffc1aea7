"""The entry point of the program, which is light, so that an interrupt while the rest is imported ends it quietly."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run ``nnc``. What is imported stays, and is not searched for garbage."""
    gc.disable()
    try:
        from nnc_adapters.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    gc.freeze()
    gc.enable()
    run(prog_name="nnc")
