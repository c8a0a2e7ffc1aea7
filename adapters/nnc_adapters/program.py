"""The entry point of the program, which is light, so that an interrupt while the rest is imported ends it quietly."""

from __future__ import annotations

import gc
import os
import sys

_GARBAGE = 50_000
"""How many objects may come to be before garbage is looked for: more than imports make."""
_BLAS = "OPENBLAS_NUM_THREADS"
_chosen = {_BLAS, "GOTO_NUM_THREADS", "OMP_NUM_THREADS"} & os.environ.keys()
"""Where a user says how many threads linear algebra takes."""


def main() -> None:
    """Run ``nnc``. What is left in the end is not searched for garbage: the system takes it back."""
    gc.set_threshold(_GARBAGE)
    if not _chosen:  # importing numpy starts these threads, and hardly anything uses them
        os.environ[_BLAS] = "1"
    try:
        from nnc_adapters.cli import main as run

        run(prog_name="nnc")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        gc.freeze()


def give_linear_algebra_all_cores() -> None:
    """Before numpy is imported for what does much of it."""
    if not _chosen:
        os.environ.pop(_BLAS, None)
