"""PyTorch (ISO/IEC 15938-17, Annex C): state dicts, checkpoints, TorchScript, exported programs, safetensors.

Every kind of file is treated alike: the bytes of the coded tensors are cut out, the rest is the topology, to the last
byte. Nothing is executed and PyTorch is not needed, but for the functions of this package, which work on modules.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from nnc_adapters.base import ANY_SIZE, DEFAULTS, Adapter, Options, Part, Parts
from nnc_adapters.shared.kinds import shapes_of
from nnc_core.errors import MissingDependencyError
from nnc_core.nnr_model import SourceModel, Topology
from nnc_core.tables.code_points import TopologyStorageFormat

if TYPE_CHECKING:
    from nnc_adapters.pytorch.losses import compressibility_loss, diversity_loss, keep_zeros
    from nnc_adapters.pytorch.measuring import evaluation
    from nnc_adapters.pytorch.modules import compress, load, state_dict
    from nnc_adapters.pytorch.scaling import compress_scaled

__all__ = [
    "PytorchAdapter",
    "compress",
    "compress_scaled",
    "compressibility_loss",
    "diversity_loss",
    "evaluation",
    "keep_zeros",
    "load",
    "state_dict",
]

_MODULES = {
    **dict.fromkeys(("compress", "load", "state_dict"), "modules"),
    **dict.fromkeys(("compressibility_loss", "diversity_loss", "keep_zeros"), "losses"),
    "compress_scaled": "scaling",
    "evaluation": "measuring",
}
"""Where the functions are that bring PyTorch with them; nothing else does."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = import_module(f"{__name__}.{_MODULES[name]}")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "torch", "pytorch", f"nnc_adapters.pytorch.{name}") from error
    return getattr(module, name)


class PytorchAdapter(Adapter):
    """The way between files of PyTorch or safetensors and a `SourceModel`.

    What an optimizer keeps for each weight is never coded: it is carried exactly, or becomes zeros, as in a new
    optimizer, without ``keep_optimizer``. A pickle that has other objects than mere data is read and written only if
    they are taken ``opaque``: they are carried as they are, and not called or imported; loading the file may run them.
    """

    name: ClassVar[str] = "pytorch"
    suffixes: ClassVar[tuple[str, ...]] = (
        *(".pt", ".pth", ".th", ".ckpt", ".bin", ".pt2", ".safetensors"),
        *(".safetensors.index.json", ".bin.index.json"),
    )
    topology_storage_format: ClassVar[TopologyStorageFormat] = TopologyStorageFormat.NNR_TPL_PYT
    annex: ClassVar[str] = "C"
    packages: ClassVar[tuple[str, ...]] = ("ml_dtypes",)  # PyTorch itself is for modules, not for files
    install: ClassVar[str] = "nnc-suite[safetensors]"
    layout: ClassVar[str] = "pytorch"

    def sniff(self, path: Path) -> bool:
        """Whether the content is an archive or pickle of PyTorch, safetensors, an index of shards, or a checkpoint."""
        from nnc_adapters.pytorch import layout

        return layout.is_model(Path(path))

    def suffixes_of(self, topology: Topology) -> tuple[str, ...]:
        """How the name of the file may end that ``topology`` makes; none for a folder of shards."""
        from nnc_adapters.pytorch import writer

        return writer.SUFFIXES.get(writer.Description(topology.data, ANY_SIZE).kind, writer.PICKLES)

    def fitting(self, names: Sequence[str], own: Collection[str]) -> Sequence[str]:
        """The same without what parallel or compiled modules have in their names, or with it."""
        from nnc_adapters.pytorch.prefixes import fitting

        found = {given: name for name, given in fitting({name: name for name in names}, own).items()}
        return [found.get(name, name) for name in names]

    def tensors(self, path: Path, options: Options = DEFAULTS) -> Mapping[str, NDArray[Any]]:
        """All tensors of a model, by name: each of those that share their bytes, and of every type that has arrays."""
        from nnc_adapters.pytorch import arrays

        return arrays.tensors(Path(path), options)

    def read(self, path: Path, options: Options = DEFAULTS) -> SourceModel:
        """Read a model; its tensors are fetched from the file when they are asked for.

        Raises `ModelError` for a damaged file, or a pickle that refers to anything but data; `UnsupportedError` where
        what must stay in the topology exceeds the limit.
        """
        from nnc_adapters.pytorch import reader

        return reader.read(Path(path), options)

    def parts(self, path: Path, options: Options = DEFAULTS) -> Parts:
        """The files of a folder, or of an index and its shards; `ModelError` for a model of another kind."""
        from nnc_adapters.pytorch import parts

        return parts.parts(Path(path), options)

    def read_part(self, folder: Path, part: Part, options: Options = DEFAULTS) -> SourceModel:
        """Read one file of a model; what must be exact in it, the files beside it have told."""
        from nnc_adapters.pytorch import parts

        return parts.read(folder, part, options)

    def masks(self, tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, str]:
        """The masks of ``torch.nn.utils.prune``."""
        from nnc_adapters.pytorch import roles

        return roles.masks(tensors)

    def kinds(self, model: SourceModel) -> Mapping[str, str | None]:
        """What the names and shapes of a state dict tell."""
        from nnc_adapters.pytorch import kinds

        return kinds.kinds(shapes_of(model))

    def write(
        self,
        tensors: Mapping[str, NDArray[Any]],
        topology: Topology,
        path: Path,
        options: Options = DEFAULTS,
        *,
        force: bool = False,
    ) -> None:
        """Write the model of ``topology`` with ``tensors``.

        Shards are written into a new folder ``path``. Values are rounded to the data type that the model declares.
        Raises `ModelError` where names, shapes or ranges do not fit the model, `FileExistsError` where something exists
        and ``force`` is not given.
        """
        from nnc_adapters.pytorch import writer

        self.check(topology)
        writer.write(tensors, topology.data, Path(path), options.limits, force=force, opaque=options.opaque)
