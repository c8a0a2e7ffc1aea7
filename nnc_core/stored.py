"""The bytes of a file: read where they are asked for, written whole or not at all."""

from __future__ import annotations

import io
import mmap
import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, overload

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import ModelError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Bytes", "NewFile", "StoredBytes", "replacing", "viewed"]

_BLOCK: Final = 1 << 12
_PIECE: Final = 1 << 20
_FLAGS: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0)


class StoredBytes:
    """The bytes that a file has when it is opened; a slice is a view of a copy, an index gives a byte.

    Files are not mapped into memory: the system ends a process that touches a mapping of a file which somebody made
    shorter, whatever code does so. Here it is a `ModelError`. Slices that lie close together are read at once. Threads
    may share the object; ValueError once it is released.
    """

    def __init__(self, file: str | os.PathLike[str] | BinaryIO) -> None:
        if isinstance(file, str | os.PathLike):
            self._name: str | None = os.fspath(file)
            self._descriptor = os.open(file, _FLAGS)
        else:
            self._name, self._descriptor = None, os.dup(file.fileno())
        self._finalizer = weakref.finalize(self, os.close, self._descriptor)
        self._origin, self._size = 0, os.fstat(self._descriptor).st_size
        self._whole: StoredBytes | None = None
        self._lock = threading.Lock()
        self._block = memoryview(b""), 0

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: slice, /) -> memoryview: ...
    @overload
    def __getitem__(self, place: int, /) -> int: ...
    def __getitem__(self, place: slice | int, /) -> memoryview | int:
        block, start = self._block
        if isinstance(place, slice):
            first, end, _ = place.indices(self._size)
            return self._bytes(first, max(first, end))
        if 0 <= place - start < len(block):
            return block[place - start]
        if not -self._size <= place < self._size:
            raise IndexError(f"no byte {place} in {self._size}")
        place %= self._size
        return self._bytes(place, place + 1)[0]

    def part(self, span: slice) -> StoredBytes:
        """Some of the bytes, of which none is read so far; they are released with the others."""
        first, end, _ = span.indices(self._size)
        part = copy(self)
        part._whole = self
        part._origin, part._size = self._origin + first, max(0, end - first)
        part._block = memoryview(b""), 0
        return part

    def fill(self, target: NDArray[np.uint8], start: int) -> None:
        """Read bytes from ``start`` on into all of ``target``; faster than a slice where that is large."""
        if not hasattr(os, "preadv"):
            target[:] = np.frombuffer(self[start : start + target.size], np.uint8)
            return
        at, origin = 0, self._origin + start
        with self._opened():
            while at < target.size and (read := os.preadv(self._descriptor, [target.data[at:]], origin + at)):
                at += read
        if at < target.size:
            raise self._shorter(start + at)

    def release(self) -> None:
        """Close the file; the slices stay."""
        with self._lock:
            self._finalizer()
            self._block = memoryview(b""), 0

    def _bytes(self, first: int, end: int) -> memoryview:
        block, start = self._block
        if not (start <= first and end <= start + len(block)):
            block, start = self._read(first, end), first
        return block[first - start : end - start]

    def _read(self, first: int, end: int) -> memoryview:
        """The bytes from ``first`` to ``end``, and perhaps some that follow."""
        pieces: list[bytes] = []
        at, whole = first, min(max(end, first + _BLOCK), self._size)
        with self._opened():
            while at < end and (piece := _piece(self._descriptor, whole - at, self._origin + at)):
                pieces.append(piece)
                at += len(piece)
            block = memoryview(pieces[0] if len(pieces) == 1 else b"".join(pieces))
            if len(block) <= _BLOCK:
                self._block = block, first
        if at < end:
            raise self._shorter(at)
        return block

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with self._lock:
            if not self._finalizer.alive:
                raise ValueError("the file was released")
            yield

    def _shorter(self, end: int) -> ModelError:
        return ModelError(f"the file became shorter: it ends at byte {end} of {self._size}", file=self._name)


Bytes = memoryview | StoredBytes
"""Bytes that are in memory, or in a file."""


def viewed(data: bytes | bytearray | mmap.mmap | Bytes) -> Bytes:
    """``data`` in a form that gives slices without a copy, byte by byte; those of a file as they are."""
    return data if isinstance(data, StoredBytes) else memoryview(data).cast("B")


def _piece(descriptor: int, size: int, start: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, start)
    os.lseek(descriptor, start, os.SEEK_SET)
    return os.read(descriptor, size)


class NewFile(io.BufferedWriter):
    """A file that is written, and was not there before; `FileExistsError` where it was.

    What is large is written in pieces: for tens of megabytes at once, Linux looks for memory that lies together, which
    can take several times as long as copying them.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(io.FileIO(os.fspath(path), "xb"))

    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of ``data``."""
        if memoryview(data).nbytes <= _PIECE:
            return super().write(data)
        whole = np.frombuffer(memoryview(data), np.uint8).data  # whatever its elements are
        return sum(super(NewFile, self).write(whole[at : at + _PIECE]) for at in range(0, len(whole), _PIECE))


@contextmanager
def replacing(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[BinaryIO]:
    """A new file beside ``path`` that takes its place when the block ends well, and vanishes when it does not.

    ``durable``: not before its bytes are safe on the disk.
    """
    path = Path(path)
    # not tempfile: its files are private to their owner
    temporary = path.with_name(f".{os.urandom(8).hex()}.tmp")
    try:
        with NewFile(temporary) as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
