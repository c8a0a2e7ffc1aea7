"""The same two networks in every framework, with other weights in each: one that sees, one that reads.

``networks`` has a `Network` for each of them and each format that is installed; only weights differ between formats.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

Array = NDArray[Any]

IMAGE = (1, 8, 8)
CHANNELS, CLASSES = 8, 10
STEPS, FEATURES, STATE = 7, 5, 6


@dataclass(frozen=True)
class Network:
    """A model file, how to compute with such a file, and a suffix for others."""

    file: Path
    run: Callable[[Path], Array]
    suffix: str


@pytest.fixture(scope="session")
def image() -> Array:
    """Two images, channels first."""
    return np.random.default_rng(5).standard_normal((2, *IMAGE)).astype(np.float32)


@pytest.fixture(scope="session")
def sequence() -> Array:
    """Two sequences."""
    return np.random.default_rng(6).standard_normal((2, STEPS, FEATURES)).astype(np.float32)


@pytest.fixture(scope="session")
def torch() -> Any:
    module = pytest.importorskip("torch", reason="PyTorch is not installed")
    module.set_num_threads(1)
    return module


@pytest.fixture(scope="session")
def keras() -> Any:
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensorflow = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
        return pytest.importorskip("keras", reason="Keras is not installed")


@pytest.fixture(scope="session")
def torch_modules(torch: Any) -> dict[str, Any]:
    """The networks as modules."""

    class Reader(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(FEATURES, STATE, batch_first=True)
            self.head = torch.nn.Linear(STATE, 3)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x)[0][:, -1])

    torch.manual_seed(1)
    nn = torch.nn
    seer = nn.Sequential()
    for name, layer in (
        ("conv", nn.Conv2d(1, CHANNELS, 3, padding=1)),
        ("norm", nn.BatchNorm2d(CHANNELS)),
        ("relu", nn.ReLU()),
        ("pool", nn.MaxPool2d(2)),
        ("flat", nn.Flatten()),
        ("head", nn.Linear(16 * CHANNELS, CLASSES)),
    ):
        seer.add_module(name, layer)
    for tensor in seer.norm.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return {"seer": seer.eval(), "reader": Reader().eval()}


@pytest.fixture(scope="session")
def keras_models(keras: Any) -> dict[str, Any]:
    """The networks as Keras models."""
    keras.utils.set_random_seed(2)
    layers = keras.layers
    seer = keras.Sequential(
        [
            layers.Input((*IMAGE[1:], IMAGE[0])),
            layers.Conv2D(CHANNELS, 3, padding="same"),
            layers.BatchNormalization(epsilon=1e-5),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(CLASSES),
        ]
    )
    reader = keras.Sequential([layers.Input((STEPS, FEATURES)), layers.LSTM(STATE), layers.Dense(3)])
    return {"seer": seer, "reader": reader}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("frameworks")


@pytest.fixture(scope="session")
def inputs(image: Array, sequence: Array) -> dict[str, Array]:
    """What each network takes, channels first."""
    return {"seer": image, "reader": sequence}


@pytest.fixture(scope="session")
def pytorch_file(torch: Any, torch_modules: dict[str, Any], inputs: dict[str, Array], folder: Path) -> Any:
    def make(kind: str) -> Network:
        file = folder / f"{kind}.pt"
        torch.save(torch_modules[kind].state_dict(), file)

        def run(path: Path) -> Array:
            module = torch_modules[kind]
            before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
            module.load_state_dict(torch.load(path, weights_only=True))
            with torch.no_grad():
                result: Array = module(torch.from_numpy(inputs[kind])).numpy()
            module.load_state_dict(before)
            return result

        return Network(file, run, ".pt")

    return make


@pytest.fixture(scope="session")
def keras_file(keras: Any, keras_models: dict[str, Any], inputs: dict[str, Array], folder: Path) -> Any:
    def make(kind: str) -> Network:
        file = folder / f"{kind}.keras"
        keras_models[kind].save(file)

        def run(path: Path) -> Array:
            result: Array = keras.models.load_model(path)(_channels_last(inputs[kind])).numpy()
            return result

        return Network(file, run, ".keras")

    return make


@pytest.fixture(scope="session")
def savedmodel_file(keras: Any, keras_models: dict[str, Any], inputs: dict[str, Array], folder: Path) -> Any:
    import tensorflow

    def make(kind: str) -> Network:
        file = folder / f"{kind}_savedmodel"
        model = keras.models.clone_model(keras_models[kind])  # with new weights
        model.export(file, verbose=False)

        def run(path: Path) -> Array:
            loaded = tensorflow.saved_model.load(str(path))  # kept: it holds the variables
            result: Array = loaded.serve(_channels_last(inputs[kind])).numpy()
            return result

        return Network(file, run, "")

    return make


@pytest.fixture(scope="session")
def onnx_file(torch: Any, torch_modules: dict[str, Any], inputs: dict[str, Array], folder: Path) -> Any:
    pytest.importorskip("onnx", reason="onnx is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

    def make(kind: str) -> Network:
        file = folder / f"{kind}.onnx"
        _export(torch, torch_modules[kind], inputs[kind], file, 9, folded=kind == "reader")

        def run(path: Path) -> Array:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            result: Array = session.run(None, {"x": inputs[kind]})[0]
            return result

        return Network(file, run, ".onnx")

    return make


@pytest.fixture(scope="session")
def nnef_file(torch: Any, torch_modules: dict[str, Any], inputs: dict[str, Array], folder: Path) -> Any:
    pytest.importorskip("nnef_tools", reason="nnef_tools is not installed")

    def make(kind: str) -> Network:
        if kind == "reader":
            pytest.skip("nnef_tools cannot convert an LSTM from ONNX")
        file = folder / f"{kind}.nnef"
        _export(torch, torch_modules[kind], inputs[kind], folder / "for_nnef.onnx", 10, folded=False)
        _to_nnef(folder / "for_nnef.onnx", file)
        return Network(file, lambda path: _run_nnef(path, inputs[kind]), ".nnef")

    return make


def _channels_last(array: Array) -> Array:
    return np.moveaxis(array, 1, -1) if array.ndim == 4 else array


def _export(torch: Any, module: Any, example: Array, path: Path, seed: int, *, folded: bool) -> None:
    """Export what ``module`` is with other weights; batch normalization is kept where nothing is ``folded``."""
    generator = torch.Generator().manual_seed(seed)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1, generator=generator)
    training = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    options = {"dynamo": False, "opset_version": 17, "do_constant_folding": folded, "training": training}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, torch.from_numpy(example), str(path), input_names=["x"], **options)
    module.load_state_dict(before)


def _to_nnef(source: Path, target: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nnef_tools.conversion.onnx_to_nnef import Converter
        from nnef_tools.io.nnef import Writer
        from nnef_tools.io.onnx import Reader

        Writer()(Converter()(Reader()(str(source))), str(target))


def _run_nnef(path: Path, example: Array) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nnef_tools.interpreter.pytorch import Interpreter

        (result,) = Interpreter(str(path))([example]).values()
    return np.asarray(result)
