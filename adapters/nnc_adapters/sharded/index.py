"""The index of a sharded model: which tensor is in which bitstream, and what each file is, by its digest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from nnc_adapters.sharded.names import INDEX, index_of
from nnc_adapters.shared import strict_json
from nnc_adapters.shared.paths import inside, single
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.records import dataclass

__all__ = [
    "Content",
    "Index",
    "Shard",
    "Stored",
    "checked",
    "content_of",
    "described",
    "read_index",
    "shard_from",
]

_VERSION: Final = 1
_PIECE: Final = 1 << 20
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Content:
    """How many bytes a file has, and their SHA-256."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a bitstream: its type, its shape, and the bytes of its units."""

    dtype: str
    shape: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True)
class Shard:
    """A bitstream, which restores the file ``restores`` of the model; ``original`` is what that was.

    ``prefix`` stands before the names of its tensors in the whole model. ``exact`` says that the file comes back as it
    was, to the last byte.
    """

    file: str
    content: Content
    restores: str
    original: Content
    prefix: str
    exact: bool
    tensors: Mapping[str, Stored]


@dataclass(frozen=True, slots=True)
class Index:
    """All shards in the order of the model, and the files that are kept as they are, by name."""

    folder: Path
    shards: tuple[Shard, ...]
    kept: Mapping[str, Content]

    @property
    def weight_map(self) -> dict[str, str]:
        """The bitstream that each tensor of the model is in."""
        return {shard.prefix + name: shard.file for shard in self.shards for name in shard.tensors}

    def to_json(self) -> str:
        """The text of the index file."""
        sizes = {"total_size": sum(s.content.size for s in self.shards)}
        sizes["original_size"] = sum(s.original.size for s in self.shards)
        head = {"nnc_index": _VERSION, "metadata": sizes, "weight_map": self.weight_map}
        shards = [described(shard) for shard in self.shards]
        kept = {name: {"size": each.size, "sha256": each.sha256} for name, each in self.kept.items()}
        return json.dumps({**head, "shards": shards, "kept": kept}, indent=1) + "\n"


def described(shard: Shard) -> dict[str, Any]:
    """A shard as JSON has it."""
    return {
        "file": shard.file,
        "size": shard.content.size,
        "sha256": shard.content.sha256,
        "restores": shard.restores,
        "original_size": shard.original.size,
        "original_sha256": shard.original.sha256,
        "prefix": shard.prefix,
        "exact": shard.exact,
        "tensors": {n: {"dtype": t.dtype, "shape": list(t.shape), "size": t.size} for n, t in shard.tensors.items()},
    }


def read_index(path: Path, limits: Limits | None = None) -> Index:
    """Read the index of the sharded model at ``path``; `ModelError` where there is none, or it contradicts itself."""
    found = index_of(path)
    if found is None:
        raise ModelError(f"is not a sharded model: there is no {INDEX}", file=str(path))
    (limits or Limits()).check("topology_bytes", found.stat().st_size, str(found))
    try:
        return _index(found.parent, strict_json.document(found.read_bytes()))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ModelError(f"is not an index of bitstreams: {error}", file=str(found)) from error


def _index(folder: Path, data: Any) -> Index:
    if data["nnc_index"] != _VERSION:
        raise ValueError(f"it is of version {data['nnc_index']!r}, expected {_VERSION}")
    shards = tuple(map(shard_from, data["shards"]))
    kept = {inside(name): _content(each["size"], each["sha256"]) for name, each in data["kept"].items()}
    index = Index(folder, shards, kept)
    _check(index, data["weight_map"])
    return index


def _check(index: Index, weight_map: Any) -> None:
    for what, names in ("bitstream", [s.file for s in index.shards]), ("file", [*_restored(index)]):
        if len({name.lower() for name in names}) != len(names):
            raise ValueError(f"a {what} is there twice")
    if len(index.weight_map) != sum(len(shard.tensors) for shard in index.shards):
        raise ValueError("a tensor is in two bitstreams")
    if index.weight_map != weight_map:
        raise ValueError("its weight_map is not that of its shards")


def _restored(index: Index) -> Iterator[str]:
    """The files of the model."""
    yield from (shard.restores for shard in index.shards)
    yield from index.kept


def shard_from(data: Any) -> Shard:
    """A shard from JSON; ValueError, TypeError, LookupError or AttributeError for anything else."""
    tensors = {str(name): _stored(each) for name, each in data["tensors"].items()}
    content = _content(data["size"], data["sha256"])
    original = _content(data["original_size"], data["original_sha256"])
    exact = data["exact"]
    if not isinstance(exact, bool):
        raise ValueError(f"{exact!r} does not say whether a file is exact")
    return Shard(single(data["file"]), content, inside(data["restores"]), original, str(data["prefix"]), exact, tensors)


def _stored(data: Any) -> Stored:
    return Stored(str(data["dtype"]), tuple(map(strict_json.count, data["shape"])), strict_json.count(data["size"]))


def _content(size: Any, sha256: Any) -> Content:
    if not isinstance(sha256, str) or not _DIGEST.fullmatch(sha256):
        raise ValueError(f"{str(sha256)[:80]!r} is not a SHA-256")
    return Content(strict_json.count(size), sha256)


def content_of(path: Path) -> Content:
    """The size and the digest of a file."""
    from hashlib import sha256  # which takes long to import, and most models are not sharded

    digest, size = sha256(), 0
    with path.open("rb", buffering=0) as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            size += len(piece)
    return Content(size, digest.hexdigest())


def checked(path: Path, content: Content) -> Path:
    """The ``path`` of a file, if it is the one that an index lists; else `ModelError`."""
    if not path.is_file():
        raise ModelError("the index lists this file, and it is not there", file=str(path))
    if content_of(path) != content:
        raise ModelError("is not the file that the index lists: it was changed, or damaged", file=str(path))
    return path
