"""What callers give in place of numpy arrays, models and open files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.calibrated import Covariance, LayerInputs
from nnc_core.errors import ModelError
from nnc_core.nnr_model import ModelInfo, SourceModel, Topology
from nnc_core.stored import replacing

__all__ = ["as_array", "as_model", "opened_for_writing"]


def as_array(name: str, value: Any) -> NDArray[Any]:
    """Numbers in whatever form as an array; a tensor of PyTorch is detached, and fetched from its device.

    Truth values become int8 (0 and 1), bfloat16 of PyTorch float32 with the same values. `ModelError` for what has no
    array.
    """
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        array = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"cannot be converted to an array: {error}", tensor=name) from error
    return array.astype(np.int8) if array.dtype == bool else array


def as_model(
    tensors: SourceModel | Mapping[str, Any],
    topology: Topology | None = None,
    model_info: ModelInfo | None = None,
    calibrate: Mapping[str, Any] | None = None,
) -> SourceModel:
    """A model of named numbers, or the model itself; what it is calibrated with may be mere arrays of inputs."""
    if isinstance(tensors, SourceModel):
        return tensors
    if not hasattr(tensors, "items"):
        raise ModelError(f"tensors must be a dictionary by name, not of type {type(tensors).__name__}")
    arrays = {name: as_array(name, value) for name, value in tensors.items()}
    inputs = {name: _as_inputs(name, value) for name, value in (calibrate or {}).items()}
    for name in inputs:
        if name not in arrays:
            raise ModelError("is calibrated, but is not among the tensors", tensor=name)
    return SourceModel(arrays, topology, model_info or ModelInfo(), inputs=inputs)


def _as_inputs(name: str, value: Any) -> LayerInputs:
    if isinstance(value, LayerInputs):
        return value
    try:
        inputs = as_array(name, value)
        covariance = Covariance(inputs.shape[-1] if inputs.ndim else 0)
        covariance.add(inputs)
    except ValueError as error:
        raise ModelError(f"cannot be calibrated: {error}", tensor=name) from None
    return LayerInputs((covariance,))


@contextmanager
def opened_for_writing(target: BinaryIO | str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """``target`` itself, or a file beside the path, which takes its place when the block ends well."""
    if not isinstance(target, (str, os.PathLike)):
        yield target
        return
    with replacing(target) as stream:
        yield stream
