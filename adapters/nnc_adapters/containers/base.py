"""What a container is: named bitstreams in a file of another format."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from nnc_core.bitstream.parts import begins_bitstream
from nnc_core.errors import ModelError
from nnc_core.lazy import LazyMapping
from nnc_core.limits import Limits
from nnc_core.syntax import Buffer

__all__ = ["Container", "Extendable", "Items", "Source", "opened"]

_HEAD = 8  # bytes, enough for a start unit


@runtime_checkable
class Container(Protocol):
    """Keeps bitstreams under keys; `nnc_core.bitstream.parts.MODEL` is the key of what belongs to no single tensor."""

    name: str
    suffixes: tuple[str, ...]
    packages: tuple[str, ...]

    def sniff(self, path: Path) -> bool:
        """Whether ``path`` is such a container with NNR in it; never raises on strange content."""
        ...

    def open(self, path: Path, limits: Limits | None = None) -> Items:
        """The bitstreams by key, in file order; each is read when it is asked for, and nothing else is.

        `ModelError` where the container is damaged, `LimitError` where it asks for too much, `UnsupportedError` and
        `MissingDependencyError` where it cannot be read.
        """
        ...

    def write(self, path: Path, items: Mapping[str, Buffer], *, force: bool = False) -> None:
        """Write a container with ``items``, one after another; each may be fetched twice.

        It appears complete or not at all; an existing one is replaced only with ``force``: `FileExistsError`.
        """
        ...


@runtime_checkable
class Extendable(Container, Protocol):
    """A container that may hold other things than NNR, and keeps them when NNR are put into it."""

    def write_into(self, base: Path, path: Path, items: Mapping[str, Buffer], *, force: bool = False) -> None:
        """Write ``base`` with ``items`` in place of the bitstreams that it has; else as `write`."""
        ...


class Items(LazyMapping[Buffer]):
    """The bitstreams of an open container; a context manager that closes it."""

    def __init__(
        self,
        path: Path,
        found: Iterable[tuple[str, Callable[[], Buffer]]],
        close: Callable[[], object],
        limits: Limits | None = None,
    ) -> None:
        self._close = close
        self._loaders: dict[str, Callable[[], Buffer]] = {}
        try:
            self._note(path, found, limits or Limits())
        except BaseException:
            close()
            raise

    def _note(self, path: Path, found: Iterable[tuple[str, Callable[[], Buffer]]], limits: Limits) -> None:
        for key, load in found:
            if key in self._loaders:
                raise ModelError("is in the container twice", file=str(path), tensor=key)
            limits.check("units", len(self._loaders) + 1, str(path))
            limits.check("name_length", len(key.encode("utf-8", "surrogatepass")), str(path))
            self._loaders[key] = load
        if not self._loaders:
            raise ModelError("carries no NNR", file=str(path))

    def __getitem__(self, key: str) -> Buffer:
        return self._loaders[key]()

    def _names(self) -> Collection[str]:
        return self._loaders

    def __enter__(self) -> Items:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._close()


def opened(path: Path) -> BinaryIO:
    """The file, without a buffer that would read more than was asked for."""
    return path.open("rb", buffering=0)


class Source:
    """A file from which any span can be read, by several threads; `ModelError` for a span outside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = opened(path)
        self._lock = threading.Lock()
        self.size = self._file.seek(0, 2)

    def read(self, offset: int, size: int) -> bytes:
        """The bytes ``offset`` to ``offset + size``."""
        if offset < 0 or size < 0 or offset + size > self.size:
            raise self.error(f"{size} bytes at {offset} are not in a file of {self.size} bytes")
        with self._lock:
            self._file.seek(offset)
            data = self._file.read(size)
            while len(data) < size:  # an unbuffered file may give less than it has
                more = self._file.read(size - len(data))
                if not more:
                    raise self.error("became shorter while it was read")
                data += more
        return data

    def begins_bitstream(self, offset: int, size: int) -> bool:
        """Whether a bitstream begins at ``offset``; ``size`` bytes are there."""
        return begins_bitstream(self.read(offset, min(size, _HEAD)))

    def error(self, message: str) -> ModelError:
        """An error that names the file."""
        return ModelError(message, file=str(self.path))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
