"""The files of a model: one, or the shards in a folder and the index that lists them."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nnc_adapters.pytorch import distributed, legacy, pickles, safetensors, zipped
from nnc_adapters.pytorch.archive import is_archive
from nnc_adapters.pytorch.views import Data, Scan
from nnc_adapters.shared import strict_json
from nnc_adapters.shared.names import storable
from nnc_core.errors import ModelError
from nnc_core.limits import Limits

SHARDED = "sharded"
DISTRIBUTED = "distributed"
FOLDERS = (SHARDED, DISTRIBUTED)
"""The kinds of models that are several files in a folder."""
_INDEX = ".index.json"
# What lies beside shards and is needed to use them; where the folder was given, it is kept.
_COMPANIONS = (".json", ".txt", ".model", ".jinja")
_LARGEST_COMPANION = 1 << 26
_CONVERT = "torch.save(torch.load(file, weights_only=False).state_dict(), 'weights.pt')"
_CONVERT_CHECKPOINT = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch folder checkpoint.pt"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a model, and what is in it: nothing, for an index and its companions."""

    name: str
    data: Data
    scan: Scan


@dataclass(frozen=True, slots=True)
class Model:
    """The files of a model; ``kind`` says what they are. A single file has the empty name."""

    kind: str
    files: list[File]
    nested: bool = field(default=False)


def is_model(path: Path) -> bool:
    """Whether a file or folder looks like a model that can be read; never raises."""
    try:
        if path.is_dir():
            return bool(_indexes(path)) or distributed.is_checkpoint(path)
        data = Data.mapped(path)
        if is_archive(data.view):
            return zipped.is_known(data.view)
        if safetensors.is_safetensors(data.view) or legacy.is_legacy(data.view):
            return True
        return path.name.endswith(_INDEX) and _is_index(path)
    except (OSError, ModelError, ValueError):
        return False


def scan(data: Data, limits: Limits) -> Scan:
    """Find the tensors of one file; `ModelError` where it is damaged, or of no known kind."""
    with _reading(data.path):
        if is_archive(data.view):
            return zipped.scan(data.view, limits)
        if legacy.is_legacy(data.view):
            return legacy.scan(data.view, limits)
        if data.path is None or data.path.suffix == ".safetensors" or safetensors.is_safetensors(data.view):
            return safetensors.scan(data.view)
        raise ValueError("it begins like no file of PyTorch or safetensors")


@contextmanager
def _reading(path: Path | None, convert: str = _CONVERT) -> Iterator[None]:
    """`ModelError` for whatever a damaged file leads to; where pickles need to be run, it says how to ``convert``."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, struct.error) as error:
        how = ""
        if isinstance(error, pickles.PickleError):
            how = f"; only tensors, numbers, texts and containers are read. If you trust it, convert it: {convert}"
        raise ModelError(f"cannot be read: {error}{how}", file=str(path) if path else None) from error


def opened(path: Path, limits: Limits) -> Model:
    """Find the files of a model and the tensors in them.

    Raises `ModelError` where something is damaged or missing, and for checkpoints that cannot be read safely.
    """
    if not path.is_dir() and not path.name.endswith(_INDEX):
        data = Data.mapped(path)
        found = scan(data, limits)
        return Model(found.kind, [File("", data, found)], found.nested)
    if distributed.is_checkpoint(path) and not _indexes(path):
        return _checkpoint(path, limits)
    index = path if not path.is_dir() else _index(path)
    try:
        shards = _shards(strict_json.document(index.read_bytes()))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ModelError(f"is no index of shards: {error}", file=str(index)) from error
    files = [_shard(index.parent / name, tensors, limits) for name, tensors in shards.items()]
    beside = _companions(path, index, shards) if path.is_dir() else [_companion(index)]
    return Model(SHARDED, [*files, *beside])


def _checkpoint(folder: Path, limits: Limits) -> Model:
    metadata = folder / distributed.METADATA
    limits.check("topology_bytes", metadata.stat().st_size, metadata.name)
    with _reading(metadata, _CONVERT_CHECKPOINT):
        pieces = {plain(name): inside for name, inside in distributed.pieces(metadata.read_bytes()).items()}
    files = [_pieces(folder / name, inside, limits) for name, inside in pieces.items()]
    beside = [_companion(metadata), *_companions(folder, metadata, pieces)]
    return Model(DISTRIBUTED, [*files, *beside], nested=True)


def _pieces(path: Path, pieces: list[distributed.Piece], limits: Limits) -> File:
    if not path.is_file():
        raise ModelError(f"{distributed.METADATA} lists this file, and it is not there", file=str(path))
    data = Data.mapped(path)
    with _reading(path, _CONVERT_CHECKPOINT):
        return File(path.name, data, distributed.scan(data.view, pieces, limits))


def _indexes(folder: Path) -> list[Path]:
    return sorted(p for p in folder.glob(f"*{_INDEX}") if p.is_file() and _is_index(p))


def _is_index(path: Path) -> bool:
    try:
        return isinstance(strict_json.document(path.read_bytes())["weight_map"], dict)
    except (ValueError, TypeError, LookupError):
        return False


def _index(folder: Path) -> Path:
    found = _indexes(folder)
    if not found:
        raise ModelError(f"has no index of shards (*{_INDEX})", file=str(folder))
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise ModelError(f"has several indexes of shards ({names}); give one of them", file=str(folder))
    return found[0]


def _shards(index: Any) -> dict[str, set[str]]:
    """The tensors of each shard, shards in the order of the index."""
    shards: dict[str, set[str]] = {}
    for tensor, name in index["weight_map"].items():
        if is_companion(plain(name)):
            raise ValueError(f"{name!r} is no name for a shard")
        shards.setdefault(name, set()).add(tensor)
    return shards


def plain(name: Any) -> str:
    """``name``, if it is that of a file in the same folder; else `ValueError`."""
    known = isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\:\0")
    if not known or not storable(name):
        raise ValueError(f"{name!r} is not the name of a file in the folder")
    return str(name)


def is_companion(name: str) -> bool:
    """Whether a file beside shards has no tensors."""
    return name.endswith(_COMPANIONS)


def _shard(path: Path, tensors: set[str], limits: Limits) -> File:
    if not path.is_file():
        raise ModelError("the index lists this file, and it is not there", file=str(path))
    data = Data.mapped(path)
    found = scan(data, limits)
    missing = tensors - {".".join(view.path) for view in found.views}
    if missing:
        raise ModelError("the index lists this tensor, and it is not there", file=str(path), tensor=min(missing))
    return File(path.name, data, found)


def _companions(folder: Path, index: Path, shards: Collection[str]) -> list[File]:
    """The index, and the small files of text that are needed to use the shards."""

    def kept(path: Path) -> bool:
        if path.name in shards or not is_companion(path.name) or not path.is_file():
            return False
        return path == index or 0 < path.stat().st_size <= _LARGEST_COMPANION

    return [_companion(path) for path in sorted(filter(kept, folder.iterdir()))]


def _companion(path: Path) -> File:
    return File(path.name, Data.mapped(path), Scan("", []))
