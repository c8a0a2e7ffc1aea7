"""Running models, in whatever framework they are for, where this is installed."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.convert.naming import plain
from nnc_core.errors import MissingDependencyError, ModelError

__all__ = ["CannotRun", "Input", "Runner", "load_module", "module_from", "runner"]

Array = NDArray[Any]


class CannotRun(Exception):  # noqa: N818  (a reason, not a failure)
    """Why a model cannot be run here."""


@dataclass(frozen=True)
class Input:
    """An input as a model declares it; None stands for any size."""

    shape: tuple[int | None, ...]
    integers: bool = False


@dataclass(frozen=True)
class Runner:
    """A loaded model: its outputs from its inputs, and what it declares of these, if it does."""

    run: Callable[[Sequence[Array]], list[Array]]
    inputs: tuple[Input, ...] | None


def runner(path: Path, family: str, kind: str, module: Any = None) -> Runner:
    """Load the model at ``path``; `CannotRun` where something for it is missing."""
    with _quietly():
        if family == "onnx":
            return _onnx(path)
        if family == "tensorflow" and kind in ("keras", "hdf5"):
            return _keras(path)
        if family == "tensorflow" and kind == "saved_model":
            return _saved_model(path)
        if family in ("tensorflow", "tflite") and kind == "tflite":
            return _tflite(path)
        if family == "pytorch":
            return _pytorch(path, module)
    raise CannotRun(f"there is no way to run a model of {family}")


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    for key, value in (("CUDA_VISIBLE_DEVICES", "-1"), ("TF_CPP_MIN_LOG_LEVEL", "3")):
        os.environ.setdefault(key, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _needed(name: str, what: str) -> Any:
    if importlib.util.find_spec(name) is None:
        raise CannotRun(f"{what} is not installed")
    return importlib.import_module(name)


def _onnx(path: Path) -> Runner:
    onnxruntime = _needed("onnxruntime", "onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of many types
        raise CannotRun(f"onnxruntime does not load it: {_first_line(error)}") from error
    given = session.get_inputs()

    def run(arrays: Sequence[Array]) -> list[Array]:
        feeds = {i.name: a.astype(_ONNX_TYPES.get(i.type, a.dtype)) for i, a in zip(given, arrays, strict=True)}
        return [np.asarray(array) for array in session.run(None, feeds)]

    inputs = (Input(tuple(d if isinstance(d, int) else None for d in i.shape), "int" in i.type) for i in given)
    return Runner(run, tuple(inputs))


_ONNX_TYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
}


def _keras(path: Path) -> Runner:
    _needed("keras", "Keras")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    try:
        keras = importlib.import_module("keras")
        model = keras.models.load_model(path, compile=False)
        inputs = tuple(Input(tuple(t.shape), "int" in str(t.dtype)) for t in model.inputs)
    except Exception as error:  # of many types: classes that are not known, weights alone
        raise CannotRun(f"Keras does not load it: {_first_line(error)}") from error

    def run(arrays: Sequence[Array]) -> list[Array]:
        with _quietly():
            return _arrays(model(list(arrays) if len(arrays) > 1 else arrays[0], training=False))

    return Runner(run, inputs)


def _saved_model(path: Path) -> Runner:
    tensorflow = _needed("tensorflow", "TensorFlow")
    try:
        loaded = tensorflow.saved_model.load(str(path))
        function = loaded.signatures["serving_default"]
    except Exception as error:  # of many types
        raise CannotRun(f"TensorFlow does not load it: {_first_line(error)}") from error
    specs = function.structured_input_signature[1]

    def run(arrays: Sequence[Array]) -> list[Array]:
        del_ = loaded  # it owns the variables
        given = zip(specs.items(), arrays, strict=True)
        found = function(**{name: tensorflow.constant(a, spec.dtype) for (name, spec), a in given})
        assert del_ is loaded
        return [found[key].numpy() for key in sorted(found)]

    inputs = (Input(tuple(spec.shape), spec.dtype.is_integer) for spec in specs.values())
    return Runner(run, tuple(inputs))


def _tflite(path: Path) -> Runner:
    tensorflow = _needed("tensorflow", "TensorFlow")
    try:
        interpreter = tensorflow.lite.Interpreter(model_path=str(path))
        given, made = interpreter.get_input_details(), interpreter.get_output_details()
    except Exception as error:  # of many types
        raise CannotRun(f"TensorFlow Lite does not load it: {_first_line(error)}") from error

    def run(arrays: Sequence[Array]) -> list[Array]:
        for detail, array in zip(given, arrays, strict=True):
            interpreter.resize_tensor_input(detail["index"], array.shape)
        interpreter.allocate_tensors()
        for detail, array in zip(given, arrays, strict=True):
            interpreter.set_tensor(detail["index"], array.astype(detail["dtype"]))
        interpreter.invoke()
        return [np.array(interpreter.get_tensor(detail["index"])) for detail in made]

    return Runner(run, tuple(Input(tuple(d["shape_signature"]), "int" in str(d["dtype"])) for d in given))


def _pytorch(path: Path, module: Any) -> Runner:
    torch = _needed("torch", "PyTorch")
    if module is None:
        module = _self_contained(torch, path)

    def run(arrays: Sequence[Array]) -> list[Array]:
        with torch.no_grad(), _quietly():
            return _arrays(module(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)))

    return Runner(run, None)


def _self_contained(torch: Any, path: Path) -> Any:
    """TorchScript and exported programs have their code with them; a state dict needs its module."""
    try:
        if path.suffix == ".pt2":
            return torch.export.load(path).module()
        return torch.jit.load(path).eval()
    except Exception as error:
        raise CannotRun("a state dict has no network in it: --module FILE.py:NAME names the module") from error


def _arrays(value: Any) -> list[Array]:
    if isinstance(value, Mapping):
        return [array for item in value.values() for array in _arrays(item)]
    if isinstance(value, list | tuple):
        return [array for item in value for array in _arrays(item)]
    if value is None:
        return []
    return [np.asarray(value.numpy() if hasattr(value, "numpy") else value)]


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def module_from(text: str) -> Any:
    """What ``FILE.py:NAME`` or ``package.module:NAME`` makes; a file without a name is run for what it registers.

    The code is run: it must be trusted. `ModelError` where there is no such thing.
    """
    place, colon, name = text.rpartition(":") if not text.endswith(".py") else (text, "", "")
    try:
        found = _imported(place)
        made = getattr(found, name) if colon else None
        return made() if (callable(made) and not hasattr(made, "state_dict")) or isinstance(made, type) else made
    except Exception as error:
        raise ModelError(f"cannot make the module {text}: {type(error).__name__}: {_first_line(error)}") from error


def _imported(place: str) -> Any:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    spec = importlib.util.spec_from_file_location(f"nnc_module_{abs(hash(place))}", place)
    if spec is None or spec.loader is None or not Path(place).is_file():
        raise FileNotFoundError(place)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def load_module(module: Any, tensors: Mapping[str, Array]) -> Any:
    """A copy of ``module`` with the weights of a file; `ModelError` where these are not its own."""
    import copy

    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch", "pytorch", "a module of PyTorch") from error
    found = copy.deepcopy(module).eval().float()
    state, given = found.state_dict(), {plain(name): name for name in tensors}
    for name, tensor in state.items():
        source = name if name in tensors else given.get(plain(name))
        if source is None:
            if tensor.is_floating_point():
                raise ModelError("the module has this tensor, the file does not", tensor=name)
            continue
        array = np.asarray(tensors[source]).astype(np.float32 if tensor.is_floating_point() else None)
        if tuple(tensor.shape) != array.shape:
            raise ModelError(f"the module has {list(tensor.shape)}, the file {list(array.shape)}", tensor=name)
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(array)))
    return found
