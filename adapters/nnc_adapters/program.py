"""The entry point of the program, which is light, so that an interrupt while the rest is imported ends it quietly."""

from __future__ import annotations

import gc
import sys

_GARBAGE = 50_000
"""How many objects may come to be before garbage is looked for: more than imports make."""


def main() -> None:
    """Run ``nnc``. What is left in the end is not searched for garbage: the system takes it back."""
    gc.set_threshold(_GARBAGE)
    try:
        from nnc_adapters.cli import main as run

        run(prog_name="nnc")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()
