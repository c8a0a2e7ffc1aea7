"""Train in PyTorch, send the network as NNR, and use it in TensorFlow.

    python examples/pytorch_to_tensorflow.py [--keep FOLDER]

Needs PyTorch, TensorFlow with Keras 3, h5py and scikit-learn. The receiver knows the network as a Keras model; only the
weights travel.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digits_data import Digits, split

import nnc_adapters
from nnc_adapters.convert import convert, plan

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# TensorFlow's own, about what numpy will do one day
warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)

import keras  # noqa: E402  (it reads the environment)

CHANNELS = 16
EPOCHS = 12


def pytorch_network() -> torch.nn.Sequential:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, CHANNELS, 3, padding=1),
        nn.BatchNorm2d(CHANNELS),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(CHANNELS * 4 * 4, 10),
    )


def keras_network() -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(CHANNELS, 3, padding="same"),
            layers.BatchNormalization(epsilon=1e-5),  # as in PyTorch
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


def trained(data: Digits) -> torch.nn.Sequential:
    torch.manual_seed(0)
    network = pytorch_network()
    images, labels = torch.from_numpy(data.images), torch.from_numpy(data.labels).long()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
    return network.eval()


def accuracy(logits: Any, data: Digits) -> float:
    return float((np.asarray(logits).argmax(1) == data.labels).mean())


def run(folder: Path) -> None:
    """Train and send, receive and measure; the files stay in ``folder``."""
    training, held_out = split()
    network = trained(training)
    sent, coded, template = folder / "digits.pt", folder / "digits.nnr", folder / "empty.keras"
    torch.save(network.state_dict(), sent)
    coding = nnc_adapters.compress(sent, coded, force=True)

    keras_network().save(template)
    # All weights find their places but for one question: PyTorch flattens the image channel by channel, Keras does not.
    # With module=network nothing would be asked, and the result would be checked by running both.
    received = folder / "digits.keras"
    flatten = plan(coded, template)["questions"]
    report = convert(coded, received, into=template, flatten=flatten, force=True)

    with torch.no_grad():
        before = network(torch.from_numpy(held_out.images)).numpy()
    after = keras.models.load_model(received)(np.moveaxis(held_out.images, 1, -1))
    print(f"bytes     {coding.bytes_before} as PyTorch file, {coding.bytes_after} as NNR ({coding.percent:.1f} %)")
    print(f"accuracy  {accuracy(before, held_out):.2%} in PyTorch, {accuracy(after, held_out):.2%} in TensorFlow")
    for target, source in report.plan["matched"].items():
        print(f"  {target:36} from {source}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Digits from PyTorch to TensorFlow.")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to leave the files")
    folder = parser.parse_args().keep
    torch.set_num_threads(1)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        run(folder)
        return
    with tempfile.TemporaryDirectory() as temporary:
        run(Path(temporary))


if __name__ == "__main__":
    main()
