"""Archives as NNEF has them: a folder, or a tar or zip archive of its contents; read file by file."""

from __future__ import annotations

import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from nnc_adapters.nnef import syntax, tar
from nnc_adapters.shared import paths
from nnc_adapters.shared.compressed import Inflating, broken, inflated, is_compressed
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.records import dataclass
from nnc_core.stored import Bytes, StoredBytes

GRAPH, QUANTIZATION = "graph.nnef", "graph.quant"

_ZIP = b"PK"
_GRAPH_TEXT = re.compile(rb"(?:\s|#[^\n]*\n)*version\s+[0-9][^;]*;(?s:.)*\b(graph|fragment|extension)\s")
_BEGINNING = 1 << 16
# How much of an archive is looked at to recognize it: so many members, and so much more than its compressed size.
_MOST_MEMBERS, _MOST_TIMES, _MOST_BYTES = 1 << 16, 64, 1 << 20
_BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, LookupError, NotImplementedError, OSError, RuntimeError)


@dataclass(frozen=True, slots=True)
class File:
    """A file of an archive; ``read`` gives its first bytes, brought into memory where they are touched if possible."""

    size: int
    read: Callable[[int], memoryview]

    def data(self) -> memoryview:
        """All bytes."""
        return self.read(self.size)


Files = dict[str, File]


def safe_name(name: str) -> str:
    """``name`` if it stays inside the archive, else `ModelError`; in NNEF a backslash is a letter like others."""
    try:
        return paths.inside(name, punctuation=True)
    except ValueError as error:
        raise ModelError(str(error)) from None


def files_of(path: Path, limits: Limits) -> Files:
    """The files of an archive by name, ``graph.nnef`` among them.

    Raises `ModelError` for what is not an archive, names that lead out of it, links, and damage; `LimitError` where its
    files exceed ``limits.units`` in number or ``limits.decoded_bytes`` in size.
    """
    found: Files = {}
    total = 0
    for name, file in _listed(path, limits):
        name = safe_name(name.removeprefix("./"))
        if name in found:
            raise ModelError(f"two files are called {name!r}")
        found[name] = file
        total += file.size
        limits.check("units", len(found), "files of the archive")
        limits.check("decoded_bytes", total, "files of the archive")
    return _without_top_folder(found)


def _listed(path: Path, limits: Limits) -> Iterable[tuple[str, File]]:
    if path.is_dir():
        return _in_folder(path)
    with path.open("rb") as stream:
        start = stream.read(_BEGINNING)
        if start.startswith(_ZIP):
            return _in_zip(path)
        if is_compressed(start):
            return _in_tar(inflated(stream, limits))
        if tar.looks_like_tar(start[: tar.BLOCK]):
            return _in_tar(StoredBytes(stream))
        if _GRAPH_TEXT.match(start):
            return _around(path, limits)
    raise ModelError("is not an NNEF archive: neither a folder nor a tar or zip file, nor a graph")


def _around(path: Path, limits: Limits) -> list[tuple[str, File]]:
    """The files of the model whose graph is ``path``: those of its variables in the same folder."""
    limits.check("topology_bytes", path.stat().st_size, path.name)
    stems = (safe_name(label.removeprefix("/")) for label in syntax.variables(path.read_bytes()))
    names = [QUANTIZATION, *(stem + suffix for stem in stems for suffix in (".dat", ".nnr"))]
    beside = {name: path.parent / name for name in dict.fromkeys(names)}
    found = {GRAPH: path, **{name: file for name, file in beside.items() if file.is_file()}}
    return [(name, File(file.stat().st_size, partial(_start_of, file))) for name, file in found.items()]


def _without_top_folder(found: Files) -> Files:
    """The files, seen from the folder that holds the graph if this is the only one at the top."""
    if GRAPH in found:
        return found
    tops = {PurePosixPath(name).parts[0] for name in found}
    top = f"{tops.pop()}/" if len(tops) == 1 else ""
    if top + GRAPH not in found:
        raise ModelError(f"is not an NNEF archive: it has no {GRAPH}")
    return {name.removeprefix(top): file for name, file in found.items()}


def _in_folder(root: Path) -> Iterator[tuple[str, File]]:
    for name, path in paths.files_below(root, [root / GRAPH]):
        yield name, File(path.stat().st_size, partial(_start_of, path))


def _start_of(path: Path, size: int) -> memoryview:
    data = StoredBytes(path)[:size]
    if len(data) != size:
        raise ModelError(f"the file has only {len(data)} bytes left", file=str(path))
    return data


def _in_tar(data: Bytes) -> Iterator[tuple[str, File]]:
    try:
        for member in tar.members(data):
            yield member.name, File(member.size, partial(_bytes_from, data, member.offset))
    except tar.TarError as error:
        raise ModelError(f"a damaged tar archive: {error}") from error


def _bytes_from(data: Bytes, start: int, size: int) -> memoryview:
    return data[start : start + size]


def _in_zip(path: Path) -> Iterator[tuple[str, File]]:
    try:
        archive = zipfile.ZipFile(path)
    except (*_BROKEN_ZIP, ValueError) as error:
        raise ModelError(f"a damaged zip archive: {error}") from error
    for member in archive.infolist():
        kind = member.external_attr >> 28
        if kind not in (0, 4, 8):  # unknown, a folder, a file
            raise ModelError(f"{member.filename!r} is a link or a device, not a file")
        if not member.filename.endswith("/"):
            yield member.filename, File(member.file_size, partial(_start_of_member, archive, member))


def _start_of_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, size: int) -> memoryview:
    try:
        with archive.open(member) as stream:
            data = stream.read(size)
    except (*_BROKEN_ZIP, ValueError) as error:
        raise ModelError(f"a damaged zip archive: {error}", file=member.filename) from error
    if len(data) != size:
        raise ModelError(f"a damaged zip archive: {len(data)} of {size} bytes", file=member.filename)
    return memoryview(data)


def looks_like_archive(path: Path) -> bool:
    """Whether there is a graph in a folder or an archive, or ``path`` is one; False for whatever cannot be read."""
    try:
        if path.is_dir():
            return (path / GRAPH).is_file()
        with path.open("rb") as stream:
            return any(PurePosixPath(name).name == GRAPH for name in _names(stream))
    except _BROKEN_ZIP + broken() + (tarfile.TarError,):
        return False


def _names(stream: BinaryIO) -> Iterable[str]:
    """The names of the members, as far as they can be read."""
    start = stream.read(_BEGINNING)
    stream.seek(0)
    if start.startswith(_ZIP):
        return zipfile.ZipFile(stream).namelist()
    if is_compressed(start):
        source = Inflating(stream, _MOST_BYTES + _MOST_TIMES * os.fstat(stream.fileno()).st_size)
        with tarfile.open(fileobj=cast(BinaryIO, source), mode="r|") as archive:
            return _until_graph(member.name for member in archive)
    if tar.looks_like_tar(start[: tar.BLOCK]):
        return _until_graph(member.name for member in tar.members(StoredBytes(stream)))
    return [GRAPH] if _GRAPH_TEXT.match(start) else []


def _until_graph(names: Iterable[str]) -> list[str]:
    """The names up to that of the graph; what follows is not read."""
    found: list[str] = []
    for name in islice(names, _MOST_MEMBERS):
        found.append(name)
        if PurePosixPath(name).name == GRAPH:
            break
    return found


def check_together(names: Mapping[str, object]) -> None:
    """`ModelError` unless files of these names can lie in one folder."""
    for name in names:
        for folder in PurePosixPath(safe_name(name)).parents:
            if str(folder) in names:
                raise ModelError(f"{str(folder)!r} is both a file and the folder of {name!r}")
