"""Keras networks as NNR beside TensorFlow Lite's dynamic int8 quantization: sizes, and what the outputs lose.

    python examples/beside_tflite.py [MODEL.keras ...]

Each network is converted to TFLite twice, in float32 and with dynamic int8 weights. The first is compressed to NNR and
restored, at the default settings and with one step for all weights that loses as much as int8 does; the second is
zipped. All of them are run by the interpreter of TensorFlow Lite. Errors are those of the outputs, relative to what
float32 gives, in decibels.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from digits_data import split
from digits_keras import keras, network
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_breast_cancer

import nnc_adapters
from nnc_core import CodingParameters

Array = NDArray[np.float32]


def networks(files: list[str]) -> Iterator[tuple[str, Any, Array]]:
    """The digits network, a small one of dense layers and those in ``files``, with inputs: what they know, or noise."""
    yield "digits", network(), split()[1].images.transpose(0, 2, 3, 1)
    yield "dense", *dense()
    for file in files:
        model = keras.saving.load_model(file, compile=False)
        shape = (64, *model.input_shape[1:])
        yield Path(file).stem, model, np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


def dense() -> tuple[Any, Array]:
    """A network that was trained to tell diagnoses from measurements of cells, and these."""
    keras.utils.set_random_seed(1)
    measured, labels = load_breast_cancer(return_X_y=True)
    inputs = ((measured - measured.mean(0)) / measured.std(0)).astype(np.float32)
    layers = [keras.layers.Dense(size, activation="relu") for size in (128, 128, 64)]
    model = keras.Sequential([keras.Input((30,)), *layers, keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(inputs, labels, epochs=15, verbose=0)
    return model, inputs


def as_tflite(model: Any, *, int8: bool) -> bytes:
    import tensorflow

    converter = tensorflow.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tensorflow.lite.Optimize.DEFAULT] if int8 else []
    with contextlib.redirect_stdout(io.StringIO()):  # it tells what it exports
        return converter.convert()


def outputs(tflite: bytes, inputs: Array) -> Array:
    import tensorflow

    interpreter = tensorflow.lite.Interpreter(model_content=tflite, num_threads=1)
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    interpreter.resize_tensor_input(given["index"], inputs.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(given["index"], inputs)
    interpreter.invoke()
    return interpreter.get_tensor(made["index"])


def zipped(data: bytes) -> int:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("model.tflite", data)
    return len(stream.getvalue())


class Comparison:
    """One network, and what its outputs are."""

    def __init__(self, model: Any, inputs: Array, folder: Path) -> None:
        self.inputs, self.folder = inputs, folder
        self.float32, self.int8 = (as_tflite(model, int8=int8) for int8 in (False, True))
        self.expected = outputs(self.float32, inputs)
        (folder / "float.tflite").write_bytes(self.float32)

    def error(self, tflite: bytes) -> float:
        """Of the outputs, in decibels."""
        difference = outputs(tflite, self.inputs) - self.expected
        return 10 * np.log10(np.square(difference).sum() / np.square(self.expected).sum())

    def ours(self, qp: int | None = None) -> tuple[int, float]:
        """Bytes and error of NNR, at the default settings or with this step for the weights."""
        parameters = None if qp is None else CodingParameters(qp=qp, nonweight_qp=-300, qp_density=4)
        bitstream, restored = self.folder / "m.nnr", self.folder / "restored.tflite"
        report = nnc_adapters.compress(self.folder / "float.tflite", bitstream, parameters=parameters, force=True)
        nnc_adapters.decompress(bitstream, restored, force=True)
        return report.bytes_after, self.error(restored.read_bytes())

    def at(self, error: float) -> tuple[int, float]:
        """Bytes and error of NNR that loses about as much, and not more."""
        coarse, fine = 0, -250
        while coarse - fine > 1:
            middle = (coarse + fine) // 2
            coarse, fine = (coarse, middle) if self.ours(middle)[1] <= error else (middle, fine)
        return self.ours(fine)


def row(name: str, model: Any, inputs: Array) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        found = Comparison(model, inputs, Path(folder))
        size, error = zipped(found.int8), found.error(found.int8)
        ours, our_error = found.ours()
        same, same_error = found.at(error)
    numbers = (zipped(found.float32), size, error, ours, our_error, same, same_error)
    texts = [str(n) if isinstance(n, int) else f"{n:.1f}" for n in numbers]
    return [name, *texts, f"{100 * (same / size - 1):+.0f} %"]


def main() -> None:
    table = Table(title="bytes, and errors of outputs in dB")
    columns = (
        "network",
        "float32, zipped",
        "int8, zipped",
        "error",
        "NNR",
        "error",
        "NNR at int8's error",
        "error",
        "size",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "network" else "right")
    for name, model, inputs in networks(sys.argv[1:]):
        table.add_row(*row(name, model, inputs))
    Console().print(table)


if __name__ == "__main__":
    main()
