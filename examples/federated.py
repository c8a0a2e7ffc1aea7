"""Federated learning with Flower, plain and over NNR: accuracy and traffic per round on the digits of scikit-learn.

Needs ``pip install 'nnc-suite[flower]' scikit-learn`` in an environment of its own. Three clients train a small network
for ten rounds; the second run differs from the first by two lines.
"""

from __future__ import annotations

import argparse
import json
import os
import sys

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from sklearn.datasets import load_digits

from nnc_adapters.flower import NncGrid, nnc_mod

CLIENTS, ROUNDS, EPOCHS = 3, 10, 2
Model = dict[str, np.ndarray]


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test images and labels, in an order that depends on nothing."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order].astype(np.float32) / 16, labels[order]
    return images[:1400], labels[:1400], images[1400:], labels[1400:]


def fresh() -> Model:
    """A network with one hidden layer."""
    rng = np.random.default_rng(1)
    return {
        "hidden.weight": rng.normal(0, 0.15, (64, 128)).astype(np.float32),
        "hidden.bias": np.zeros(128, np.float32),
        "output.weight": rng.normal(0, 0.12, (128, 10)).astype(np.float32),
        "output.bias": np.zeros(10, np.float32),
    }


def forward(m: Model, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hidden activations and class probabilities."""
    hidden = np.maximum(x @ m["hidden.weight"] + m["hidden.bias"], 0)
    scores = hidden @ m["output.weight"] + m["output.bias"]
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, scores / scores.sum(axis=1, keepdims=True)


def train(m: Model, x: np.ndarray, y: np.ndarray, seed: int) -> Model:
    """A few epochs of stochastic gradient descent."""
    m = {name: array.copy() for name, array in m.items()}
    rng = np.random.default_rng(seed)
    for _ in range(EPOCHS):
        for batch in np.array_split(rng.permutation(len(x)), len(x) // 32):
            hidden, p = forward(m, x[batch])
            p[np.arange(len(batch)), y[batch]] -= 1
            p /= len(batch)
            back = (p @ m["output.weight"].T) * (hidden > 0)
            for name, gradient in (
                ("output.weight", hidden.T @ p),
                ("output.bias", p.sum(axis=0)),
                ("hidden.weight", x[batch].T @ back),
                ("hidden.bias", back.sum(axis=0)),
            ):
                m[name] -= 0.1 * gradient
    return m


def accuracy(m: Model, x: np.ndarray, y: np.ndarray) -> float:
    """The share of right answers."""
    return float((forward(m, x)[1].argmax(axis=1) == y).mean())


def arrays(record: ArrayRecord) -> Model:
    """The network in a record of arrays."""
    return {name: array.numpy() for name, array in record.items()}


def client_app(compressed: bool) -> ClientApp:
    """A client that trains on its third of the data."""
    app = ClientApp(mods=[nnc_mod()] if compressed else [])

    @app.train()
    def _(message: Message, context: Context) -> Message:
        x, y, *_ = data()
        part = int(context.node_config["partition-id"])
        model = train(arrays(message.content["arrays"]), x[part::CLIENTS], y[part::CLIENTS], part)
        metrics = MetricRecord({"num-examples": len(x[part::CLIENTS])})
        return Message(RecordDict({"arrays": _record(model), "metrics": metrics}), reply_to=message)

    return app


def _record(model: Model) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in model.items()})


class _Counting:
    """Counts the bytes of arrays that pass through a grid."""

    def __init__(self, grid: Grid) -> None:
        self._grid, self.bytes = grid, 0

    def __getattr__(self, name: str):
        return getattr(self._grid, name)

    def send_and_receive(self, messages, *, timeout=None):
        sent = list(messages)
        replies = list(self._grid.send_and_receive(sent, timeout=timeout))
        for message in (*sent, *(reply for reply in replies if reply.has_content())):
            records = message.content.array_records.values()
            self.bytes += sum(len(array.data) for record in records for array in record.values())
        return replies


def run(compressed: bool) -> list[dict[str, float]]:
    """Simulate all rounds; return accuracy and traffic so far after each."""
    *_, x, y = data()
    rounds: list[dict[str, float]] = []
    app = ServerApp()

    @app.main()  # type: ignore[no-redef]
    def _(grid: Grid, context: Context) -> None:
        counting = _Counting(grid)

        def evaluate(number: int, record: ArrayRecord) -> MetricRecord:
            rounds.append({"round": number, "accuracy": accuracy(arrays(record), x, y), "bytes": counting.bytes})
            return MetricRecord({"accuracy": rounds[-1]["accuracy"]})

        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=CLIENTS, min_available_nodes=CLIENTS)
        strategy.start(
            grid=NncGrid(counting) if compressed else counting,
            initial_arrays=_record(fresh()),
            num_rounds=ROUNDS,
            evaluate_fn=evaluate,
        )

    resources = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 2}}
    run_simulation(app, client_app(compressed), num_supernodes=CLIENTS, backend_config=resources)
    return rounds


def main() -> None:
    """Run both and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    plain, compressed = run(False), run(True)
    if options.json:
        json.dump({"plain": plain, "compressed": compressed}, sys.stdout)
        return
    print("round   accuracy          traffic so far")
    print("        plain    nnr      plain      nnr")
    for a, b in zip(plain, compressed, strict=True):
        share = f"{b['bytes'] / max(a['bytes'], 1):.1%}"
        print(f"{a['round']:5}  {a['accuracy']:6.2%}  {b['accuracy']:6.2%}  {a['bytes']:9}  {b['bytes']:7}  {share}")


if __name__ == "__main__":
    main()
