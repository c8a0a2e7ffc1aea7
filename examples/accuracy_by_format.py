"""The digits network in four formats: how small does it become, and how well does it still read?

    python examples/accuracy_by_format.py

The weights are those of ``digits.onnx`` in each. Every model is compressed at the default settings, restored, and run
before and after by the framework of its format. A framework that is not installed is left out.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from digits_data import Digits, split
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import nnc_adapters

ONNX = Path(__file__).with_name("digits.onnx")

Images = NDArray[np.float32]


@dataclass(frozen=True)
class Format:
    """How the model is saved as a file or folder, and how such a one is run: logits (n, 10) of images (n, 1, 8, 8)."""

    name: str
    file: str
    save: Callable[[Path, Images], object]
    logits: Callable[[Path, Images], NDArray[np.float32]]


def save_onnx(path: Path, images: Images) -> None:
    path.write_bytes(ONNX.read_bytes())


def run_onnx(path: Path, images: Images) -> NDArray[np.float32]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"image": images})
    return result


def save_nnef(path: Path, images: Images) -> None:
    import digits_nnef

    digits_nnef.write(path, len(images))


def run_nnef(path: Path, images: Images) -> NDArray[np.float32]:
    from nnef_tools.interpreter.pytorch import Interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it speaks of an older PyTorch
        return Interpreter(str(path))([images])["logits"]


def save_pytorch(path: Path, images: Images) -> None:
    import onnx
    import torch
    from train_digits import DigitsNet

    state = DigitsNet().state_dict()  # with the counters of the batch normalizations, which ONNX does not have
    for tensor in onnx.load(ONNX).graph.initializer:
        state[tensor.name] = torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
    torch.save(state, path)


def run_pytorch(path: Path, images: Images) -> NDArray[np.float32]:
    import torch
    from train_digits import DigitsNet

    net = DigitsNet()
    net.load_state_dict(torch.load(path, weights_only=True))
    net.eval()
    with torch.no_grad():
        return net(torch.from_numpy(images)).numpy()


def save_keras(path: Path, images: Images) -> None:
    import digits_keras

    digits_keras.network().save(path)


def run_keras(path: Path, images: Images) -> NDArray[np.float32]:
    from digits_keras import keras

    return keras.saving.load_model(path).predict(images.transpose(0, 2, 3, 1), verbose=0)


FORMATS = (
    Format("ONNX", "digits.onnx", save_onnx, run_onnx),
    Format("NNEF", "digits.nnef", save_nnef, run_nnef),
    Format("PyTorch", "digits.pt", save_pytorch, run_pytorch),
    Format("Keras", "digits.keras", save_keras, run_keras),
)


def percent_right(logits: NDArray[np.float32], data: Digits) -> str:
    return f"{100 * (logits.argmax(1) == data.labels).mean():.2f} %"


def row(kind: Format, folder: Path, data: Digits) -> list[str]:
    """Save, compress, restore and run one model."""
    model, bitstream, restored = folder / kind.file, folder / "digits.nnr", folder / f"restored-{kind.file}"
    kind.save(model, data.images)
    report = nnc_adapters.compress(model, bitstream)
    nnc_adapters.decompress(bitstream, restored)
    accuracies = [percent_right(kind.logits(path, data.images), data) for path in (model, restored)]
    return [kind.name, str(report.bytes_before), str(report.bytes_after), f"{report.percent:.1f} %", *accuracies]


def main() -> None:
    _, held_out = split()
    table = Table(title=f"accuracy on {len(held_out.labels)} images, each before and after coding")
    for column in ("format", "bytes", "after", "size", "accuracy", "after"):
        table.add_column(column, justify="left" if column == "format" else "right")
    for kind in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                table.add_row(*row(kind, Path(folder), held_out))
            except ModuleNotFoundError as error:
                table.add_row(kind.name, f"needs {error.name}")
    Console().print(table)


if __name__ == "__main__":
    main()
