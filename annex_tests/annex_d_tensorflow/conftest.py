from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc_core
from conformance.support.shared import shared
from nnc_adapters.base import DEFAULTS, Options
from nnc_adapters.tensorflow import TensorflowAdapter, manifest
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel

os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", OMP_NUM_THREADS="1", TF_ENABLE_ONEDNN_OPTS="0")

IMAGE = (8, 8, 3)
DTYPES = ("float32", "float16", "float64", "bfloat16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
EXACT_DTYPES = ("uint64", "bool", "complex64", "complex128", "string")


@pytest.fixture
def adapter() -> TensorflowAdapter:
    return TensorflowAdapter()


@pytest.fixture(scope="session")
def tf() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = pytest.importorskip("tensorflow", reason="tensorflow-cpu is not installed")
        found.config.threading.set_intra_op_parallelism_threads(1)
        found.config.threading.set_inter_op_parallelism_threads(1)
        import keras  # noqa: F401
    return found


@pytest.fixture(scope="session")
def network(tf: Any) -> Any:
    """A small image classifier after a step of training, so that its optimizer has something to remember."""
    import keras

    keras.utils.clear_session()  # names are numbered across all tests
    keras.utils.set_random_seed(17)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input(IMAGE),
            layers.Conv2D(16, 3),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    model.compile("adam", keras.losses.MeanSquaredError())
    generator = np.random.default_rng(17)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(generator.random((4, *IMAGE)), generator.random((4, 10)), verbose=0)
    return model


@pytest.fixture(scope="session")
def image() -> Any:
    return np.random.default_rng(3).random((2, *IMAGE), np.float32)


@pytest.fixture(scope="session")
def saved(tf: Any, network: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The network in each of the formats of TensorFlow, made when it is asked for."""
    import keras

    root = tmp_path_factory.mktemp("saved")

    def converted(*options: Any) -> bytes:
        converter = tf.lite.TFLiteConverter.from_keras_model(network)
        converter.optimizations = list(options)
        converter.target_spec.supported_types = [tf.float16] if options else []
        found: bytes = converter.convert()
        return found

    makers: dict[str, Callable[[Path], object]] = {
        "export": lambda path: network.export(path, verbose=False),
        "saved_model": lambda path: tf.saved_model.save(network, path),
        "checkpoint": lambda path: tf.train.Checkpoint(model=network, optimizer=network.optimizer).save(path / "c"),
        "model.keras": network.save,
        "model.h5": network.save,
        "model.weights.h5": network.save_weights,
        "model.tflite": lambda path: path.write_bytes(converted()),
        "half.tflite": lambda path: path.write_bytes(converted(tf.lite.Optimize.DEFAULT)),
        "module": lambda path: tf.saved_model.save(every_dtype(tf), path),
        "recurrent.keras": lambda path: recurrent(keras).save(path),
    }

    def make(name: str) -> Path:
        path = root / name
        if not path.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                makers[name](path)
        return path

    return make


def every_dtype(tf: Any) -> Any:
    """A module with a variable of every data type, and one function."""
    generator = np.random.default_rng(5)

    class Module(tf.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            values = generator.normal(0, 1.5, (16, 16))
            self.w = {
                d: tf.Variable(tf.cast(np.abs(values) if d[0] == "u" else values, d), name=f"w_{d}")
                for d in (*DTYPES, *EXACT_DTYPES)
                if d != "string"
            }
            self.text = tf.Variable(["one", "zwei"], name="text")
            self.empty = tf.Variable(tf.zeros([0, 4]), name="empty", shape=[None, 4])

        @tf.function(input_signature=[tf.TensorSpec([None, 16])])  # type: ignore[untyped-decorator]
        def __call__(self, x: Any) -> Any:
            return x @ self.w["float32"] + tf.cast(self.w["bfloat16"][0], tf.float32)

    return Module()


def recurrent(keras: Any) -> Any:
    """A model with the layers that have several matrices."""
    layers = keras.layers
    inputs = layers.Input((12,), dtype="int32")
    x = layers.Embedding(20, 16)(inputs)
    x = layers.MultiHeadAttention(2, 8)(x, x)
    x = layers.Bidirectional(layers.GRU(8, return_sequences=True))(x)
    x = layers.LayerNormalization()(layers.LSTM(16)(x))
    return keras.Model(inputs, layers.Dense(3)(x))


@pytest.fixture
def round_trip(adapter: TensorflowAdapter, tmp_path: Path) -> Callable[[Path], SourceModel]:
    """Reads a model and writes it with its own tensors; not one byte may differ."""

    def trip(source: Path) -> SourceModel:
        model = adapter.read(source)
        target = tmp_path / "written" / source.name
        target.parent.mkdir(exist_ok=True)
        adapter.write(model.tensors, model.topology, target)
        assert contents(target) == contents(source)
        return model

    return trip


@pytest.fixture
def coded(adapter: TensorflowAdapter, tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """A model after coding, and the values that its bitstream has."""

    def code(source: Path, options: Options = DEFAULTS) -> tuple[Path, dict[str, Any]]:
        model = adapter.read(source, options)
        decoded = nnc_core.decode(
            nnc_core.encode(model.tensors, topology=model.topology, model_info=model.model_info, threads=1)
        )
        target = tmp_path / "coded" / source.name
        target.parent.mkdir(exist_ok=True)
        adapter.write(decoded, model.topology, target)
        return target, decoded

    return code


def contents(path: Path) -> dict[str, bytes | None]:
    """Every file below a path, and the folders (None); of a checkpoint's index also the data files."""
    if path.suffix == ".index":
        return {p.name.removeprefix(path.stem): p.read_bytes() for p in path.parent.glob(path.stem + ".*")}
    if path.is_file():
        return {"": path.read_bytes()}
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else None for p in sorted(path.rglob("*"))}


@pytest.fixture
def exact_parts() -> Callable[[SourceModel], dict[str, bytes]]:
    """What a topology carries of each file, without those whose checksums change with the values."""

    def parts(model: SourceModel) -> dict[str, bytes]:
        assert model.topology is not None
        files = manifest.unpack(model.topology.data, Limits()).files
        return {file.path: file.exact for file in files if not file.path.endswith((".index", "fingerprint.pb"))}

    return parts


@pytest.fixture
def shared_models() -> Path:
    return shared("models/kws_saved_model").parent


@pytest.fixture
def copy_of(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """A copy that may be changed."""

    def copy(source: Path) -> Path:
        target = tmp_path / "copy" / source.name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            return Path(shutil.copytree(source, target))
        return Path(shutil.copy(source, target))

    return copy  # type: ignore[return-value]
