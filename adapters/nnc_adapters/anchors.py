"""A whole model as one exact bitstream, of whatever types its tensors are: what a chain of updates starts from."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import nnc_core
from nnc_adapters.shared.dtypes import FLOATS, INTEGERS, named
from nnc_core import Limits, ModelError
from nnc_core.nnr_model import SourceModel, Topology
from nnc_core.tables.code_points import TopologyStorageFormat

__all__ = ["is_anchor", "read_anchor", "write_anchor"]

_KEY: Final = "nnc_anchor"
_VERSION: Final = 1
_MOST: Final = (1 << 31) - 1

Tensors = Mapping[str, NDArray[Any]]


def write_anchor(model: Tensors, *, threads: int | None = None, limits: Limits | None = None) -> bytes:
    """Code a model exactly; names, order, types and shapes are those of ``model``."""
    head = [[name, np.asarray(model[name]).dtype.name, list(np.shape(model[name]))] for name in model]
    carried = {name: _carried(np.asarray(model[name])) for name in model if np.size(model[name])}
    data = json.dumps({_KEY: _VERSION, "tensors": head}).encode()
    stream = io.BytesIO()
    topology = Topology(TopologyStorageFormat.NNR_TPL_UNREC, data)
    source = SourceModel(carried, topology, exact=dict.fromkeys(carried, "part of an anchor"))
    nnc_core.write(stream, source, threads=threads, limits=limits)
    return stream.getvalue()


def read_anchor(data: bytes, *, threads: int | None = None, limits: Limits | None = None) -> dict[str, NDArray[Any]]:
    """The model that `write_anchor` coded; `ModelError` for any other bitstream."""
    file = nnc_core.NnrFile(data, limits)
    head = _head(file.topology)
    found = dict(file.decode_all(threads))
    return {name: _restored(found.get(name), dtype, shape) for name, dtype, shape in head}


def is_anchor(topology: Topology) -> bool:
    """Whether a bitstream with this topology is an anchor."""
    return topology.data.startswith(f'{{"{_KEY}"'.encode())


def _head(topology: Topology | None) -> list[tuple[str, str, tuple[int, ...]]]:
    try:
        data = json.loads(b"" if topology is None else topology.data)
        if data[_KEY] == _VERSION:
            return [(str(name), str(dtype), tuple(map(int, shape))) for name, dtype, shape in data["tensors"]]
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise ModelError("is not the anchor of a chain of updates")


def _carried(array: NDArray[Any]) -> NDArray[Any]:
    """A tensor in a type that NNR has; others as their bytes, in one more dimension."""
    if array.dtype.name in FLOATS:
        return array
    if array.dtype.name in INTEGERS and array.min() >= -_MOST and array.max() <= _MOST:
        return array
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
    return little.reshape(*array.shape, 1).view(np.uint8)


def _restored(array: NDArray[Any] | None, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    dtype = named(name, "pytorch")
    if array is None:
        return np.zeros(shape, dtype)
    if array.ndim == len(shape) + 1 and array.shape[-1] == dtype.itemsize:
        array = np.ascontiguousarray(array, np.uint8).view(dtype.newbyteorder("<"))
    if array.size != int(np.prod(shape)):
        raise ModelError(f"has {array.size} elements, and the shape {shape}")
    return array.reshape(shape).astype(dtype)
