"""Calibration of Keras models: Keras runs them, and their layers show their inputs."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.shared.calibration import Convolution, Recorder, measured, probing, same_pads
from nnc_adapters.shared.inputs import Expected, batches
from nnc_core.errors import MissingDependencyError, ModelError
from nnc_core.nnr_model import SourceModel

__all__ = ["calibrated"]

Array = NDArray[Any]
Record = Callable[[Array], None]


def calibrated(model: SourceModel, path: Path, inputs: Mapping[str, Array]) -> SourceModel:
    """The model in a ``.keras`` or ``.h5`` file with what was measured of it on ``inputs``, called by its inputs."""
    keras = _keras()
    network = _loaded(keras, path)
    weights = dict(_weights(model, network))
    feeds = list(batches(list(_expected(network)), inputs))
    recorder = Recorder()
    with ExitStack() as watching:
        for layer in network._flatten_layers():
            name = next((name for name, weight in weights.items() if weight is getattr(layer, "kernel", None)), None)
            if name is not None and (record := _recording(keras, layer, name, recorder)) is not None:
                watching.callback(_watch(keras, layer, record))
        for _ in _outputs(keras, network, feeds):
            pass

    def run(name: str | None, values: Array | None) -> Iterator[Array]:
        if name is None or values is None:
            yield from _outputs(keras, network, probing(feeds))
            return
        original = keras.ops.convert_to_numpy(weights[name])
        weights[name].assign(values)
        try:
            yield from _outputs(keras, network, probing(feeds))
        finally:
            weights[name].assign(original)

    return measured(model, recorder.layers, weights, run)


def _keras() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        return importlib.import_module("keras")
    except ModuleNotFoundError as error:
        raise MissingDependencyError(error.name or "keras", feature="calibration") from error


def _loaded(keras: Any, path: Path) -> Any:
    try:
        network = keras.saving.load_model(path, compile=False)
        list(_expected(network))
    except Exception as error:  # of many types: classes that are not known, weights alone
        raise ModelError(f"Keras cannot load the model to calibrate it: {_first_line(error)}") from error
    return network


def _expected(network: Any) -> Iterator[Expected]:
    for each in network.inputs:
        yield Expected(each.name, tuple(each.shape), np.dtype(each.dtype))


def _weights(model: SourceModel, network: Any) -> Iterator[tuple[str, Any]]:
    """The variables of the network by the names of the tensors that have their values."""
    variables = {each.path: each for each in network.weights if len(each.shape) > 1}
    for name in model.tensors:
        array = np.asarray(model.tensors[name])
        alike = (path for path, each in variables.items() if tuple(each.shape) == array.shape)
        path = next((path for path in alike if np.array_equal(np.asarray(variables[path]), array)), None)
        if path is not None:
            yield name, variables.pop(path)


# --- layers ----------------------------------------------------------------------------------------------------------


def _recording(keras: Any, layer: Any, name: str, recorder: Recorder) -> Record | None:
    layers = keras.layers
    if isinstance(layer, layers.Dense):
        return lambda inputs: recorder.product(name, inputs, input_first=True)
    if isinstance(layer, (layers.Conv1D, layers.Conv2D, layers.Conv3D)) and layer.groups == 1:
        return lambda inputs: recorder.convolution(name, *_convolved(layer, inputs), input_first=True)
    if isinstance(layer, layers.EinsumDense) and (axes := _summed(layer.equation)):
        return lambda inputs: recorder.product(
            name, inputs.reshape(-1, int(np.prod(inputs.shape[-axes:]))), input_first=True
        )
    return None


def _summed(equation: str) -> int:
    """How many of the last axes of its input a product sums over, if these are the first of the kernel; 0 if not."""
    operands, _, output = equation.replace("...", "").partition("->")
    inputs, kernel = operands.split(",")
    summed = "".join(axis for axis in kernel if axis in inputs and axis not in output)
    return len(summed) if kernel.startswith(summed) and inputs.endswith(summed) else 0


def _convolved(layer: Any, inputs: Array) -> tuple[Array, Convolution]:
    """The inputs with the channels before the spatial dimensions, and how the layer takes patches of them."""
    if layer.data_format == "channels_last":
        inputs = np.moveaxis(inputs, -1, 1)
    kernel, strides, dilations = layer.kernel_size, layer.strides, layer.dilation_rate
    pads = ((0, 0),) * len(kernel)
    if layer.padding == "same":
        pads = same_pads(inputs.shape[2:], kernel, strides, dilations)
    elif layer.padding == "causal":
        pads = (((kernel[0] - 1) * dilations[0], 0),)
    return inputs, Convolution(kernel, strides, dilations, pads)


def _watch(keras: Any, layer: Any, record: Record) -> Callable[[], None]:
    """Let a layer show its inputs when it is called; what is returned ends that."""
    call = layer.call

    def watched(inputs: Any, *arguments: Any, **others: Any) -> Any:
        record(keras.ops.convert_to_numpy(keras.ops.cast(inputs, "float32")))
        return call(inputs, *arguments, **others)

    layer.call = watched
    return lambda: delattr(layer, "call")


def _outputs(keras: Any, network: Any, feeds: Sequence[dict[str, Array]]) -> Iterator[Array]:
    """The network's floating-point outputs, one after the other."""
    for feed in feeds:
        arrays = list(feed.values())
        try:
            found = network(arrays if len(arrays) > 1 else arrays[0], training=False)
        except ModelError:
            raise
        except Exception as error:  # of many types
            raise ModelError(f"Keras cannot run the model on the calibration inputs: {_first_line(error)}") from error
        outputs = [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(found)]
        floats = [each.astype(np.float64).reshape(-1) for each in outputs if each.dtype.kind == "f"]
        yield np.concatenate(floats or [np.zeros(0)])


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
