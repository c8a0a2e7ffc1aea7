"""What ten epochs of training cost to ship: whole models, our updates, and the public codec's differential mode.

A network of 50,000 weights learns the digits of scikit-learn; after each epoch its receivers get the new weights in one
of three ways. Each way is tried at several steps, and the one counts that is smallest among those whose receivers are
as accurate as the trainer, to 0.1 points on average over all epochs. ``python -m conformance.bench.lossy_updates
[--json]``; also part of ``make bench``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import nnc_core
from conformance.support import peer_codec
from nnc_core import CodingParameters, LossyOptions, UpdateDecoder, UpdateEncoder, UpdateOptions

EPOCHS = 10
STEPS = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
TOLERANCE = 0.001
Model = dict[str, np.ndarray]
Shipped = tuple[list[int], list[Model]]
"""The bytes of each epoch, and what its receivers have then."""


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images and labels for training and for testing."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order].astype(np.float32) / 16, labels[order]
    return images[:1200], labels[:1200], images[1200:], labels[1200:]


def layers(m: Model) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Weights and biases from the input to the output."""
    return ((m[f"{j}.weight"], m[f"{j}.bias"]) for j in range(len(m) // 2))


def forward(m: Model, x: np.ndarray) -> list[np.ndarray]:
    """The activations of all layers; the last are scores."""
    found = [x]
    for weight, bias in layers(m):
        x = np.maximum(found[-1], 0) if len(found) > 1 else found[-1]
        found.append(x @ weight.T + bias)
    return found


def train(m: Model, x: np.ndarray, y: np.ndarray, seed: int) -> Model:
    """One epoch of stochastic gradient descent."""
    m = {name: array.copy() for name, array in m.items()}
    for batch in np.array_split(np.random.default_rng(seed).permutation(len(x)), len(x) // 24):
        outputs = forward(m, x[batch])
        back = np.exp(outputs[-1] - outputs[-1].max(axis=1, keepdims=True))
        back /= back.sum(axis=1, keepdims=True)
        back[np.arange(len(batch)), y[batch]] -= 1
        back /= len(batch)
        for j in reversed(range(len(m) // 2)):
            inputs = np.maximum(outputs[j], 0) if j else outputs[j]
            steps = back.T @ inputs, back.sum(axis=0)
            back = (back @ m[f"{j}.weight"]) * (outputs[j] > 0)
            m[f"{j}.weight"] -= 0.1 * steps[0]
            m[f"{j}.bias"] -= 0.1 * steps[1]
    return m


def accuracy(m: Model) -> float:
    """The share of right answers on the test data."""
    *_, x, y = data()
    return float((forward(m, x)[-1].argmax(axis=1) == y).mean())


def trained() -> list[Model]:
    """The network before training and after each epoch."""
    rng, sizes = np.random.default_rng(1), (64, 256, 128, 10)
    m: Model = {}
    for j in range(len(sizes) - 1):
        rows, width = sizes[j + 1], sizes[j]
        m[f"{j}.weight"] = rng.normal(0, np.sqrt(2 / width), (rows, width)).astype(np.float32)
        m[f"{j}.bias"] = np.zeros(rows, np.float32)
    x, y, *_ = data()
    models = [m]
    for epoch in range(EPOCHS):
        models.append(train(models[-1], x, y, epoch))
    return models


def whole(models: list[Model], step: float) -> Shipped:
    """A compressed model after each epoch; ``step`` in terms of the default."""
    p = CodingParameters() if step == 1 else CodingParameters(qp=round(-32 + 4 * np.log2(step)), nonweight_qp=-60)
    coded = [nnc_core.encode(m, parameters=p) for m in models[1:]]
    return [len(each) for each in coded], [nnc_core.decode(each) for each in coded]


def updates(models: list[Model], step: float) -> Shipped:
    """A chain of our updates."""
    encoder = UpdateEncoder(models[0], UpdateOptions(lossy=LossyOptions(step=step)))
    decoder = UpdateDecoder(models[0])
    sizes, received = [], []
    for m in models[1:]:
        update = encoder.encode(m)
        encoder.commit(update)
        decoder.apply(update)
        sizes.append(len(update))
        received.append(dict(decoder.model))
    return sizes, received


def peer_updates(models: list[Model], step: float) -> Shipped:
    """The peer's differences with all its tools, each from what the receivers have."""
    options = {"use_dq": True, "row_skipping": True, "tca": True, "hdsp_tool": None, "compress_differences": True}
    rms = np.sqrt(np.mean(np.concatenate([(models[2][n] - models[1][n]).ravel() for n in models[0]]) ** 2))
    octave = np.log2(step * rms)
    options["qp"] = int(np.floor(octave) * 4 + np.round((2 ** (octave % 1) - 1) * 4))  # type: ignore[assignment]
    options["nonweight_qp"] = options["qp"] - 8  # type: ignore[assignment]
    sizes, received, files = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        have = models[0]
        for epoch, m in enumerate(models[1:]):
            source, coded, result = (Path(folder, f"{epoch}{suffix}") for suffix in (".npz", ".nnr", ".out.npz"))
            np.savez(source, **{name: m[name] - have[name] for name in m})
            files.append((source, coded, result))
            sizes = peer_codec.session("encode", [f[:2] for f in files], options, updates=True)
            peer_codec.session("decode", [f[1:] for f in files], {}, updates=True)
            with np.load(result) as archive:
                have = {name: have[name] + archive[name] if name in archive.files else have[name] for name in have}
            received.append(have)
    return sizes, received


def table() -> list[dict[str, float | str | None]]:
    """For each way its smallest traffic that is accurate enough."""
    models = trained()
    right = [accuracy(m) for m in models[1:]]
    ways = {"whole models": whole, "updates": updates}
    if peer_codec.missing() is None:
        ways["nncodec's differences"] = peer_updates
    rows: list[dict[str, float | str | None]] = []
    for name, way in ways.items():
        tried = []
        for step in STEPS:
            sizes, received = way(models, step)
            loss = float(np.mean(right) - np.mean([accuracy(m) for m in received]))
            tried.append((sum(sizes), step, loss))
        good = [each for each in tried if each[2] <= TOLERANCE]
        size, step, loss = min(good) if good else (None, None, None)
        rows.append({"way": name, "bytes": size, "step": step, "loss": loss})
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    as_json = parser.parse_args().json
    rows = table()
    if as_json:
        print(json.dumps(rows))
        return
    print(f"lossy updates: {EPOCHS} epochs of a digits network, smallest traffic without loss of accuracy")
    for row in rows:
        found = "none" if row["bytes"] is None else f"{row['bytes']:>8} bytes at step {row['step']}, {row['loss']:+.2%}"
        print(f"  {row['way']:24}{found}")
    if (reason := peer_codec.missing()) is not None:
        print(f"  nncodec's differences: left out, {reason}")


if __name__ == "__main__":
    main()
