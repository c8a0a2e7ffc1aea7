"""Bitstreams one after another in a file; a plain ``.nnr`` file is one of these."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from nnc_adapters.containers.base import Items, opened
from nnc_adapters.shared.files import replacing
from nnc_core.bitstream import Bitstream
from nnc_core.bitstream.parts import MODEL, begins_bitstream, bitstreams
from nnc_core.limits import Limits
from nnc_core.syntax import Buffer

__all__ = ["Concatenation"]


class Concatenation:
    """The file is mapped into memory: finding the bitstreams touches nothing but the headers of units.

    A bitstream goes by the name of its tensor if it has just one, else it is `MODEL`; a second of the same name has
    ``#2`` behind it, and so on.
    """

    name: str = "concatenation"
    suffixes: tuple[str, ...] = (".nnr", ".cat")
    packages: tuple[str, ...] = ()

    def sniff(self, path: Path) -> bool:
        """Whether the file begins with a start unit."""
        try:
            with opened(path) as stream:
                return begins_bitstream(stream.read(8))
        except OSError:
            return False

    def open(self, path: Path, limits: Limits | None = None) -> Items:
        """The bitstreams as views of the file; a `BitstreamError` where a header is damaged."""
        with opened(path) as stream:
            empty = stream.seek(0, 2) == 0
            data = b"" if empty else mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        close = partial(_close, data)
        try:
            return Items(path, _found(memoryview(data), limits), close, limits)
        except BaseException:
            close()
            raise

    def write(self, path: Path, items: Mapping[str, Buffer], *, force: bool = False) -> None:
        """Write the bitstreams; their keys are not kept beside what they say themselves."""
        with replacing(path, force=force) as stream:
            for key in items:
                stream.write(items[key])


def _found(view: memoryview, limits: Limits | None) -> Iterator[tuple[str, partial[memoryview]]]:
    parts = list(bitstreams(view, limits))
    times: dict[str, int] = {}
    for part in parts:
        name = _name(part, limits) if len(parts) > 1 else MODEL
        times[name] = times.get(name, 0) + 1
        yield name if times[name] == 1 else f"{name}#{times[name]}", partial(memoryview, part)


def _name(part: memoryview, limits: Limits | None) -> str:
    names = {unit.names for unit in Bitstream(part, limits).units if unit.names}
    return names.pop()[0] if len(names) == 1 else MODEL


def _close(data: bytes | mmap.mmap) -> None:
    if isinstance(data, mmap.mmap):
        with suppress(BufferError):  # views that are still in use keep it open
            data.close()
