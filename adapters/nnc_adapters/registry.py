"""Finding the adapter of a file or of a topology.

Adapters are classes without required arguments under the entry point group ``nnc.adapters``. Those of this package
are known without being installed, so that a source checkout works.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from nnc_adapters.base import Adapter
from nnc_adapters.recognition import instead_of_a_model, is_placeholder
from nnc_core.errors import ModelError, UnsupportedError

__all__ = ["GROUP", "OWN", "adapter", "adapters", "find"]

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
    points = {name: EntryPoint(name, value, GROUP) for name, value in OWN.items()}
    points = {**{point.name: point for point in entry_points(group=GROUP)}, **points}
    ordered = [points[name] for name in (*OWN, *sorted(points.keys() - OWN.keys()))]
    return tuple(found for point in ordered if (found := _loaded(point)) is not None)


def _loaded(point: EntryPoint) -> Adapter | None:
    try:
        found = point.load()()
        if not isinstance(found, Adapter):
            raise TypeError("it is not an nnc_adapters.base.Adapter")
    except Exception as error:  # a foreign adapter may fail in any way, and must not take the others with it
        warnings.warn(f"the adapter {point.name!r} ({point.value}) cannot be loaded: {error}", stacklevel=2)
        return None
    return found


def find(path: Path) -> Adapter:
    """The adapter for a model: by what is in the file, then by its suffix (of a file that is yet to be written).

    Raises `FileNotFoundError` where ``path`` neither exists nor has a known suffix, `ModelError` where no adapter
    knows it.
    """
    path = Path(path)
    named = [a for a in adapters() if path.name.lower().endswith(a.suffixes)]
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
    message = instead_of_a_model(path) or f"is in none of the known formats ({names})"
    raise ModelError(message, file=str(path))


def adapter(storage_format: int) -> Adapter:
    """The adapter that writes a topology of this ``topology_storage_format``; `UnsupportedError` if there is none."""
    for candidate in adapters():
        if candidate.topology_storage_format == storage_format:
            return candidate
    raise UnsupportedError(f"topology_storage_format {storage_format}")
