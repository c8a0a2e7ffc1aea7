"""Writing files and folders so that they appear complete or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing", "replacing_folder"]


@contextmanager
def replacing(path: Path, *, force: bool = False) -> Iterator[BinaryIO]:
    """Open a new file beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    Raises `FileExistsError` where ``path`` exists, unless ``force``.
    """
    _check_free(path, force)
    temporary = _beside(path)
    try:
        with temporary.open("xb") as stream:
            yield stream
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise


@contextmanager
def replacing_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Make a new folder beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    What was at ``path`` is moved aside before and removed after. Raises `FileExistsError` where ``path`` exists, unless
    ``force``.
    """
    _check_free(path, force)
    temporary, old = _beside(path), _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        with suppress(FileNotFoundError):
            os.rename(path, old)
        os.rename(temporary, path)
    except BaseException:
        _remove(temporary)
        if os.path.lexists(old) and not os.path.lexists(path):
            os.rename(old, path)
        raise
    _remove(old)


def _check_free(path: Path, force: bool) -> None:
    if not force and os.path.lexists(path):
        raise FileExistsError(f"{path} exists; use force to replace it")


def _beside(path: Path) -> Path:
    # not tempfile: its files are private to their owner, a model should follow the umask
    return path.with_name(f".nnc-{secrets.token_hex(8)}.tmp")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
