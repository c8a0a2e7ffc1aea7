"""Writing files and folders so that they appear complete or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from nnc_adapters.shared.unfinished import undone
from nnc_core.errors import NncError

__all__ = ["about", "check_free", "put_in_place", "replacing", "replacing_folder", "size_of", "walk"]

_WORKING_FOLDER = -100  # AT_FDCWD
_NO_REPLACE = 1, 4  # RENAME_NOREPLACE, and RENAME_EXCL elsewhere
_EXCHANGE = 2, 2  # RENAME_EXCHANGE, and RENAME_SWAP elsewhere


@contextmanager
def about(path: Path) -> Iterator[None]:
    """Let the errors of the block that name no file name ``path``."""
    try:
        yield
    except NncError as error:
        error.file = error.file or str(path)
        raise


def size_of(path: Path) -> int:
    """The bytes of a file, or of the files in a folder."""
    if not path.is_dir():
        return path.stat().st_size if path.exists() else 0
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def check_free(path: Path, *, force: bool = False) -> None:
    """`FileExistsError` where ``path`` exists, unless ``force``; a pipe or a device may exist, it is not replaced."""
    if not force and os.path.lexists(path) and not _is_stream(path):
        raise FileExistsError(f"{path} exists; -f replaces it (in Python: force=True)")


@contextmanager
def replacing(path: Path, *, force: bool = False) -> Iterator[BinaryIO]:
    """Open a new file beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    A pipe or a device is not replaced: it is sent the file when the block ends well. A symbolic link is replaced
    itself; what it leads to stays. Raises `FileExistsError` where ``path`` exists, before the block or after it, unless
    ``force``, and other `OSError` that name ``path``.
    """
    check_free(path, force=force)
    if _is_stream(path):
        from shutil import copyfileobj  # which takes long to import, as do others below
        from tempfile import NamedTemporaryFile

        with NamedTemporaryFile() as whole:
            yield cast(BinaryIO, whole)
            whole.seek(0)
            with path.open("wb") as target:
                copyfileobj(whole, target)
        return
    if path.is_dir() or not path.name:
        raise _error(errno.EISDIR, path)
    from nnc_core.stored import NewFile  # with numpy

    temporary = _beside(path)
    with undone(lambda: _remove(temporary)), _named(path, temporary):
        with NewFile(temporary) as stream:
            yield stream
        _move(temporary, path, force=force)


@contextmanager
def replacing_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Make a new folder beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    What was at ``path`` changes places with the new folder in one step, and is removed after; where the system cannot
    do that (neither Linux nor macOS, or a file system of another kind) it is moved aside before, so that a kill between
    the two steps leaves nothing at ``path``. Raises `FileExistsError` where ``path`` exists, unless ``force``, and
    other `OSError` that name ``path``.
    """
    check_free(path, force=force)
    if _is_stream(path):
        raise _error(errno.ENOTDIR, path)
    if path.name in ("", ".."):
        raise _error(errno.EBUSY, path)
    temporary = _beside(path)
    with undone(lambda: _remove(temporary)), _named(path, temporary):
        temporary.mkdir()
        yield temporary
        put_in_place(temporary, path, force=force)


def put_in_place(folder: Path, path: Path, *, force: bool = False) -> None:
    """Give a ``folder`` beside ``path`` this name; what was there goes as in `replacing_folder`."""
    if not force:
        _move(folder, path, force=False)
        return
    old = _beside(path)
    try:
        if _renamed(folder, path, _EXCHANGE):
            old = folder
        else:
            with suppress(FileNotFoundError):
                os.rename(path, old)
            os.rename(folder, path)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.rename(old, path)
        raise
    _remove(old)


def walk(root: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    """As ``os.walk``, but with an `OSError` for a folder that cannot be listed: it is not empty."""

    def refuse(error: OSError) -> None:
        raise error

    return os.walk(root, onerror=refuse)


def _is_stream(path: Path) -> bool:
    """Whether ``path`` cannot be replaced by a file: a pipe or a device, or a name that the system has for one."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    file_or_folder = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
    return not file_or_folder or path.absolute().parent == Path(os.devnull).parent


@contextmanager
def _named(path: Path, temporary: Path) -> Iterator[None]:
    """Let errors name ``path`` where they name ``temporary``, which nobody knows, or nothing."""
    try:
        yield
    except OSError as error:
        inside = error.filename is None or str(error.filename).startswith(str(temporary))
        if error.errno is None or not inside:
            raise
        missing = isinstance(error, FileNotFoundError) and not path.parent.exists()
        raise _error(error.errno, path.parent if missing else path) from error


def _error(code: int, path: Path) -> OSError:
    return OSError(code, os.strerror(code), str(path))


def _beside(path: Path) -> Path:
    # not tempfile: its files are private to their owner, a model should follow the umask
    return path.with_name(f".nnc-{os.urandom(8).hex()}.tmp")


def _move(temporary: Path, path: Path, *, force: bool) -> None:
    """Give a file or folder its name; without ``force`` another that got it meanwhile keeps it."""
    if force:
        os.replace(temporary, path)
    elif not _renamed(temporary, path, _NO_REPLACE):
        check_free(path)  # between this and the next line another could come, where the system knows no better way
        os.rename(temporary, path)


def _renamed(one: Path, other: Path, flags: tuple[int, int]) -> bool:
    """Rename with a flag of Linux, or of macOS; `False` where the system cannot, or ``other`` stands against it."""
    if os.name != "posix":
        return False
    from ctypes import CDLL

    system, names = CDLL(None), (os.fsencode(one), os.fsencode(other))
    if hasattr(system, "renameat2"):
        return bool(system.renameat2(_WORKING_FOLDER, names[0], _WORKING_FOLDER, names[1], flags[0]) == 0)
    return hasattr(system, "renamex_np") and bool(system.renamex_np(*names, flags[1]) == 0)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        from shutil import rmtree

        rmtree(path)
    else:
        path.unlink(missing_ok=True)
