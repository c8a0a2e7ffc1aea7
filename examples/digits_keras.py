"""The digits network in Keras, with the weights of ``digits.onnx``.

    python examples/digits_keras.py digits.keras

Images are (n, 8, 8, 1) here: the channels come last, and the weights are turned accordingly.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras

SOURCE = Path(__file__).with_name("digits.onnx")
_STATISTICS = ("weight", "bias", "running_mean", "running_var")


def network() -> keras.Model:
    """The network with its weights."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, padding="same", name="conv1"),
            keras.layers.BatchNormalization(epsilon=1e-5, name="bn1"),
            keras.layers.ReLU(),
            keras.layers.Conv2D(32, 3, padding="same", name="conv2"),
            keras.layers.BatchNormalization(epsilon=1e-5, name="bn2"),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu", name="hidden"),
            keras.layers.Dense(10, name="out"),
        ],
        name="digits",
    )
    for name, arrays in weights().items():
        model.get_layer(name).set_weights(arrays)
    return model


def weights() -> dict[str, list[NDArray[np.float32]]]:
    """The weights of each layer, in the axis orders of Keras."""
    tensors = onnx.load(SOURCE).graph.initializer
    given = {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}
    # its inputs are the 32 channels of 4 by 4 values; in Keras the channels vary fastest
    hidden = given["hidden.weight"].reshape(64, 32, 4, 4).transpose(0, 2, 3, 1).reshape(64, -1)
    kernels = {name: given[f"{name}.weight"].transpose(2, 3, 1, 0) for name in ("conv1", "conv2")}
    kernels |= {"hidden": hidden.T, "out": given["out.weight"].T}
    found = {name: [kernel, given[f"{name}.bias"]] for name, kernel in kernels.items()}
    return found | {name: [given[f"{name}.{part}"] for part in _STATISTICS] for name in ("bn1", "bn2")}


if __name__ == "__main__":
    network().save(sys.argv[1])
