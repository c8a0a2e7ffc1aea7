"""Bitstreams one after another in a file; a plain ``.nnr`` file is one of these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from nnc_adapters.containers.base import Items, opened
from nnc_adapters.shared.files import replacing
from nnc_core.bitstream import Bitstream
from nnc_core.bitstream.parts import MODEL, begins_bitstream, spans
from nnc_core.limits import Limits
from nnc_core.stored import StoredBytes
from nnc_core.syntax import Buffer

__all__ = ["Concatenation"]


class Concatenation:
    """Finding the bitstreams reads nothing but the headers of units.

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
        """The bitstreams, read when they are asked for; a `BitstreamError` where a header is damaged."""
        with opened(path) as stream:
            data = StoredBytes(stream)
        return Items(path, _found(data, limits), data.release, limits)

    def write(self, path: Path, items: Mapping[str, Buffer], *, force: bool = False) -> None:
        """Write the bitstreams; their keys are not kept beside what they say themselves."""
        with replacing(path, force=force) as stream:
            for key in items:
                stream.write(items[key])


def _found(data: StoredBytes, limits: Limits | None) -> Iterator[tuple[str, partial[memoryview]]]:
    parts = list(spans(data, limits))
    times: dict[str, int] = {}
    for part in parts:
        name = _name(data.part(part), limits) if len(parts) > 1 else MODEL
        times[name] = times.get(name, 0) + 1
        yield name if times[name] == 1 else f"{name}#{times[name]}", partial(data.__getitem__, part)


def _name(part: StoredBytes, limits: Limits | None) -> str:
    names = {unit.names for unit in Bitstream(part, limits).units if unit.names}
    return names.pop()[0] if len(names) == 1 else MODEL
