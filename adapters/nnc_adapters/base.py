"""What an adapter is: the way between the files of one exchange format and a `SourceModel`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel, Topology
from nnc_core.records import dataclass

__all__ = [
    "ANY_SIZE",
    "DEFAULTS",
    "EVERYTHING",
    "Accepted",
    "Adapter",
    "Options",
    "Part",
    "Parts",
    "SourceModel",
    "Topology",
]


@dataclass(frozen=True, slots=True)
class Options:
    """What a user asks for when a model is read or written.

    Without ``keep_optimizer`` what an optimizer keeps for each weight becomes zeros. ``opaque`` admits objects that are
    not mere data: they are carried as they are, and not run. ``strip_debug`` leaves behind what is there for people
    only, such as comments and stack traces; the remarks of the model say what that was. ``all_floats`` puts every
    tensor of floating-point numbers among the tensors, small ones too; the tensors called ``chosen`` are there whatever
    the rules say, if they are numbers, and with ``only`` no others are. ``bits`` admits among these every type whose
    elements have a bit pattern of up to 64 bits, scalars, and what an optimizer keeps: what is not to be coded, but
    compared.
    """

    limits: Limits = field(default_factory=Limits)
    keep_optimizer: bool = True
    opaque: bool = False
    all_floats: bool = False
    chosen: frozenset[str] = frozenset()
    only: bool = False
    strip_debug: bool = False
    bits: bool = False


class Accepted(frozenset[str]):
    """A set of all names that a function accepts."""

    def __new__(cls, accepts: Callable[[str], bool]) -> Accepted:
        """The set of what ``accepts`` is true for."""
        made = super().__new__(cls)
        made._accepts = accepts
        return made

    _accepts: Callable[[str], bool]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._accepts(name)


EVERYTHING = Accepted(lambda name: True)
"""All tensors of numbers, as what is ``chosen``."""

DEFAULTS = Options()
"""What a user gets without asking."""

ANY_SIZE = Limits(decoded_bytes=1 << 62)
"""For descriptions that are only looked at: no model is made of them."""


@dataclass(frozen=True, slots=True)
class Part:
    """A file of a model of several that can be read and coded by itself, in another process too.

    ``name`` is its path below the folder of the model, with slashes. ``prefix`` stands before the names of its tensors
    in the whole model. ``known`` is what an adapter has learned about it from the files beside it; it can be pickled.
    """

    name: str
    prefix: str = ""
    known: Any = None


@dataclass(frozen=True, slots=True)
class Parts:
    """The files of a model in ``folder``: those with tensors, in model order, and those that are kept as they are."""

    folder: Path
    coded: tuple[Part, ...]
    kept: tuple[str, ...]


class Adapter(ABC):
    """Reads and writes one exchange format; registered under the entry point group ``nnc.adapters``.

    ``name`` is what ``nnc formats`` calls it, ``suffixes`` are how the names of its files end, in small letters,
    ``topology_storage_format`` is a `TopologyStorageFormat`, or a number from 129 to 255 for a format that the standard
    does not know. ``annex`` is the letter of the standard's annex, ``packages`` are the modules that it imports, and
    ``install`` is what to give to pip to have them. ``layout`` names the framework in whose order the axes of tensors
    are, see `kinds`.
    """

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    topology_storage_format: ClassVar[int]
    annex: ClassVar[str] = ""
    packages: ClassVar[tuple[str, ...]] = ()
    install: ClassVar[str] = ""
    layout: ClassVar[str] = ""

    @abstractmethod
    def sniff(self, path: Path) -> bool:
        """Whether the file's content looks like this format; never raises on strange content."""

    @abstractmethod
    def read(self, path: Path, options: Options = DEFAULTS) -> SourceModel:
        """Read a model; `ModelError` where the file is damaged, `MissingDependencyError` without its library."""

    @abstractmethod
    def write(
        self,
        tensors: Mapping[str, NDArray[Any]],
        topology: Topology,
        path: Path,
        options: Options = DEFAULTS,
        *,
        force: bool = False,
    ) -> None:
        """Write the model that ``topology`` describes, with ``tensors`` as weights.

        ``tensors`` may be lazy, and each is to be fetched once. The file appears complete or not at all; an existing
        one needs ``force``. `ModelError` where the topology is not this format's or names, shapes and ranges do not
        fit it.
        """

    def suffixes_of(self, topology: Topology) -> tuple[str, ...]:
        """How the name of the file may end that ``topology`` makes, the usual one first; none for a folder."""
        return self.suffixes

    def default_suffix(self, topology: Topology) -> str:
        """How the name of the file usually ends that ``topology`` makes; empty for a folder."""
        return next(iter(self.suffixes_of(topology)), "")

    def parts(self, path: Path, options: Options = DEFAULTS) -> Parts:
        """The files of a model, of which nothing but headers is read; `ModelError` where it has no parts."""
        message = (
            f"is a model of {self.name} that is not made of files which can be coded one by one; leave out --sharded"
        )
        raise ModelError(f"{message} (sharded=False)", file=str(path))

    def read_part(self, folder: Path, part: Part, options: Options = DEFAULTS) -> SourceModel:
        """Read one of the `parts`; its topology restores this file, and its tensors have their names in it."""
        return self.read(folder / part.name, options)

    def tensors(self, path: Path, options: Options = DEFAULTS) -> Mapping[str, NDArray[Any]]:
        """All tensors of a model, those too that are not coded, by name and lazily."""
        return self.read(path, replace(options, chosen=EVERYTHING)).tensors

    def fitting(self, names: Sequence[str], own: Collection[str]) -> Sequence[str]:
        """What tensors called ``names`` are called in a model that has the names ``own``, if these are different."""
        return names

    def calibrated(
        self, model: SourceModel, path: Path, inputs: Mapping[str, NDArray[Any]], options: Options = DEFAULTS
    ) -> SourceModel:
        """The ``model`` that was read from ``path``, with what was measured of it on ``inputs``, called by name.

        `ModelError` for inputs that the model does not take, `UnsupportedError` where its format cannot be run.
        """
        why = f"these files of {self.name} cannot be run to calibrate them; ONNX and Keras models can"
        raise UnsupportedError("calibration", why)

    def check(self, topology: Topology) -> None:
        """`ModelError` unless the topology is of this format."""
        if topology.storage_format != self.topology_storage_format:
            raise ModelError(f"the topology is of storage format {topology.storage_format:d}, not of {self.name}")

    def masks(self, tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, str]:
        """Which of a model's tensors are masks that hide parts of weights while it is pruned, each with its weight."""
        return {}

    def layout_of(self, topology: Topology) -> str:
        """The framework in whose order the axes of a model's tensors are, if that is not `layout` for all models."""
        return self.layout

    def kinds(self, model: SourceModel) -> Mapping[str, str | None]:
        """What each tensor is to the network, as far as the model tells: a row of `nnc_adapters.convert.layouts`.

        Together with ``layout`` it lets ``nnc convert`` turn axes; without, tensors go only where they fit as they are.
        """
        return {}
