"""From a path to a `SourceModel`: content decides which kind of model it is."""

from __future__ import annotations

from pathlib import Path

from nnc_adapters.base import Options
from nnc_adapters.tensorflow import archive, contiguous, folder, hdf5, tflite
from nnc_adapters.tensorflow.content import of_file
from nnc_adapters.tensorflow.model import Opened, source_model
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel

__all__ = ["kind", "opened", "read"]


def kind(path: Path) -> str | None:
    """What is at ``path``: ``folder``, ``checkpoint``, ``keras``, ``hdf5``, ``tflite`` or None."""
    if path.is_dir():
        return "folder" if folder.is_folder(path) else None
    content = of_file(path)
    start = content.raw(0, min(content.size, 8)).tobytes()
    found = {
        "hdf5": hdf5.is_hdf5(content) and hdf5.looks_like_keras(content),
        "keras": start.startswith(archive.SIGNATURE) and archive.looks_like_keras(path),
        "tflite": start[4:] == tflite.IDENTIFIER,
        "checkpoint": folder.is_index(path),
    }
    return next((name for name, is_it in found.items() if is_it), None)


def read(path: Path, options: Options) -> SourceModel:
    """Read a model as the ``options`` say."""
    try:
        return source_model(opened(path, options.limits), options)
    except ModelError as error:
        raise ModelError(error.message, file=error.file or str(path), tensor=error.tensor) from error


def opened(path: Path, limits: Limits) -> Opened:
    """The files of a model and the variables in them; `ModelError` where it is damaged."""
    match kind(path):
        case "folder":
            return folder.open_folder(path, limits)
        case "checkpoint":
            return folder.open_checkpoint(path, limits)
        case "keras":
            return archive.open_archive(path, limits)
        case "hdf5":
            return hdf5.open_hdf5(contiguous.contiguous(of_file(path), limits))
        case "tflite":
            return tflite.open_tflite(of_file(path), limits)
        case _:
            raise ModelError("is no model of TensorFlow or Keras")
