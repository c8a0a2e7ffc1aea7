"""Writing archives: a folder, or a tar or zip archive, whichever the name of the target says."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from nnc_adapters.nnef import tar
from nnc_adapters.shared.compressed import compressing
from nnc_adapters.shared.files import replacing, replacing_folder
from nnc_core.stored import NewFile

Pieces = tuple[bytes | memoryview, ...]

_UNIX = 3  # the system that zip archives are written on, whatever it is
_PERMISSIONS = 0o100644 << 16


class _Sink(Protocol):
    def __call__(self, name: str, pieces: Pieces) -> None: ...


def write(target: Path, files: Iterable[tuple[str, Pieces]], *, force: bool) -> None:
    """Write ``files`` in this order; equal files make equal archives.

    ``*.tgz``, ``*.tar.gz``, ``*.tar.bz2`` and ``*.tar.xz`` become compressed tar archives, ``*.tar`` a plain one,
    ``*.zip`` a zip archive, any other name a folder. The target appears complete or not at all.
    """
    with _sink(target, force) as add:
        for name, pieces in files:
            add(name, pieces)


@contextmanager
def _sink(target: Path, force: bool) -> Iterator[_Sink]:
    name = target.name.lower()
    if name.endswith(".zip"):
        with replacing(target, force=force) as stream, _zip(stream) as add:
            yield add
    elif name.endswith((".tgz", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz")):
        with replacing(target, force=force) as stream, compressing(stream, name) as plain, _tar(plain) as add:
            yield add
    else:
        with replacing_folder(target, force=force) as folder, _folder(folder) as add:
            yield add


@contextmanager
def _folder(root: Path) -> Iterator[_Sink]:
    def add(name: str, pieces: Pieces) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with NewFile(path) as stream:
            stream.writelines(pieces)

    yield add


@contextmanager
def _tar(stream: BinaryIO) -> Iterator[_Sink]:
    def add(name: str, pieces: Pieces) -> None:
        size = sum(map(len, pieces))
        stream.writelines((tar.header(name, size), *pieces, bytes(-size % tar.BLOCK)))

    yield add
    stream.write(tar.END)


@contextmanager
def _zip(stream: BinaryIO) -> Iterator[_Sink]:
    with zipfile.ZipFile(stream, "w") as archive:

        def add(name: str, pieces: Pieces) -> None:
            member = zipfile.ZipInfo(name)
            member.compress_type = zipfile.ZIP_DEFLATED
            member.create_system, member.external_attr = _UNIX, _PERMISSIONS
            with archive.open(member, "w", force_zip64=True) as file:
                for piece in pieces:
                    file.write(piece)

        yield add
