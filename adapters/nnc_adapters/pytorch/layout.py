"""The files of a model: one, the shards in a folder and the index that lists them, or a folder as a hub has it."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnc_adapters.pytorch import safetensors
from nnc_adapters.pytorch.archive import is_archive
from nnc_adapters.pytorch.views import Data, Scan
from nnc_adapters.shared import strict_json
from nnc_adapters.shared.paths import files_below, single
from nnc_core.errors import ModelError
from nnc_core.lazy import LazyModule
from nnc_core.limits import Limits
from nnc_core.records import dataclass

if TYPE_CHECKING:
    from nnc_adapters.pytorch import distributed, legacy, objects, pickles, zipped
else:  # pickles and archives: many modules that safetensors does without
    distributed, legacy = LazyModule("nnc_adapters.pytorch.distributed"), LazyModule("nnc_adapters.pytorch.legacy")
    objects, pickles = LazyModule("nnc_adapters.pytorch.objects"), LazyModule("nnc_adapters.pytorch.pickles")
    zipped = LazyModule("nnc_adapters.pytorch.zipped")

SHARDED = "sharded"
DISTRIBUTED = "distributed"
REPOSITORY = "repository"
FOLDERS = (SHARDED, DISTRIBUTED, REPOSITORY)
"""The kinds of models that are several files in a folder."""
DESCRIPTION = "description.json"
"""What the topology calls its list of files and of the tensors that they lack."""
_INDEX = ".index.json"
_METADATA = ".metadata"
# What lies beside shards and is needed to use them; where the folder was given, it is kept.
_COMPANIONS = (".json", ".txt", ".model", ".jinja")
_LARGEST_COMPANION = 1 << 26
# What a folder has beside its weights, if a hub made it; and how the names of the weights end.
_MARKERS = ("config.json", "model_index.json", "adapter_config.json", "modules.json")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
# The arguments of a run of training: an object, and no weights.
_ARGUMENTS = "training_args.bin"
_BOOKKEEPING = {".git", ".cache", "__pycache__"}


Keys = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class File:
    """A file of a model, and what is in it: nothing, for an index and its companions.

    ``before`` are the keys that stand before its own in the paths of its tensors.
    """

    name: str
    data: Data
    scan: Scan
    before: Keys = ()


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
            return _is_checkpoint(path) or _is_repository(path)
        data = Data.of_file(path)
        if is_archive(data.view):
            return zipped.is_known(data.view)
        if safetensors.is_safetensors(data.view) or legacy.is_legacy(data.view):
            return True
        return path.name.endswith(_INDEX) and _is_index(path)
    except (OSError, ModelError, ValueError):
        return False


def scan(data: Data, limits: Limits, *, opaque: bool = False) -> Scan:
    """Find the tensors of one file; `ModelError` where it is damaged, or not of a known kind."""
    with _reading(data.path, partial(_hint, data, limits)):
        if is_archive(data.view):
            return zipped.scan(data.view, limits, opaque=opaque)
        if safetensors.is_safetensors(data.view):
            return safetensors.scan(data.view)
        if legacy.is_legacy(data.view):
            return legacy.scan(data.view, limits, opaque=opaque)
        if data.path is None or data.path.suffix == ".safetensors":
            return safetensors.scan(data.view)  # which says what is wrong
        raise ValueError("it does not begin like a file of PyTorch or safetensors")


@contextmanager
def _reading(path: Path | None, hint: Callable[[], str]) -> Iterator[None]:
    """`ModelError` for whatever a damaged file leads to; where a pickle has objects, with a ``hint``."""
    try:
        yield
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, struct.error) as error:
        how = f"; {hint()}" if isinstance(error, pickles.ObjectError) else ""
        raise ModelError(f"cannot be read: {error}{how}", file=str(path) if path else None) from error


def _hint(data: Data, limits: Limits) -> str:
    """What to do with a file that has objects in it."""
    try:
        value = (zipped if is_archive(data.view) else legacy).value(data.view, limits)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, struct.error):
        return objects.OPAQUE
    return objects.hint(value)


def opened(path: Path, limits: Limits, *, opaque: bool = False) -> Model:
    """Find the files of a model and the tensors in them; pickles may have ``opaque`` objects.

    Raises `ModelError` where something is damaged or missing, and for checkpoints that cannot be read safely.
    """
    if path.is_dir():
        read = _checkpoint if _is_checkpoint(path) else _repository
        return read(path, limits, opaque)
    if path.name.endswith(_INDEX):
        return Model(SHARDED, [*_listed(path, limits, opaque), _companion(path)])
    data = Data.of_file(path)
    found = scan(data, limits, opaque=opaque)
    return Model(found.kind, [File("", data, found)], found.nested)


def _is_checkpoint(folder: Path) -> bool:
    """Whether a folder has the description of a distributed checkpoint."""
    return (folder / _METADATA).is_file()


def _is_repository(folder: Path) -> bool:
    marked = any((folder / marker).is_file() for marker in _MARKERS)
    places = chain(folder.glob("*"), folder.glob("*/*") if marked else ())
    return any(is_weights(path.name) and path.is_file() and is_model(path) for path in places)


def is_weights(name: str) -> bool:
    """Whether a file in the folder of a hub has tensors, by its name."""
    return name.endswith(_WEIGHTS) and name != _ARGUMENTS


def _repository(folder: Path, limits: Limits, opaque: bool) -> Model:
    """All files below ``folder``; `ModelError` where none has weights.

    What is not a file of weights, or not of a known kind, is kept as it is.
    """
    if not _is_repository(folder):
        raise ModelError("is a folder without weights", file=str(folder))
    weights = (path for path in folder.iterdir() if path.name in _MARKERS or is_weights(path.name))
    below = sorted(files_below(folder, weights, _BOOKKEEPING))
    files = [_member(name, path, limits, opaque) for name, path in below]
    for name, path in below:
        if name.endswith(_INDEX) and _is_index(path):
            _check_listed(path, limits, opaque)
    found: Counter[Keys] = Counter()
    for file in files:
        found.update({_folder_of(file) + view.path for view in file.scan.views if view.path})
    return Model(REPOSITORY, [_renamed(file, found) for file in files])


def _check_listed(index: Path, limits: Limits, opaque: bool) -> None:
    """`ModelError` where some of the shards are there and some are not; the weights may be in other files, too."""
    if any((index.parent / name).is_file() for name in _shards_of(index)):
        _listed(index, limits, opaque)


def _member(name: str, path: Path, limits: Limits, opaque: bool) -> File:
    if path.stat().st_size == 0:
        return File(name, Data(memoryview(b"")), Scan("", []))
    data = Data.of_file(path)
    known = is_weights(name) and is_model(path)
    return File(name, data, scan(data, limits, opaque=opaque) if known else Scan("", []))


def _folder_of(file: File) -> Keys:
    return tuple(file.name.split("/")[:-1])


def _renamed(file: File, found: Mapping[Keys, int]) -> File:
    """``file``, with the keys of its tensors below the folder that it is in; its name, too, where others have these."""
    before = _folder_of(file)
    if any(found[before + view.path] > 1 for view in file.scan.views):
        before = tuple(file.name.split("/"))
    views = [replace(view, path=before + view.path) if view.path else view for view in file.scan.views]
    return replace(file, scan=replace(file.scan, views=views), before=before)


def _checkpoint(folder: Path, limits: Limits, opaque: bool) -> Model:
    metadata = folder / _METADATA
    limits.check("topology_bytes", metadata.stat().st_size, metadata.name)
    with _reading(metadata, lambda: objects.DISTRIBUTED):
        pieces = {single(name): inside for name, inside in distributed.pieces(metadata.read_bytes()).items()}
    files = [_pieces(folder / name, inside, limits, opaque) for name, inside in pieces.items()]
    beside = [_companion(metadata), *_companions(folder, metadata, pieces)]
    return Model(DISTRIBUTED, [*files, *beside], nested=True)


def _pieces(path: Path, pieces: list[distributed.Piece], limits: Limits, opaque: bool) -> File:
    if not path.is_file():
        raise ModelError(f"{_METADATA} lists this file, and it is not there", file=str(path))
    data = Data.of_file(path)
    with _reading(path, lambda: objects.DISTRIBUTED):
        return File(path.name, data, distributed.scan(data.view, pieces, limits, opaque=opaque))


def _is_index(path: Path) -> bool:
    try:
        return isinstance(strict_json.document(path.read_bytes())["weight_map"], dict)
    except (ValueError, TypeError, LookupError):
        return False


def _listed(index: Path, limits: Limits, opaque: bool) -> list[File]:
    """The shards that an index lists."""
    shards = _shards_of(index)
    return [_shard(index.parent / name, tensors, limits, opaque) for name, tensors in shards.items()]


def _shards_of(index: Path) -> dict[str, set[str]]:
    try:
        return _shards(strict_json.document(index.read_bytes()))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ModelError(f"is not an index of shards: {error}", file=str(index)) from error


def _shards(index: Any) -> dict[str, set[str]]:
    """The tensors of each shard, shards in the order of the index."""
    shards: dict[str, set[str]] = {}
    for tensor, name in index["weight_map"].items():
        if is_companion(single(name)):
            raise ValueError(f"{name!r} is not a name for a shard")
        shards.setdefault(name, set()).add(tensor)
    return shards


def is_companion(name: str) -> bool:
    """Whether a file beside shards has no tensors."""
    return name.endswith(_COMPANIONS)


def _shard(path: Path, tensors: set[str], limits: Limits, opaque: bool) -> File:
    if not path.is_file():
        raise ModelError("the index lists this file, and it is not there", file=str(path))
    data = Data.of_file(path)
    found = scan(data, limits, opaque=opaque)
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
    return File(path.name, Data.of_file(path), Scan("", []))
