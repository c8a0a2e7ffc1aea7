"""What an adapter is: the way between the files of one exchange format and a `SourceModel`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from numpy.typing import NDArray

from nnc_core.nnr_model import SourceModel, Topology

__all__ = ["Adapter", "SourceModel", "Topology"]


@runtime_checkable
class Adapter(Protocol):
    """Reads and writes one exchange format; registered under the entry point group ``nnc.adapters``.

    A dataclass with the fields ``limits``, ``keep_optimizer`` or ``opaque`` is given what the user asks for.
    """

    @property
    def name(self) -> str:
        """What ``nnc formats`` calls it."""
        ...

    @property
    def suffixes(self) -> tuple[str, ...]:
        """How the names of its files end, in small letters."""
        ...

    @property
    def topology_storage_format(self) -> int:
        """A `TopologyStorageFormat`, or a number from 129 to 255 for a format that the standard does not know."""
        ...

    def sniff(self, path: Path) -> bool:
        """Whether the file's content looks like this format; never raises on strange content."""
        ...

    def default_suffix(self, topology: Topology) -> str:
        """How the name of the file should end that ``topology`` makes; empty for a folder."""
        ...

    def read(self, path: Path) -> SourceModel:
        """Read a model; `ModelError` where the file is damaged, `MissingDependencyError` without its library."""
        ...

    def write(
        self,
        tensors: Mapping[str, NDArray[Any]],
        topology: Topology | None,
        path: Path,
        *,
        into: Path | None = None,
        force: bool = False,
    ) -> None:
        """Write the model that ``topology`` (or the existing file ``into``) describes, with ``tensors`` as weights.

        ``tensors`` may be lazy. The file appears complete or not at all; an existing one needs ``force``.
        """
        ...
