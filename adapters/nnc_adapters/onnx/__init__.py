"""ONNX models (ISO/IEC 15938-17, Annex B); the package ``onnx`` is imported when a model is read or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from numpy.typing import NDArray

from nnc_adapters.base import DEFAULTS, Adapter, Options
from nnc_adapters.shared import protobuf
from nnc_adapters.shared.compressed import Inflating, broken, is_compressed
from nnc_adapters.shared.kinds import shapes_of
from nnc_core.errors import MissingDependencyError
from nnc_core.nnr_model import SourceModel, Topology
from nnc_core.stored import Bytes, StoredBytes
from nnc_core.tables.code_points import TopologyStorageFormat

__all__ = ["OnnxAdapter"]

# Protocol buffers end at 2^31 - 1 bytes; the margin leaves room for tools that add to a model.
SINGLE_FILE_BYTES = (1 << 31) - (1 << 24)

# How far `OnnxAdapter.sniff` looks; a model has a field for each operator set and each function.
_MOST_FIELDS = 1 << 16

# How the field of the IR version begins, which comes first.
_IR_VERSION = b"\x08"


@dataclass(frozen=True)
class OnnxAdapter(Adapter):
    """The way between ONNX files and a `SourceModel`.

    A model whose file would be larger than ``single_file_bytes`` is written with its weights in ``<file name>.data``
    beside it.
    """

    single_file_bytes: int = SINGLE_FILE_BYTES

    name: ClassVar[str] = "onnx"
    suffixes: ClassVar[tuple[str, ...]] = (".onnx", ".onnx.gz", ".onnx.bz2", ".onnx.xz")
    topology_storage_format: ClassVar[TopologyStorageFormat] = TopologyStorageFormat.NNR_TPL_ONNX
    annex: ClassVar[str] = "B"
    packages: ClassVar[tuple[str, ...]] = ("onnx", "ml_dtypes")
    install: ClassVar[str] = "nnc-suite[onnx]"
    layout: ClassVar[str] = "onnx"

    def sniff(self, path: Path) -> bool:
        """Whether the file is one message with an IR version and a graph, as every ONNX model is.

        Of a compressed file only the name and the first bytes can tell.
        """
        try:
            data = StoredBytes(path)
            if is_compressed(bytes(data[:8])):
                return path.name.lower().endswith(self.suffixes[1:]) and _first_byte(path) == _IR_VERSION
            return self._is_message(data)
        except broken():
            return False

    def _is_message(self, data: Bytes) -> bool:
        ir_version, graph = (1, protobuf.VARINT), (7, protobuf.LENGTH_DELIMITED)
        fields = islice(protobuf.fields(data, 0, len(data)), _MOST_FIELDS)
        present = {(f.number, f.wire_type) for f in fields}
        return present >= {ir_version, graph}

    def read(self, path: Path, options: Options = DEFAULTS) -> SourceModel:
        """Read a model; its tensors are fetched from the file when they are asked for.

        Raises `ModelError` for a damaged file or external data outside the model's folder, `UnsupportedError` where
        what must stay in the topology exceeds 2 GiB, `MissingDependencyError` without the package ``onnx``.
        """
        _require_onnx()
        from nnc_adapters.onnx import reader

        return reader.read(Path(path), options)

    def tensors(self, path: Path, options: Options = DEFAULTS) -> Mapping[str, NDArray[Any]]:
        """All tensors of a model, by name: each of those that share their bytes."""
        _require_onnx()
        from nnc_adapters.onnx import reader

        return reader.tensors(Path(path), options)

    def calibrated(
        self, model: SourceModel, path: Path, inputs: Mapping[str, NDArray[Any]], options: Options = DEFAULTS
    ) -> SourceModel:
        """The ``model`` with what onnxruntime measured of it on ``inputs``, called by the inputs of its graph.

        All have the same number of examples. Raises `ModelError` for inputs that the model does not take or that are
        not finite, `UnsupportedError` for models above 2 GB, `MissingDependencyError` without onnxruntime.
        """
        _require_onnx()
        from nnc_adapters.onnx import calibration

        return calibration.calibrated(model, Path(path), inputs, options.limits)

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

        Values are rounded to the data type that the model declares. Raises `ModelError` where names, shapes or ranges
        do not fit the model, `FileExistsError` where a file exists and ``force`` is not given.
        """
        _require_onnx()
        from nnc_adapters.onnx import writer

        self.check(topology)
        writer.write(tensors, topology.data, Path(path), self.single_file_bytes, force=force)

    def kinds(self, model: SourceModel) -> Mapping[str, str | None]:
        """What the operations that use a tensor tell of it."""
        _require_onnx()
        from nnc_adapters.onnx import kinds

        return kinds.kinds(model.topology.data, shapes_of(model)) if model.topology else {}


def _first_byte(path: Path) -> bytes:
    with path.open("rb") as stream:
        return Inflating(stream, 1 << 24).read(1)


def _require_onnx() -> None:
    try:
        import ml_dtypes  # noqa: F401
        import onnx  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "onnx", "onnx", "the format ONNX") from error
