"""From a path to a `SourceModel`: content decides which kind of model it is."""

from __future__ import annotations

from pathlib import Path

from nnc_adapters.base import Options
from nnc_adapters.tensorflow import archive, constants, contiguous, folder, hdf5, shards, table, tflite
from nnc_adapters.tensorflow.content import Content, of_file
from nnc_adapters.tensorflow.model import Opened, source_model
from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel

__all__ = ["kind", "opened", "read"]

_FROZEN = ".pb"
_CONVERT = (
    "is a checkpoint in TensorFlow's format of before 2017; convert it: r = tf.train.load_checkpoint(file); "
    "names = sorted(r.get_variable_to_shape_map()); tf.raw_ops.SaveV2(prefix='converted', tensor_names=names, "
    "shape_and_slices=[''] * len(names), tensors=[r.get_tensor(n) for n in names])"
)


def kind(path: Path) -> str | None:
    """What is at ``path``, as `opened` tells kinds apart; None for anything else."""
    if shards.find(path) is not None:
        return "shards"
    if path.is_dir():
        if folder.is_folder(path):
            return "folder"
        old = (path / folder.STATE).is_file() and any(
            _ends_like_a_table(of_file(p)) for p in path.iterdir() if p.is_file()
        )
        return "checkpoint_v1" if old else None
    content = of_file(path)
    start = content.raw(0, min(content.size, 8)).tobytes()
    found = {
        "hdf5": hdf5.is_hdf5(content) and hdf5.has_weights(content),
        "keras": start.startswith(archive.SIGNATURE) and archive.looks_like_keras(path),
        "tflite": start[4:] == tflite.IDENTIFIER,
        "checkpoint": folder.is_index(path),
        "checkpoint_v1": _ends_like_a_table(content),
        "frozen": path.suffix == _FROZEN and constants.is_graph(content),
    }
    return next((name for name, is_it in found.items() if is_it), None)


def _ends_like_a_table(content: Content) -> bool:
    size = len(table.MAGIC)
    return content.size > size and content.raw(content.size - size, size).tobytes() == table.MAGIC


def read(path: Path, options: Options) -> SourceModel:
    """Read a model as the ``options`` say."""
    try:
        return source_model(opened(path, options.limits, strip_debug=options.strip_debug), options)
    except ModelError as error:
        raise ModelError(error.message, file=error.file or str(path), tensor=error.tensor) from error


def opened(path: Path, limits: Limits, *, strip_debug: bool = False) -> Opened:
    """The files of a model and the variables in them; `ModelError` where it is damaged."""
    match kind(path):
        case "folder":
            return folder.open_folder(path, limits, strip_debug=strip_debug)
        case "checkpoint":
            return folder.open_checkpoint(path, limits)
        case "keras":
            return archive.open_archive(path, limits)
        case "hdf5":
            return hdf5.open_hdf5(contiguous.contiguous(of_file(path), limits))
        case "shards":
            return shards.open_shards(shards.find(path) or path, limits)
        case "checkpoint_v1":
            raise UnsupportedError("checkpoint of version 1", _CONVERT)
        case "frozen":
            return constants.open_frozen(of_file(path), limits)
        case "tflite":
            return tflite.open_tflite(of_file(path), limits)
        case _:
            raise ModelError("is not a model of TensorFlow or Keras")
