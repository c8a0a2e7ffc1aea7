"""Finding the adapter of a file or of a topology.

Adapters are classes without required arguments under the entry point group ``nnc.adapters``. Those of this package
are known without being installed, so that a source checkout works.
"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnc_adapters.base import Adapter
from nnc_adapters.recognition import instead_of_a_model, is_placeholder
from nnc_core.errors import ModelError, UnsupportedError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["GROUP", "OWN", "adapter", "adapters", "check_exists", "find", "models_in"]

GROUP = "nnc.adapters"

OWN = {
    "onnx": "nnc_adapters.onnx:OnnxAdapter",
    "nnef": "nnc_adapters.nnef:NnefAdapter",
    "pytorch": "nnc_adapters.pytorch:PytorchAdapter",
    "tensorflow": "nnc_adapters.tensorflow:TensorflowAdapter",
}


@cache
def adapters() -> tuple[Adapter, ...]:
    """Every adapter that can be loaded, ours first; a warning names those that cannot."""
    others = {point.name: point for point in entry_points(GROUP) if point.name not in OWN}
    loaded = (_loaded(name, others[name].value, others[name].load) for name in sorted(others))
    return (*_own(), *(each for each in loaded if each is not None))


def entry_points(group: str) -> Iterable[EntryPoint]:
    """What installed packages declare."""
    from importlib import metadata  # which takes long to import, and is not needed for formats of ours

    return metadata.entry_points(group=group)


@cache
def _own() -> tuple[Adapter, ...]:
    loaded = (_loaded(name, place, partial(_imported, place)) for name, place in OWN.items())
    return tuple(each for each in loaded if each is not None)


def _imported(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _loaded(name: str, place: str, load: Callable[[], Any]) -> Adapter | None:
    try:
        found = load()()
        if not isinstance(found, Adapter):
            raise TypeError("it is not an nnc_adapters.base.Adapter")
    except Exception as error:  # a foreign adapter may fail in any way, and must not take the others with it
        warnings.warn(f"the adapter {name!r} ({place}) cannot be loaded: {error}", stacklevel=2)
        return None
    return found


def find(path: Path) -> Adapter:
    """The adapter for a model: by what is in the file, then by its suffix (of a file that is yet to be written).

    Others are asked where ours do not know a file by both. Raises `FileNotFoundError` where ``path`` neither exists nor
    has a known suffix, `ModelError` where no adapter knows it.
    """
    path = Path(path)
    for candidate in _own():
        if _is_named_for(candidate, path) and path.exists() and candidate.sniff(path):
            return candidate
    named = [a for a in adapters() if _is_named_for(a, path)]
    known = [a for a in adapters() if path.exists() and a.sniff(path)]
    # where several know the content, the suffix says which is meant
    both = [a for a in known if a in named]
    damaged = [] if path.exists() and is_placeholder(path) else named
    for candidates in (both, known, damaged):
        if candidates:
            return candidates[0]
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    names = ", ".join(a.name for a in adapters())
    message = instead_of_a_model(path, adapters()) or f"is in none of the known formats ({names})"
    raise ModelError(message, file=str(path))


def check_exists(path: Path) -> None:
    """`FileNotFoundError` where there is nothing to read, with what may be meant."""
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT) + _beside(path), str(path))


def _beside(path: Path) -> str:
    """What there is of that name with a suffix, such as the index of a checkpoint."""
    parent = path.parent
    found = sorted(p for p in parent.iterdir() if p.name.startswith(path.name + ".")) if parent.is_dir() else []
    models = [p.name for p in found if any(candidate.sniff(p) for candidate in adapters())]
    return f"; there is {' and '.join(models[:2])}" if models else ""


def models_in(folder: Path) -> Iterator[Path]:
    """The models in a folder, which are files or folders, in the order of their names; ``folder`` itself, if it is one.

    What only looks like a model by its suffix counts; hidden files do not.
    """
    if _is_model(folder):
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from models_in(path)
        elif path.is_file() and _is_model(path):
            yield path


def _is_model(path: Path) -> bool:
    try:
        return find(path) is not None
    except ModelError:
        return False


def _is_named_for(adapter: Adapter, path: Path) -> bool:
    return path.name.lower().endswith(adapter.suffixes)


def adapter(storage_format: int) -> Adapter:
    """The adapter that writes a topology of this ``topology_storage_format``; `UnsupportedError` if there is none."""
    for candidate in chain.from_iterable(load() for load in (_own, adapters)):
        if candidate.topology_storage_format == storage_format:
            return candidate
    raise UnsupportedError(f"topology_storage_format {storage_format}")
