"""What the topology of a TensorFlow model is: its files, byte for byte, with gaps where the coded tensors are."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

import numpy as np

from nnc_adapters.shared import packing, strict_json
from nnc_adapters.shared.dtypes import FLOATS, INTEGERS, named
from nnc_adapters.shared.paths import inside
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.records import dataclass

__all__ = ["CHECKSUM", "EMBEDDED", "EXTRA", "GRAPH", "File", "Manifest", "Place", "check_path", "pack", "unpack"]

EXTRA = "tensorflow"
EMBEDDED = "assets.extra/model.nnr"
"""The bitstream that a SavedModel may carry; it is not a part of the model."""
GRAPH = "saved_model.pb"
CHECKSUM = "crc32"
"""The attribute of a graph with coded constants that tells whether these have changed."""
_KIND, _FILES = "kind", "files.json"


@dataclass(frozen=True, slots=True)
class Place:
    """Where values go: those of ``tensor``, or zeros where it is None."""

    offset: int
    tensor: str | None
    dtype: str
    shape: tuple[int, ...]

    @property
    def native(self) -> np.dtype[Any]:
        """The numpy type of the values."""
        return named(self.dtype, EXTRA)

    @property
    def size(self) -> int:
        """How many bytes the values take."""
        return math.prod(self.shape) * self.native.itemsize

    @property
    def end(self) -> int:
        """The byte behind the values."""
        return self.offset + self.size


@dataclass(frozen=True, slots=True)
class File:
    """A file of ``size`` bytes: ``exact`` has those around the ``places``, one after the other.

    ``attributes`` are what an archive says about it beside name and size.
    """

    path: str
    size: int
    exact: bytes
    places: tuple[Place, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a model, and the folders that have no files."""

    kind: str
    files: tuple[File, ...]
    folders: tuple[str, ...] = ()


def check_path(path: str) -> str:
    """``path`` itself; `ModelError` unless it is a relative path with slashes that stays inside the model."""
    try:
        return inside(path)
    except ValueError as error:
        raise ModelError(str(error)) from None


def pack(manifest: Manifest) -> bytes:
    """The data of the topology; `ModelError` where no folder can hold the files."""
    _check_paths([*(file.path for file in manifest.files), *manifest.folders])
    whole = _described(files=[_described_file(file) for file in manifest.files], folders=manifest.folders)
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
    exact = {str(number): file.exact for number, file in enumerate(manifest.files)}
    return packing.pack({_KIND: manifest.kind.encode(), _FILES: text.encode(), **exact})


def _described_file(file: File) -> dict[str, Any]:
    places = [[p.offset, p.tensor, p.dtype, p.shape] for p in file.places]
    size = file.size if places else None  # of a file without places all bytes are there
    return _described(path=file.path, size=size, places=places, attributes=file.attributes)


def _described(**fields: Any) -> dict[str, Any]:
    """The fields that are not empty."""
    return {key: value for key, value in fields.items() if value}


def unpack(data: bytes, limits: Limits) -> Manifest:
    """The model that ``data`` describe; `ModelError` where they are damaged or lead out of the model's own folder."""
    found = packing.unpack(data, limits)
    try:
        kind = found[_KIND].decode()
        raw = strict_json.document(found[_FILES])
        files = tuple(_file(entry, found[str(number)]) for number, entry in enumerate(raw["files"]))
        folders = tuple(check_path(_typed(folder, str)) for folder in raw.get("folders", ()))
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise ModelError(f"the topology is damaged: {error!r}") from error
    _check_paths([*(file.path for file in files), *folders])
    limits.check("decoded_bytes", sum(file.size for file in files), "the files of the model")
    return Manifest(kind, files, folders)


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:  # a bool is not a number here
        raise TypeError(f"{value!r} instead of {kind.__name__}")
    return value


def _file(raw: Any, exact: bytes) -> File:
    path = check_path(_typed(raw["path"], str))
    places = tuple(_place(*_typed(place, list)) for place in raw.get("places", ()))
    size = _typed(raw.get("size", len(exact)), int)
    file = File(path, size, exact, places, _typed(raw.get("attributes", {}), dict))
    check_places(file.places, file.size, path)
    if len(exact) != file.size - sum(place.size for place in places):
        raise ValueError(f"{len(exact)} bytes are given for {path}")
    return file


def _place(offset: Any, tensor: Any, dtype: Any, shape: Any) -> Place:
    if dtype not in FLOATS | INTEGERS:
        raise ValueError(f"data type {dtype!r}")
    dims = tuple(_typed(dim, int) for dim in shape)
    if min(dims, default=0) < 0:
        raise ValueError(f"shape {dims}")
    return Place(_typed(offset, int), None if tensor is None else _typed(tensor, str), dtype, dims)


def check_places(places: Iterable[Place], size: int, path: str) -> None:
    """`ModelError` unless the places are in order, next to each other, and inside a file of ``size`` bytes."""
    end = 0
    for place in places:
        if place.offset < end:
            raise ModelError(f"shares byte {place.offset} of {path} with another", tensor=place.tensor)
        end = place.end
    if end > size:
        raise ModelError(f"tensors end at byte {end} of {path}, which has {size}")


def _check_paths(paths: list[str]) -> None:
    taken = set(paths)
    parents = {path[:at] for path in paths for at, letter in enumerate(path) if letter == "/"}
    if len(taken) != len(paths) or taken & parents:
        raise ModelError("two files of the model have the same name, or one would lie inside the other")
