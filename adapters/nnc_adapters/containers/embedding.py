"""Bitstreams from one container into another, as one or as one for each tensor."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from nnc_adapters.containers.base import Container, Extendable
from nnc_adapters.containers.registry import Carrier, find, for_target
from nnc_adapters.reports import Meter, passing
from nnc_adapters.shared.files import check_free, replacing, size_of
from nnc_core.bitstream.parts import MODEL, joined, split
from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.lazy import LazyMapping
from nnc_core.limits import Limits
from nnc_core.records import dataclass
from nnc_core.syntax import Buffer

__all__ = ["EmbedReport", "embed", "extract"]


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """What was written: ``bitstreams`` of together ``bytes`` into ``target``, a container of this ``format``.

    The numbers are None for a format that has its own way with bitstreams; ``way`` says what that is, for a person.
    """

    target: Path
    format: str
    bitstreams: int | None = None
    bytes: int | None = None
    way: str | None = None


def embed(
    source: str | Path,
    target: str | Path,
    *,
    per_tensor: bool = False,
    into: str | Path | None = None,
    container: str | None = None,
    force: bool = False,
    meter: Meter | None = None,
    limits: Limits | None = None,
) -> EmbedReport:
    """Put the NNR in ``source``, a plain file or a container, into the container ``target``.

    It becomes one bitstream or, ``per_tensor``, one for each tensor. ``into`` is a file whose other content is to be
    kept; ``container`` names the format where the suffix of ``target`` does not. Raises `FileExistsError` for an
    existing ``target`` without ``force``, `ModelError` where a container is damaged or unknown or its bitstreams do
    not go together, `BitstreamError` for damaged bitstreams, `UnsupportedError` and `LimitError`.
    """
    source, target, limits = Path(source), Path(target), limits or Limits()
    base = None if into is None else Path(into)
    writer = for_target(target, container, base)
    if isinstance(writer, Carrier):
        _embed_foreign(writer, source, target, base, force, limits)
        return EmbedReport(target, writer.name, way=getattr(writer, "way", None))
    check_free(target, force=force)  # before the work, not only after it
    with _carried(source, target.parent, limits, per_tensor) as items:
        size = sum(len(items[key]) for key in items)
        _write(writer, target, _Passing(items, passing(meter, "embedding", size)), base, force)
        return EmbedReport(target, writer.name, len(items), size)


def extract(
    source: str | Path,
    target: str | Path,
    *,
    tensor: str | None = None,
    force: bool = False,
    meter: Meter | None = None,
    limits: Limits | None = None,
) -> EmbedReport:
    """Write the NNR in the container ``source``, or that of one ``tensor``, as the plain bitstream ``target``.

    With ``tensor`` nothing but its bitstream is read where the container keeps one for each; its key is the name of
    the (first) tensor in it. Raises as `embed`; `ModelError` for a tensor that is not there.
    """
    source, target, limits = Path(source), Path(target), limits or Limits()
    reader = find(source)
    if isinstance(reader, Carrier):
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            carried = Path(folder, "carried.nnr")
            reader.extract(source, carried, force=False, limits=limits)
            return extract(carried, target, tensor=tensor, force=force, meter=meter, limits=limits)
    with reader.open(source, limits) as items, replacing(target, force=force) as stream:
        pieces = joined(items, limits) if tensor is None else [_part(source, items, tensor, limits)]
        size, passed = 0, passing(meter, "extracting", size_of(source))
        for piece in pieces:
            size += stream.write(piece)
            if passed is not None:
                passed(size)
    return EmbedReport(target, "nnr", 1, size)


class _Passing(LazyMapping[Buffer]):
    """Bitstreams whose bytes are told as they are taken."""

    def __init__(self, items: Mapping[str, Buffer], passed: Callable[[int], None] | None) -> None:
        self._items = items
        self._passed = passed
        self._sizes: dict[str, int] = {}

    def __getitem__(self, key: str) -> Buffer:
        item = self._items[key]
        if self._passed is not None:
            self._sizes[key] = len(item)
            self._passed(sum(self._sizes.values()))
        return item

    def _names(self) -> Collection[str]:
        return self._items


def _part(source: Path, items: Mapping[str, Buffer], tensor: str, limits: Limits) -> Buffer:
    if tensor in items:
        return items[tensor]
    whole = next(iter(items)) if len(items) == 1 else MODEL
    parts = split(items[whole], limits) if whole in items else {}
    if tensor not in parts:
        raise ModelError("there is no such tensor", file=str(source), tensor=tensor)
    return parts[tensor]


def _write(writer: Container, target: Path, items: Mapping[str, Buffer], base: Path | None, force: bool) -> None:
    if base is None:
        writer.write(target, items, force=force)
    elif isinstance(writer, Extendable):
        writer.write_into(base, target, items, force=force)
    else:
        raise UnsupportedError(f"embedding into an existing file of the format {writer.name}")


def _embed_foreign(writer: Carrier, source: Path, target: Path, base: Path | None, force: bool, limits: Limits) -> None:
    """Carriers take a file with one bitstream."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        carried = Path(folder, "carried.nnr")
        extract(source, carried, limits=limits)
        writer.embed(carried, target, into=base, force=force, limits=limits)


@contextmanager
def _carried(source: Path, folder: Path, limits: Limits, per_tensor: bool) -> Iterator[Mapping[str, Buffer]]:
    """What is to be written, by key."""
    reader = find(source)
    if isinstance(reader, Carrier):
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            carried = Path(temporary, "carried.nnr")
            reader.extract(source, carried, force=False, limits=limits)
            with _carried(carried, folder, limits, per_tensor) as items:
                yield items
        return
    with reader.open(source, limits) as items:
        if len(items) > 1 and per_tensor:
            yield items
        else:
            with _whole(items, folder, limits) as whole:
                yield split(whole, limits) if per_tensor else {MODEL: whole}


@contextmanager
def _whole(items: Mapping[str, Buffer], folder: Path, limits: Limits) -> Iterator[Buffer]:
    """One bitstream of all items; of several in a file, as it may be larger than memory."""
    if len(items) == 1:
        yield from items.values()
        return
    with tempfile.TemporaryFile(dir=folder) as stream:
        for piece in joined(items, limits):
            stream.write(piece)
        stream.flush()
        mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)  # a file of our own, which has no name
        try:
            yield memoryview(mapped)
        finally:
            with suppress(BufferError):  # views in the traceback of an error keep it open
                mapped.close()
