"""Compressed files: gzip, bzip2 and xz, told apart by how they begin in reading, by their names in writing."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from nnc_adapters.shared.unfinished import undone
from nnc_core.errors import ModelError
from nnc_core.lazy import LazyModule
from nnc_core.limits import Limits
from nnc_core.stored import StoredBytes

if TYPE_CHECKING:
    import bz2
    import gzip
    import lzma
    import tempfile
else:  # most files are not compressed
    bz2, gzip, lzma, tempfile = (LazyModule(name) for name in ("bz2", "gzip", "lzma", "tempfile"))

__all__ = ["Inflating", "Unpacked", "broken", "compressing", "inflated", "is_compressed"]

_PIECE: Final = 1 << 20
_XZ_MEMORY: Final = 1 << 27  # twice what the highest preset of xz needs


def _gzip(stream: BinaryIO) -> Iterator[bytes]:
    return _pieces(gzip.GzipFile(fileobj=stream).read)


def _bzip2(stream: BinaryIO) -> Iterator[bytes]:
    return _pieces(bz2.BZ2File(stream).read)


def _pieces(read: Callable[[int], bytes]) -> Iterator[bytes]:
    while piece := read(_PIECE):
        yield piece


def _xz(stream: BinaryIO) -> Iterator[bytes]:
    data = stream.read(_PIECE)
    while data:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, _XZ_MEMORY)
        while not decoder.eof:
            if decoder.needs_input and not data:
                raise EOFError("the compressed data end too early")
            yield decoder.decompress(data, _PIECE)
            data = stream.read(_PIECE) if decoder.needs_input else b""
        data = (decoder.unused_data + stream.read(_PIECE)).lstrip(b"\0")  # streams may follow one another, padded


_READERS: Final[dict[bytes, Callable[[BinaryIO], Iterator[bytes]]]] = {
    b"\x1f\x8b": _gzip,
    b"BZh": _bzip2,
    b"\xfd7zXZ\0": _xz,
}


def broken() -> tuple[type[Exception], ...]:
    """What can be raised by reading a damaged file."""
    from zlib import error

    return OSError, EOFError, error, lzma.LZMAError, ValueError


def is_compressed(start: bytes) -> bool:
    """Whether a file that begins with ``start`` can be read."""
    return start.startswith(tuple(_READERS))


class Inflating:
    """Reads what a compressed ``stream`` holds; `EOFError` past ``most`` bytes."""

    def __init__(self, stream: BinaryIO, most: int) -> None:
        stream.seek(0)
        start = stream.read(8)
        stream.seek(0)
        self.pieces = next(read for magic, read in _READERS.items() if start.startswith(magic))(stream)
        self.left, self.data = most, b""

    def read(self, size: int) -> bytes:
        """The next ``size`` bytes, or fewer at the end."""
        while len(self.data) < size:
            piece = next(self.pieces, None)
            if piece is None:
                break
            self.left -= len(piece)
            if self.left < 0:
                raise EOFError("a compressed file holds more than expected")
            self.data += piece
        found, self.data = self.data[:size], self.data[size:]
        return found


def inflated(stream: BinaryIO, limits: Limits) -> StoredBytes:
    """What a compressed file holds, in a temporary file that vanishes with the last use of it.

    `ModelError` for damage, `LimitError` past ``limits.decoded_bytes``.
    """
    with tempfile.TemporaryFile() as target:
        _inflate(stream, cast(BinaryIO, target), limits)
        return StoredBytes(cast(BinaryIO, target))


class Unpacked:
    """What a compressed file holds, in a temporary file at ``path`` that vanishes with this object."""

    def __init__(self, source: Path, limits: Limits) -> None:
        with source.open("rb") as stream, tempfile.NamedTemporaryFile(delete=False) as target:
            self.path = Path(target.name)
            remove = weakref.finalize(self, self.path.unlink, missing_ok=True)
            with undone(remove):  # who knows how long an error keeps this object alive
                _inflate(stream, cast(BinaryIO, target), limits)


def _inflate(stream: BinaryIO, target: BinaryIO, limits: Limits) -> None:
    source = Inflating(stream, 1 << 62)
    total = 0
    while piece := _next(source):
        total += len(piece)
        limits.check("decoded_bytes", total, "the archive")
        target.write(piece)
    target.flush()


def _next(source: Inflating) -> bytes:
    try:
        return source.read(_PIECE)
    except broken() as error:
        raise ModelError(f"a damaged compressed file: {error}") from error


@contextmanager
def compressing(stream: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """A stream that is compressed into ``stream`` as the suffix of a file called ``name`` says; or ``stream`` itself.

    Equal data make equal files.
    """
    low = name.lower()
    if low.endswith((".gz", ".tgz")):
        with gzip.GzipFile("", "wb", fileobj=stream, mtime=0) as target:
            yield cast(BinaryIO, target)
    elif low.endswith((".bz2", ".xz")):
        with bz2.BZ2File(stream, "wb") if low.endswith(".bz2") else lzma.LZMAFile(stream, "wb") as other:
            yield cast(BinaryIO, other)
    else:
        yield stream
