"""NNEF models (ISO/IEC 15938-17, Annex A); no package is needed.

A bitstream that stands for a whole archive carries graph.nnef in its topology unit and graph.quant in its quantization
unit, both unchanged, and each variable in a data unit under its label. Floats are quantized; integers, small tensors
and arguments of operations are exact. What these cannot say (items other than float32 and int32, further files of the
archive) is in a private topology unit that other decoders pass over, see `nnc_adapters.nnef.private`.

The other way round, `NnefAdapter.embed` puts bitstreams into an archive, one ``<label>.nnr`` in place of each
``<label>.dat``, and `NnefAdapter.extract` undoes that. docs/carriage.md describes both for other software.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

import nnc_core
from nnc_adapters.base import DEFAULTS, Adapter, Options
from nnc_adapters.shared.kinds import shapes_of
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel, Topology
from nnc_core.tables.code_points import TopologyStorageFormat

if TYPE_CHECKING:
    from nnc_core.planner.parameters import CodingParameters

__all__ = ["NnefAdapter"]


class NnefAdapter(Adapter):
    """The way between NNEF archives and a `SourceModel`.

    An archive is a folder with graph.nnef in it, a tar or zip file of its contents, or a graph.nnef in its folder. The
    graph may be in the language of any extension: variables are recognized by their declarations alone.
    """

    name: ClassVar[str] = "nnef"
    suffixes: ClassVar[tuple[str, ...]] = (
        *(".nnef.tgz", ".nnef.tar.gz", ".nnef.tar.bz2", ".nnef.tar.xz"),
        *(".nnef.tar", ".nnef.zip", ".nnef"),
    )
    topology_storage_format: ClassVar[TopologyStorageFormat] = TopologyStorageFormat.NNR_TPL_NNEF
    annex: ClassVar[str] = "A"
    layout: ClassVar[str] = "nnef"

    def sniff(self, path: Path) -> bool:
        """Whether there is a file graph.nnef, in the folder or in the tar or zip file, or the file is one."""
        from nnc_adapters.nnef import archive

        return archive.looks_like_archive(Path(path))

    def read(self, path: Path, options: Options = DEFAULTS) -> SourceModel:
        """Read a model; its tensors are fetched from the archive when they are asked for.

        Raises `ModelError` for a damaged archive or graph, and links and names that lead out of it, `LimitError` for
        bombs.
        """
        from nnc_adapters.nnef import reader

        return reader.read(Path(path), options)

    def write(
        self,
        tensors: Mapping[str, NDArray[Any]],
        topology: Topology,
        path: Path,
        options: Options = DEFAULTS,
        *,
        force: bool = False,
    ) -> None:
        """Write the archive of ``topology`` with ``tensors``.

        The suffix of ``path`` says what becomes of it: a tar or zip file, or a folder. Raises `ModelError` where names,
        shapes or ranges do not fit the model, `FileExistsError` where ``path`` exists and ``force`` is not given.
        """
        from nnc_adapters.nnef import writer

        self.check(topology)
        writer.write(tensors, topology, Path(path), options.limits, force=force)

    def kinds(self, model: SourceModel) -> Mapping[str, str | None]:
        """What the operations that use a variable tell of it."""
        from nnc_adapters.nnef import kinds

        return kinds.kinds(model.topology.data, shapes_of(model)) if model.topology else {}

    def embed(
        self,
        source: Path,
        target: Path,
        *,
        parameters: CodingParameters | None = None,
        threads: int | None = None,
        force: bool = False,
        progress: Callable[[int, int], None] | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Write the archive ``source`` as ``target`` with ``<label>.nnr`` in place of ``<label>.dat``.

        graph.nnef and all other files are unchanged, and each ``.nnr`` can be decoded alone. Tensors that NNR cannot
        carry stay in their files. ``progress`` is called with the number of tensors done and their total. Raises as
        `read` and `write`.
        """
        from nnc_adapters.nnef import reader, writer

        options = Options(limits or Limits())
        writer.embed(
            reader.read(Path(source), options),
            Path(target),
            options.limits,
            parameters=parameters or nnc_core.CodingParameters(),
            threads=threads,
            force=force,
            progress=progress,
        )

    def extract(self, source: Path, target: Path, *, force: bool = False) -> None:
        """Write the archive ``source`` as ``target`` with every ``<label>.nnr`` decoded into ``<label>.dat``.

        Raises as `read` and `write`, and `BitstreamError` for a damaged bitstream.
        """
        from nnc_adapters.nnef import reader, writer

        model = reader.read(Path(source), DEFAULTS)
        if model.topology is not None:
            writer.write(model.tensors, model.topology, target, DEFAULTS.limits, force=force)
