"""One small model in every format, made without frameworks."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from annex_tests.fuzz import nnef as fuzz_nnef
from annex_tests.fuzz import onnx as fuzz_onnx
from annex_tests.fuzz import pytorch as fuzz_pytorch
from annex_tests.fuzz import tensorflow as fuzz_tensorflow
from annex_tests.support import handmade_pytorch, handmade_tensorflow
from annex_tests.support.handmade_pytorch import Reference, Tensor

_VALUES = np.linspace(-1, 1, 20, dtype=np.float32)


def checkpoint() -> bytes:
    """Three tensors: two weights, and one that is a view of the first."""
    state = {"a": Tensor(), "tied": Tensor(), "b": Tensor(Reference("1"))}
    members = {"data.pkl": handmade_pytorch.pickled(state), "data/0": _VALUES.tobytes(), "data/1": _VALUES.tobytes()}
    return handmade_pytorch.zipped({**members, "byteorder": b"little", "version": b"3\n"})


def hdf5() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for layer in ("dense", "dense_1", "dense_2"):
            file[f"layers/{layer}/vars/0"] = _VALUES
    return stream.getvalue()


MODELS: dict[str, tuple[str, Callable[[], Any]]] = {
    "onnx": ("m.onnx", lambda: {"m.onnx": fuzz_onnx.of_everything().SerializeToString()}),
    "onnx with external data": ("m.onnx", fuzz_onnx.with_external_data),
    "nnef folder": ("m", lambda: fuzz_nnef.in_folder(fuzz_nnef.archive())),
    "nnef tgz": ("m.nnef.tgz", lambda: fuzz_nnef.in_tgz(fuzz_nnef.in_tar(fuzz_nnef.archive()))),
    "nnef zip": ("m.nnef.zip", lambda: fuzz_nnef.in_zip(fuzz_nnef.archive())),
    "pytorch": ("m.pt", lambda: {"m.pt": checkpoint()}),
    "pytorch legacy": ("m.pt", lambda: {"m.pt": fuzz_pytorch.legacy(2)}),
    "safetensors": ("m.safetensors", lambda: {"m.safetensors": handmade_pytorch.safetensors(*fuzz_pytorch_parts())}),
    "sharded": ("m", fuzz_pytorch.sharded),
    "distributed": ("m", fuzz_pytorch.distributed),
    "saved model": ("m", fuzz_tensorflow.saved_model),
    "hdf5": ("m.h5", lambda: {"m.h5": hdf5()}),
    "keras": ("m.keras", lambda: fuzz_tensorflow.in_archive(0, fuzz_tensorflow.members("latest"))),
    "tflite": ("m.tflite", lambda: {"m.tflite": handmade_tensorflow.tflite(operators=3)}),
}


def fuzz_pytorch_parts() -> tuple[Any, bytes]:
    header, data = fuzz_pytorch.safetensors()
    return header, data


def written(name: str, files: Mapping[str, bytes], folder: Path) -> Path:
    """Write the files of a model into ``folder``; return the path of the one called ``name``."""
    for file, data in files.items():
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder / name
