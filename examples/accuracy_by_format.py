"""The digits network in four formats, smaller and smaller, plain and calibrated: how well does it still read?

    python examples/accuracy_by_format.py [--quick]

The weights are those of ``digits.onnx`` in each. Every model is compressed, restored, and run by the framework of its
format, on images that it was not trained with. To calibrate, 256 training images without their labels are enough:
onnxruntime, PyTorch and Keras run the model on them. Nothing runs NNEF here; its tensors have the names that they have
in the ONNX model, so that what was measured of this serves both. A framework that is not installed is left out.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from digits_data import Digits, split
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import nnc_adapters
from nnc_core import CodingParameters, SourceModel

ONNX = Path(__file__).with_name("digits.onnx")
IMAGES = 256
SETTINGS = {f"level {level}": CodingParameters(level=level) for level in (1, 5, 9)}
SETTINGS |= {f"{bits} bits": CodingParameters(bits_per_weight=bits) for bits in (4, 3, 2)}
QUICK = ("level 5", "2 bits")

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Format:
    """One way to store the network.

    ``save`` makes a file or folder, ``logits`` runs it: (n, 10) for images (n, 1, 8, 8). ``compress`` makes a bitstream
    of it, with images to calibrate with or none.
    """

    name: str
    file: str
    save: Callable[[Path, Images], object]
    logits: Callable[[Path, Images], NDArray[np.float32]]
    compress: Callable[[Path, Path, CodingParameters, Images | None], object]


# --- ONNX -----------------------------------------------------------------------------------------------------------


def save_onnx(path: Path, images: Images) -> None:
    path.write_bytes(ONNX.read_bytes())


def run_onnx(path: Path, images: Images) -> NDArray[np.float32]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"image": images})
    return result


def compress_onnx(model: Path, bitstream: Path, parameters: CodingParameters, images: Images | None) -> object:
    inputs = None if images is None else {"image": images}
    return nnc_adapters.compress(model, bitstream, parameters=parameters, calibrate=inputs)


# --- NNEF -----------------------------------------------------------------------------------------------------------


def save_nnef(path: Path, images: Images) -> None:
    import digits_nnef

    digits_nnef.write(path, len(images))


def run_nnef(path: Path, images: Images) -> NDArray[np.float32]:
    from nnef_tools.interpreter.pytorch import Interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it speaks of an older PyTorch
        return Interpreter(str(path))([images])["logits"]


def compress_nnef(model: Path, bitstream: Path, parameters: CodingParameters, images: Images | None) -> object:
    def calibrated(source: SourceModel) -> SourceModel:
        from nnc_adapters.onnx import OnnxAdapter

        adapter = OnnxAdapter()
        measured = adapter.calibrated(adapter.read(ONNX), ONNX, {"image": images})
        return replace(source, inputs=measured.inputs, sensitivities=measured.sensitivities)

    return nnc_adapters.compress(
        model, bitstream, parameters=parameters, calibrate=None if images is None else calibrated
    )


# --- PyTorch --------------------------------------------------------------------------------------------------------


def pytorch_network():
    """The network with the weights of ``digits.onnx``, as a module of PyTorch."""
    import onnx
    import torch
    from train_digits import DigitsNet

    net = DigitsNet()
    state = net.state_dict()  # with the counters of the batch normalizations, which ONNX does not have
    for tensor in onnx.load(ONNX).graph.initializer:
        state[tensor.name] = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
    net.load_state_dict(state)
    return net.eval()


def save_pytorch(path: Path, images: Images) -> None:
    import torch

    torch.save(pytorch_network().state_dict(), path)


def load_pytorch(path: Path):
    import torch
    from train_digits import DigitsNet

    net = DigitsNet()
    net.load_state_dict(torch.load(path, weights_only=True))
    return net.eval()


def run_pytorch(path: Path, images: Images) -> NDArray[np.float32]:
    import torch

    with torch.no_grad():
        return load_pytorch(path)(torch.from_numpy(images)).numpy()


def compress_pytorch(model: Path, bitstream: Path, parameters: CodingParameters, images: Images | None) -> object:
    import torch

    import nnc_adapters.pytorch

    batches = None if images is None else [torch.from_numpy(images)]
    return nnc_adapters.pytorch.compress(load_pytorch(model), bitstream, parameters=parameters, calibrate=batches)


# --- Keras ----------------------------------------------------------------------------------------------------------


def save_keras(path: Path, images: Images) -> None:
    import digits_keras

    digits_keras.network().save(path)


def run_keras(path: Path, images: Images) -> NDArray[np.float32]:
    from digits_keras import keras

    return keras.saving.load_model(path).predict(channels_last(images), verbose=0)


def channels_last(images: Images) -> Images:
    return images.transpose(0, 2, 3, 1)


def compress_keras(model: Path, bitstream: Path, parameters: CodingParameters, images: Images | None) -> object:
    inputs = None if images is None else {"image": channels_last(images)}
    return nnc_adapters.compress(model, bitstream, parameters=parameters, calibrate=inputs)


# --- all of them ----------------------------------------------------------------------------------------------------

FORMATS = (
    Format("ONNX", "digits.onnx", save_onnx, run_onnx, compress_onnx),
    Format("NNEF", "digits.nnef", save_nnef, run_nnef, compress_nnef),
    Format("PyTorch", "digits.pt", save_pytorch, run_pytorch, compress_pytorch),
    Format("Keras", "digits.keras", save_keras, run_keras, compress_keras),
)


def cells(kind: Format, model: Path, parameters: CodingParameters, images: Images | None, data: Digits) -> list[str]:
    """The size of the bitstream, the accuracy of what is restored from it, and the error of its outputs."""
    with tempfile.TemporaryDirectory() as folder:
        bitstream, restored = Path(folder, "digits.nnr"), Path(folder, kind.file)
        kind.compress(model, bitstream, parameters, images)
        nnc_adapters.decompress(bitstream, restored)
        before, after = kind.logits(model, data.images), kind.logits(restored, data.images)
        size = bitstream.stat().st_size
    error = 10 * np.log10(np.square(after - before).sum() / np.square(before).sum())
    return [str(size), percent_right(after, data), f"{error:.1f} dB"]


def percent_right(logits: NDArray[np.float32], data: Digits) -> str:
    return f"{100 * (logits.argmax(1) == data.labels).mean():.2f} %"


def rows(kind: Format, folder: Path, settings: Mapping[str, CodingParameters]) -> Iterator[list[str]]:
    training, held_out = split()
    model = folder / kind.file
    kind.save(model, held_out.images)
    before = sum(each.stat().st_size for each in [model, *model.glob("*")] if each.is_file())
    yield [kind.name, "original", str(before), percent_right(kind.logits(model, held_out.images), held_out)]
    for name, parameters in settings.items():
        plain, calibrated = (cells(kind, model, parameters, i, held_out) for i in (None, training.images[:IMAGES]))
        yield [kind.name, name, *plain, *calibrated]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"only {' and '.join(QUICK)}")
    settings = {name: SETTINGS[name] for name in QUICK} if parser.parse_args().quick else SETTINGS
    table = Table(title="plain, and calibrated with images that have no labels")
    for column in ("format", "setting", "bytes", "accuracy", "error", "bytes", "accuracy", "error"):
        table.add_column(column, justify="left" if column in ("format", "setting") else "right")
    for kind in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                for row in rows(kind, Path(folder), settings):
                    table.add_row(*row)
            except ModuleNotFoundError as error:
                table.add_row(kind.name, f"needs {error.name}")
    Console().print(table)


if __name__ == "__main__":
    main()
