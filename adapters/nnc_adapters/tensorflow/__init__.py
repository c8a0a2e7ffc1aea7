"""TensorFlow and Keras models (ISO/IEC 15938-17, Annex D), read and written without TensorFlow.

Every kind of file is kept as it is, byte for byte, but for the values of the coded tensors and the checksums of these.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from nnc_adapters.base import ANY_SIZE, DEFAULTS, Adapter, Options
from nnc_core.errors import ModelError
from nnc_core.lazy import imported_on_use
from nnc_core.nnr_model import SourceModel, Topology
from nnc_core.tables.code_points import TopologyStorageFormat

if TYPE_CHECKING:
    from nnc_adapters.tensorflow.carrier import embed, extract
else:
    __getattr__ = imported_on_use(__name__, {"carrier": ("embed", "extract")})

__all__ = ["TensorflowAdapter", "embed", "extract"]


class TensorflowAdapter(Adapter):
    """The way between the files of TensorFlow and a `SourceModel`.

    These are SavedModel folders, checkpoints (a folder with one, or its ``.index``), Keras files (``.keras``, ``.h5``)
    and TFLite models. What an optimizer keeps for each weight is never coded: it is carried exactly, or becomes zeros,
    as in a new optimizer, without ``keep_optimizer``.
    """

    name: ClassVar[str] = "tensorflow"
    suffixes: ClassVar[tuple[str, ...]] = (".keras", ".h5", ".hdf5", ".tflite", ".index", ".pb", ".weights.json")
    topology_storage_format: ClassVar[TopologyStorageFormat] = TopologyStorageFormat.NNR_TPL_TEF
    annex: ClassVar[str] = "D"
    packages: ClassVar[tuple[str, ...]] = ("h5py", "google_crc32c", "ml_dtypes")
    install: ClassVar[str] = "nnc-suite[tensorflow]"
    layout: ClassVar[str] = "tensorflow"

    def sniff(self, path: Path) -> bool:
        """Whether this is one of the folders or files; never raises on strange content."""
        from nnc_adapters.tensorflow import reader

        try:
            return reader.kind(Path(path)) is not None
        except (OSError, ModelError):
            return False

    def suffixes_of(self, topology: Topology) -> tuple[str, ...]:
        """How the name of the file may end that ``topology`` makes; none for a folder."""
        from nnc_adapters.tensorflow import manifest, writer

        return writer.suffixes(manifest.unpack(topology.data, ANY_SIZE))

    def read(self, path: Path, options: Options = DEFAULTS) -> SourceModel:
        """Read a model; its tensors are fetched from its files when they are asked for.

        Raises `ModelError` for damaged files, `UnsupportedError` for compressed checkpoints, `LimitError` where what is
        not coded exceeds the limits, `MissingDependencyError` without ``h5py`` (Keras files), ``google-crc32c``
        (checkpoints) or ``ml_dtypes`` (bfloat16).
        """
        from nnc_adapters.tensorflow import reader

        return reader.read(Path(path), options)

    def calibrated(
        self, model: SourceModel, path: Path, inputs: Mapping[str, NDArray[Any]], options: Options = DEFAULTS
    ) -> SourceModel:
        """The ``model`` with what Keras measured of it on ``inputs``, called by the names of its inputs.

        For ``.keras`` and ``.h5`` files of whole models; these are loaded by Keras, which must be installed:
        `MissingDependencyError`. All inputs have the same number of examples. Raises `ModelError` for inputs that the
        model does not take or that are not finite, and models that Keras does not load, `UnsupportedError` for other
        files.
        """
        from nnc_adapters.tensorflow import reader

        if reader.kind(Path(path)) not in ("keras", "hdf5"):
            return super().calibrated(model, path, inputs, options)
        from nnc_adapters.tensorflow import calibration

        return calibration.calibrated(model, Path(path), inputs)

    def masks(self, tensors: Mapping[str, NDArray[Any]]) -> Mapping[str, str]:
        """The masks of ``PruneLowMagnitude`` wrappers; arrays are fetched only where names tell of such."""
        if not any("mask" in name or "pruning_vars" in name for name in tensors):
            return {}
        from nnc_adapters.tensorflow import roles

        return roles.masks({name: tensors[name].shape for name in tensors})

    def layout_of(self, topology: Topology) -> str:
        """That of TensorFlow, but for TFLite, which has one of its own."""
        from nnc_adapters.tensorflow import manifest

        kind = manifest.unpack(topology.data, ANY_SIZE).kind
        return kind if kind == "tflite" else self.layout

    def kinds(self, model: SourceModel) -> Mapping[str, str | None]:
        """What the names of variables and layers tell, and roles; of Keras files, the classes of layers too."""
        from nnc_adapters.tensorflow import kinds, manifest

        found = manifest.unpack(model.topology.data, ANY_SIZE) if model.topology else None
        return kinds.kinds_of(model, found) if found else {}

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
        do not fit the model, `FileExistsError` where something exists at ``path`` and ``force`` is not given.
        """
        from nnc_adapters.tensorflow import manifest, writer

        self.check(topology)
        files = manifest.unpack(topology.data, options.limits)
        writer.write(tensors, files, Path(path), options.limits, force=force)
