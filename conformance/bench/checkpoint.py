"""Reads the tensors of a PyTorch checkpoint (a zip archive) without PyTorch, and without running what the file says.

Only the names that a state dict is made of are known to the unpickler; anything else is refused.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def read_checkpoint(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a state dict; int64 scalars (counters of batches) become int32 of shape (1,).

    Raises `pickle.UnpicklingError` for anything but a plain state dict.
    """
    with zipfile.ZipFile(path) as archive:
        (index,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(index) as file:
            tensors = _Unpickler(file, archive, index.removesuffix("data.pkl")).load()
    return {name: _as_coded(array) for name, array in tensors.items()}


def _as_coded(array: NDArray[Any]) -> NDArray[Any]:
    array = np.ascontiguousarray(np.atleast_1d(array))
    return array.astype(np.int32) if array.dtype.kind == "i" else array


def _tensor(storage: NDArray[Any], offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Any:
    size = storage.itemsize
    # np.ndarray, unlike as_strided, checks that all elements lie inside the storage.
    return np.ndarray(shape, storage.dtype, storage, offset * size, tuple(size * stride for stride in strides))


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(file)
        self._archive = archive
        self._root = root

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch" and name in _STORAGES:
            return _STORAGES[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a state dict")

    def persistent_load(self, pid: Any) -> NDArray[Any]:
        _, dtype, key, _, _ = pid
        return np.frombuffer(self._archive.read(f"{self._root}data/{key}"), dtype)
