"""The bytes of a file, or of a member of an archive, brought into memory where they are needed."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.shared.windows import window
from nnc_core.errors import ModelError
from nnc_core.records import dataclass

__all__ = ["Content", "Nameless", "View", "of_file"]

_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """``size`` bytes of ``file`` from ``start``; an open file is one without a name."""

    file: Path | BinaryIO
    start: int
    size: int

    def raw(self, offset: int = 0, size: int | None = None) -> NDArray[np.uint8]:
        """The bytes from ``offset``, read when this is called; `ModelError` where they are outside the file."""
        size = self.size - offset if size is None else size
        if not (offset >= 0 and 0 <= size <= self.size - offset):
            raise ModelError(f"{size} bytes at byte {offset} are needed, the file has {self.size}")
        return window(self.file, self.start + offset, size)

    def pieces(self, offset: int, size: int) -> Iterator[bytes]:
        """The same bytes one after the other, so that they need not be in memory together."""
        for at in range(offset, offset + size, _PIECE):
            yield self.raw(at, min(_PIECE, offset + size - at)).tobytes()

    def array(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The little-endian numbers from ``offset`` as an array."""
        count = int(np.prod(shape, dtype=object))
        words = self.raw(offset, count * dtype.itemsize).view(f"<u{dtype.itemsize}")
        words = words.astype(f"=u{dtype.itemsize}", copy=False)
        return (words if words.flags.aligned else words.copy()).view(dtype).reshape(shape)


class Nameless(io.FileIO):
    """A temporary file that vanishes with the last of the contents in it, which keep it open."""

    def __init__(self) -> None:
        handle, path = tempfile.mkstemp()
        os.unlink(path)
        super().__init__(handle, "rb+")

    def __del__(self) -> None:
        self.close()


class View(io.RawIOBase):
    """A content as an open file, for libraries that want one."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; `ValueError` before the beginning."""
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._content.size}[whence]
        if origin + offset < 0:
            raise ValueError(f"position {origin + offset}")
        self._at = origin + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` as far as there are bytes."""
        target = memoryview(buffer).cast("B")
        size = max(0, min(len(target), self._content.size - self._at))
        target[:size] = self._content.raw(self._at, size).data if size else b""
        self._at += size
        return size


def of_file(path: Path) -> Content:
    """A whole file; `ModelError` if it is not a regular file."""
    if not path.is_file():  # a named pipe would be waited for
        raise ModelError("is not a file", file=str(path))
    return Content(path, 0, path.stat().st_size)
