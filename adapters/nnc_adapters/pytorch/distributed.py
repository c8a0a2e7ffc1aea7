"""Distributed checkpoints: a folder of files that hold one small archive for each piece of a tensor.

What is where stands in a pickle, which is read without running it, as all others are.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from nnc_adapters.pytorch import pickles, zipped
from nnc_adapters.pytorch.views import Checksum, Scan, View
from nnc_adapters.shared import strict_json
from nnc_core.limits import Limits
from nnc_core.records import dataclass
from nnc_core.stored import Bytes

_MODULE = "torch.distributed.checkpoint.metadata "
_TENSOR = _MODULE + "TensorStorageMetadata"
_CLASSES = (
    *(_MODULE + name for name in ("Metadata", "MetadataIndex", "StorageMeta", "TensorProperties")),
    *(_MODULE + name for name in ("TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata")),
    _MODULE + "_MEM_FORMAT_ENCODING",
    "torch.distributed.checkpoint.filesystem _StorageInfo",
    *(f"pathlib {name}" for name in ("Path", "PosixPath", "WindowsPath")),
    *(f"pathlib._local {name}" for name in ("Path", "PosixPath", "WindowsPath")),
)

Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """A value in an archive that is bytes ``start`` to ``end`` of a file: a ``tensor``, or part of one, or bytes.

    ``optimizer`` says that an optimizer keeps it.
    """

    path: Keys
    tensor: bool
    optimizer: bool
    start: int
    end: int


def pieces(data: bytes) -> dict[str, list[Piece]]:
    """The pieces in each file that a checkpoint's description ``data`` lists, in the order of their places.

    Raises `ValueError` for a damaged description, and for one that refers to anything but data.
    """
    metadata = pickles.load(io.BytesIO(data), classes=_CLASSES).value.state
    kinds = {_text(name): kind.name for name, kind in metadata["state_dict_metadata"].items()}
    stored = [(index.state, storage.state) for index, storage in metadata["storage_data"].items()]
    paths = _paths(kinds, metadata["planner_data"])
    optimizers = _optimizers(paths.values())
    parts = Counter(index["fqn"] for index, _ in stored)
    found: dict[str, list[Piece]] = {}
    for index, storage in stored:
        if storage.get("transform_descriptors"):
            raise ValueError("its files are transformed; save the checkpoint without extensions")
        inside = found.setdefault(_text(storage["relative_path"]), [])
        name = index["fqn"]
        *keys, last = paths[name]
        if parts[name] > 1:
            last += f"[{','.join(str(strict_json.count(o)) for o in index['offset'])}]"
        optimizer = any(paths[name][: len(prefix)] == prefix for prefix in optimizers)
        start = strict_json.count(storage["offset"])
        end = start + strict_json.count(storage["length"])
        inside.append(Piece((*keys, last), kinds[name] == _TENSOR, optimizer, start, end))
    return {name: sorted(inside, key=lambda piece: piece.start) for name, inside in sorted(found.items())}


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} is not a name")
    return value


def _paths(names: Mapping[str, Any], planned: Mapping[str, Any] | None) -> dict[str, Keys]:
    """The keys that lead to each tensor: those that it was flattened from, if they are known."""
    planned = planned or {}
    return {name: tuple(map(str, planned.get(name, ()))) or (name,) for name in names}


def _optimizers(paths: Iterable[Keys]) -> set[Keys]:
    """The keys that lead to what optimizers keep: a dict with states and parameter groups."""
    keys = {path[:depth] for path in paths for depth in range(1, len(path) + 1)}
    return {key[:-1] for key in keys if key[-1] == "state" and (*key[:-1], "param_groups") in keys}


def scan(view: Bytes, inside: list[Piece], limits: Limits, *, opaque: bool = False) -> Scan:
    """Find the tensors of one file; `ValueError` where an archive is damaged, or refers to anything but data."""
    end = 0
    for piece in inside:
        if not end <= piece.start < piece.end <= len(view):
            where = f"bytes {piece.start} to {piece.end}"
            raise ValueError(f"{'.'.join(piece.path)!r} cannot be {where}: it overlaps another, or the file's end")
        end = piece.end
    scans = [(piece, zipped.scan(view[piece.start : piece.end], limits, opaque=opaque)) for piece in inside]
    views = [_view(piece, found) for piece, each in scans for found in each.views]
    checksums = [_moved(checksum, piece.start) for piece, each in scans for checksum in each.checksums]
    return Scan("distributed", views, checksums, opaque=frozenset().union(*(each.opaque for _, each in scans)))


def _view(piece: Piece, found: View) -> View:
    begin, end = found.storage
    coded = piece.tensor and not piece.optimizer
    return replace(
        found,
        path=piece.path if coded else (),
        start=found.start + piece.start,
        storage=(begin + piece.start, end + piece.start),
        exact=found.exact or not coded,
        optimizer=piece.tensor and piece.optimizer,
    )


def _moved(checksum: Checksum, by: int) -> Checksum:
    return Checksum(checksum.start + by, checksum.end + by, tuple(place + by for place in checksum.places))
