"""Writing files so that they appear complete or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing"]


@contextmanager
def replacing(path: Path, *, force: bool = False) -> Iterator[BinaryIO]:
    """Open a new file beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    Raises `FileExistsError` where ``path`` exists, unless ``force``.
    """
    if not force and os.path.lexists(path):
        raise FileExistsError(f"{path} exists; use force to replace it")
    # not tempfile: its files are private to their owner, a model should follow the umask
    temporary = path.with_name(f".nnc-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as stream:
            yield stream
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
