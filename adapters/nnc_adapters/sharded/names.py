"""How a sharded model is recognized: by the name of its index."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["INDEX", "index_of", "is_sharded"]

INDEX: Final = "model.nnr.index.json"


def index_of(path: Path) -> Path | None:
    """The index file of a sharded model, which may be named itself, or the folder that it is in; None for others."""
    if path.is_dir():
        path = path / INDEX
    return path if path.name.endswith(".nnr.index.json") and path.is_file() else None


def is_sharded(path: Path) -> bool:
    """Whether ``path`` is a sharded model, or its index."""
    return index_of(path) is not None
