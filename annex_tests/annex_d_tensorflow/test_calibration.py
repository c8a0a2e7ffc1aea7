"""Keras models compressed for their outputs on calibration inputs: smaller errors, every kind of layer, errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnc_adapters
from nnc_adapters.shared.calibration import patches
from nnc_adapters.tensorflow import TensorflowAdapter, calibration
from nnc_core import CodingParameters, MissingDependencyError, ModelError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def keras(tf: Any) -> Any:
    import keras

    return keras


def images(seed: int, count: int = 48) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    smooth = np.kron(rng.normal(size=(count, 4, 4, 3)), np.ones((1, 2, 2, 1)))
    return (smooth + 0.05 * rng.normal(size=smooth.shape)).astype(np.float32)


@pytest.fixture(params=[".keras", ".h5"])
def model_file(keras: Any, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    keras.utils.set_random_seed(5)
    image = keras.Input((8, 8, 3), name="image")
    inner = keras.Sequential([keras.Input((8, 8, 16)), keras.layers.Conv2D(16, 3, strides=2)])
    hidden = inner(keras.layers.Conv2D(16, 3, padding="same", activation="relu")(image))
    rows = keras.layers.Reshape((9, 16))(hidden)
    mixed = keras.layers.MultiHeadAttention(2, 8)(rows, rows)
    answer = keras.layers.Dense(10)(keras.layers.Flatten()(mixed))
    path = tmp_path / f"net{request.param}"
    keras.Model(image, answer).save(path)
    return path


def test_a_calibrated_model_of_the_same_size_errs_much_less(keras: Any, model_file: Path, tmp_path: Path) -> None:
    p = CodingParameters(bits_per_weight=4)
    found, expected = [], keras.saving.load_model(model_file, compile=False).predict(images(2), verbose=0)
    for name, inputs in (("plain", None), ("calibrated", {"image": images(1)})):
        report = nnc_adapters.compress(model_file, tmp_path / f"{name}.nnr", parameters=p, calibrate=inputs)
        restored = nnc_adapters.decompress(tmp_path / f"{name}.nnr", tmp_path / f"{name}{model_file.suffix}").target
        outputs = keras.saving.load_model(restored, compile=False).predict(images(2), verbose=0)
        found.append((report.bytes_after, float(np.square(outputs - expected).sum())))
    (size, error), (size_calibrated, error_calibrated) = found
    assert size_calibrated <= 1.01 * size
    assert error_calibrated < 0.6 * error


def test_every_weight_of_dense_convolutional_and_attention_layers_is_calibrated(model_file: Path) -> None:
    adapter = TensorflowAdapter()
    model = adapter.calibrated(adapter.read(model_file), model_file, {"image": images(1, 8)})
    weights = {name for name in model.tensors if np.ndim(model.tensors[name]) > 1 and "bias" not in name}
    assert {name for name in weights if np.size(model.tensors[name]) > 100} == model.inputs.keys()
    assert len(model.inputs) == 7
    assert all(known.input_first for known in model.inputs.values())
    assert model.sensitivities.keys() >= {
        n for n, kind in model.model_info["parameter_type"].items() if kind[-1] == "w"
    }


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": (3, 2)},
        {"kernel_size": (3, 2), "strides": (2, 3), "padding": "same"},
        {"kernel_size": 3, "dilation_rate": (1, 2), "padding": "same"},
        {"kernel_size": 3, "padding": "causal", "dilation_rate": 2},
    ],
)
def test_patches_times_kernels_make_the_outputs_of_a_convolution(keras: Any, options: dict[str, Any]) -> None:
    is_causal = options.get("padding") == "causal"
    layer = (keras.layers.Conv1D if is_causal else keras.layers.Conv2D)(6, use_bias=False, **options)
    x = np.random.default_rng(4).normal(size=(2, 9, 4) if is_causal else (2, 9, 8, 4)).astype(np.float32)
    expected = layer(x).numpy()
    (found,) = patches(*calibration._convolved(layer, x), channels_last=True)
    outputs = found @ layer.kernel.numpy().reshape(-1, 6)
    np.testing.assert_allclose(outputs, expected.reshape(-1, 6), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("equation", "axes"),
    [("abc,cde->abde", 1), ("abcd,cde->abe", 2), ("...x,xy->...y", 1), ("ab,bc->abc", 0), ("abc,acd->abd", 0)],
)
def test_the_axes_that_a_product_sums_over_are_found(equation: str, axes: int) -> None:
    assert calibration._summed(equation) == axes


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "the calibration inputs lack 'image'; the model takes image"),
        ({"image": images(1, 4), "mask": images(1, 4)}, "the calibration inputs have 'mask'"),
        ({"image": images(1, 4)[..., 1:]}, r"has shape \(4, 8, 8, 2\), and the model takes \(any, 8, 8, 3\)"),
        ({"image": np.full((4, 8, 8, 3), np.nan, np.float32)}, "'image' has values that are not finite"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: dict[str, Any], message: str, model_file: Path) -> None:
    with pytest.raises(ModelError, match=message):
        nnc_adapters.compress(model_file, calibrate=inputs)


def test_files_that_keras_cannot_run_say_so(saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match="these files of tensorflow cannot be run"):
        nnc_adapters.compress(saved("model.tflite"), calibrate={"image": images(1, 4)})
    with pytest.raises(ModelError, match="Keras cannot load the model to calibrate it"):
        nnc_adapters.compress(saved("model.weights.h5"), calibrate={"image": images(1, 4)})
    monkeypatch.setitem(__import__("sys").modules, "keras", None)
    with pytest.raises(MissingDependencyError, match=r"calibration needs the package 'keras'.*pip install keras"):
        nnc_adapters.compress(saved("model.keras"), calibrate={"image": images(1, 4)})
