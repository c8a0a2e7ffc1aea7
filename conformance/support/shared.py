"""Files that some tests and benchmarks use and that the repository does not have: those in the folder NNC_SHARED.

By default this is the folder ``shared`` beside the project.
"""

from __future__ import annotations

import os
from pathlib import Path

SHARED = Path(os.environ.get("NNC_SHARED") or Path(__file__).resolve().parents[3] / "shared")


def shared(name: str) -> Path:
    """A file or folder; the test is skipped where it is absent."""
    import pytest

    path = SHARED / name
    if not path.exists():
        pytest.skip(f"there is no {path}; set NNC_SHARED")
    return path
