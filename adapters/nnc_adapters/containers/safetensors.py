"""safetensors files with a bitstream for each tensor, as one-dimensional U8 tensors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nnc_adapters.containers.base import Items, Source
from nnc_adapters.shared import strict_json
from nnc_adapters.shared.files import replacing
from nnc_core.errors import ModelError, NncError
from nnc_core.limits import Limits
from nnc_core.syntax import Buffer

__all__ = ["Safetensors"]

_METADATA = "__metadata__"
_MOST_HEADER = 100_000_000  # bytes, the bound of the format's own library
_FORMAT = {"format": "nnr"}


class _Entry(NamedTuple):
    start: int
    end: int
    key: str


class Safetensors:
    """The header is read as a whole; a bitstream keeps the shape and type of its tensor itself."""

    name: str = "safetensors"
    suffixes: tuple[str, ...] = (".safetensors",)
    packages: tuple[str, ...] = ()

    def sniff(self, path: Path) -> bool:
        """Whether the first tensor is an NNR, among none but U8 tensors."""
        try:
            with Source(path) as source:
                start, entries = _index(source)
                first = entries[0]
                return source.begins_bitstream(start + first.start, first.end - first.start)
        except (NncError, OSError, IndexError):
            return False

    def open(self, path: Path, limits: Limits | None = None) -> Items:
        """The tensors, in the order of their data; `ModelError` for a header that is not one of U8 vectors."""
        source = Source(path)
        return Items(path, _found(source), source.close, limits)

    def write(self, path: Path, items: Mapping[str, Buffer], *, force: bool = False) -> None:
        """Write the header, then the bitstreams; `ModelError` for a key that the format reserves."""
        header: dict[str, Any] = {_METADATA: _FORMAT}
        at = 0
        for key in items:
            if key == _METADATA:
                raise ModelError("safetensors cannot have a tensor of this name", tensor=key)
            size = len(items[key])
            header[key] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
            at += size
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with replacing(path, force=force) as stream:
            stream.write(len(text).to_bytes(8, "little") + text)
            for key in items:
                stream.write(items[key])


def _found(source: Source) -> Iterator[tuple[str, partial[bytes]]]:
    start, entries = _index(source)
    for entry in entries:
        yield entry.key, partial(source.read, start + entry.start, entry.end - entry.start)


def _index(source: Source) -> tuple[int, list[_Entry]]:
    """Where the data start, and the tensors in their order there, which leave no byte out."""
    start, header = _header(source)
    entries = sorted(_entry(source, key, value) for key, value in header.items() if key != _METADATA)
    at = 0
    for entry in entries:
        if entry.start != at:
            raise source.error(f"the data of {entry.key!r} are at {entry.start}, expected {at}")
        at = entry.end
    if start + at != source.size:
        raise source.error(f"{source.size - start} bytes of data, expected {at}")
    return start, entries


def _header(source: Source) -> tuple[int, dict[str, Any]]:
    size = int.from_bytes(source.read(0, 8), "little")
    if size > min(_MOST_HEADER, source.size - 8):
        raise source.error(f"a header of {size} bytes")
    try:
        header = strict_json.document(bytes(source.read(8, size)))
    except ValueError as error:
        raise source.error(f"the header is damaged: {error}") from None
    if not isinstance(header, dict):
        raise source.error("the header is not a JSON object")
    return 8 + size, header


def _entry(source: Source, key: str, value: Any) -> _Entry:
    match value:
        case {"dtype": "U8", "shape": [int(size)], "data_offsets": [int(start), int(end)]}:
            if 0 <= start <= end and end - start == size:
                return _Entry(start, end, key)
    raise ModelError("is not a vector of bytes that holds an NNR", file=str(source.path), tensor=key)
