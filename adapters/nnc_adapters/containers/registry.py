"""Which containers there are, and how to tell them apart.

A container that is a mapping of keys to bitstreams is listed in `CONTAINERS`. What takes a bitstream in another way
(a model's own archive, say) is a `Carrier`, listed in `FOREIGN` by module and class, and loaded when needed.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Protocol, runtime_checkable

from nnc_adapters.containers.archive import Npz, Zip
from nnc_adapters.containers.base import Container
from nnc_adapters.containers.concatenation import Concatenation
from nnc_adapters.containers.folder import Folder
from nnc_adapters.containers.hdf5 import Hdf5
from nnc_adapters.containers.isobmff import Isobmff
from nnc_adapters.containers.safetensors import Safetensors
from nnc_core.errors import ModelError
from nnc_core.limits import Limits

__all__ = ["ARRAY_CODECS", "CONTAINERS", "FOREIGN", "Carrier", "carriers", "find", "for_target"]


@runtime_checkable
class Carrier(Protocol):
    """Takes bitstreams into files of a format with a meaning of its own, and gives them back.

    It may have a text ``way`` that says what becomes of the files, and the letter of the ``annex`` that is about it.
    """

    name: str
    suffixes: tuple[str, ...]
    packages: tuple[str, ...]

    def sniff(self, path: Path) -> bool:
        """Whether ``path`` carries NNR in this way; never raises on strange content."""
        ...

    def takes(self, path: Path) -> bool:
        """Whether NNR can be put into what is at ``path``; never raises on strange content."""
        ...

    def embed(self, source: Path, target: Path, *, into: Path | None, force: bool, limits: Limits) -> None:
        """Write ``target``, which carries the bitstream in the ``.nnr`` file ``source``, perhaps based on ``into``."""
        ...

    def extract(self, source: Path, target: Path, *, force: bool, limits: Limits) -> None:
        """Write the bitstream in ``source`` as the ``.nnr`` file ``target``."""
        ...


CONTAINERS: tuple[Container, ...] = (
    Concatenation(),
    Safetensors(),
    Zip(),
    Npz(),
    Isobmff(),
    Hdf5(),
    Folder(),
)

FOREIGN: tuple[str, ...] = (
    "nnc_adapters.nnef.carrier:NnefArchive",
    "nnc_adapters.tensorflow.carrier:SavedModel",
    "nnc_adapters.tensorflow.carrier:EmptiedSavedModel",
)
"""Carriers as ``module:class``; the classes take no arguments."""

ARRAY_CODECS = ("zarr", "numcodecs")
"""Packages of which NNR is a codec for arrays."""


@cache
def carriers() -> tuple[Container | Carrier, ...]:
    """All that can carry NNR. Those with a meaning of their own come first: an archive of theirs may be a plain one."""
    return (*map(_loaded, FOREIGN), *CONTAINERS)


def _loaded(place: str) -> Carrier:
    module, _, name = place.partition(":")
    found: Carrier = getattr(import_module(module), name)()
    return found


def find(path: Path) -> Container | Carrier:
    """What carries the NNR in ``path``; `ModelError` if nothing known does, `FileNotFoundError` if there is no file."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    for candidate in carriers():
        if candidate.sniff(path):
            return candidate
    names = ", ".join(each.name for each in carriers())
    raise ModelError(f"carries no NNR in a known way ({names})", file=str(path))


def for_target(path: Path, name: str | None = None, base: Path | None = None) -> Container | Carrier:
    """What writes ``path``: what is called ``name``, or what takes ``base`` or the existing ``path``, or what the
    suffix says; a name without suffix is a folder. `ModelError` where none of these help.
    """
    if name is None:
        name = _taking(base or path) or _by_suffix(path)
    for candidate in carriers():
        if candidate.name == name:
            return candidate
    names = ", ".join(c.name for c in carriers())
    raise ModelError(f"the suffix does not tell which container is meant; name one of {names}", file=str(path))


def _taking(path: Path) -> str | None:
    return next((c.name for c in carriers() if isinstance(c, Carrier) and path.exists() and c.takes(path)), None)


def _by_suffix(path: Path) -> str | None:
    named = (c.name for c in carriers() if c.suffixes and path.name.lower().endswith(c.suffixes))
    return next(named, None if path.suffix else Folder.name)
