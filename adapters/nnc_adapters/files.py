"""Writing files and folders so that they appear complete or not at all."""

from __future__ import annotations

import ctypes
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

__all__ = ["replacing", "replacing_folder"]

_WORKING_FOLDER = -100  # AT_FDCWD
_EXCHANGE = 2  # RENAME_EXCHANGE, and RENAME_SWAP elsewhere


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

    What was at ``path`` changes places with the new folder in one step, and is removed after; where the system cannot
    do that (neither Linux nor macOS, or a file system of another kind) it is moved aside before, so that a kill between
    the two steps leaves nothing at ``path``. Raises `FileExistsError` where ``path`` exists, unless ``force``.
    """
    _check_free(path, force)
    temporary, old = _beside(path), _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        if not _exchanged(temporary, path):
            with suppress(FileNotFoundError):
                os.rename(path, old)
            os.rename(temporary, path)
    except BaseException:
        _remove(temporary)
        if os.path.lexists(old) and not os.path.lexists(path):
            os.rename(old, path)
        raise
    _remove(temporary)
    _remove(old)


def _check_free(path: Path, force: bool) -> None:
    if not force and os.path.lexists(path):
        raise FileExistsError(f"{path} exists; use force to replace it")


def _beside(path: Path) -> Path:
    # not tempfile: its files are private to their owner, a model should follow the umask
    return path.with_name(f".nnc-{secrets.token_hex(8)}.tmp")


def _exchanged(one: Path, other: Path) -> bool:
    """Let two paths change places; `False` where one is missing or the system cannot."""
    if os.name != "posix":
        return False
    system, names = ctypes.CDLL(None), (os.fsencode(one), os.fsencode(other))
    if hasattr(system, "renameat2"):
        return bool(system.renameat2(_WORKING_FOLDER, names[0], _WORKING_FOLDER, names[1], _EXCHANGE) == 0)
    return hasattr(system, "renamex_np") and bool(system.renamex_np(*names, _EXCHANGE) == 0)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
