"""Weights from a trainer to receivers in other processes, over a folder; one receiver is killed and starts again.

The trainer fits a network of bfloat16 weights to the digits of scikit-learn and publishes it after each step of a
fine-tuning; the receivers check what they get against the checksums that the trainer leaves beside it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

import ml_dtypes
import numpy as np

from nnc_adapters.weight_sync import WeightPublisher, WeightReceiver

VERSIONS = 24


def model(version: int) -> dict[str, np.ndarray]:
    """A network whose weights drift a little with every version, as they do at a small learning rate."""
    rng = np.random.default_rng(0)
    weights = {f"layers.{j}.weight": rng.normal(0, 0.05, (256, 256)).astype(np.float32) for j in range(4)}
    for step in range(version):
        drift = np.random.default_rng(step)
        weights = {name: w + drift.normal(0, 2e-6, w.shape).astype(np.float32) for name, w in weights.items()}
    return {name: w.astype(ml_dtypes.bfloat16) for name, w in weights.items()}


def checksum(weights: dict[str, np.ndarray]) -> str:
    """SHA-256 of all weights."""
    return sha256(b"".join(array.tobytes() for array in weights.values())).hexdigest()


def receive(folder: str, log: str) -> None:
    """Follow the publisher up to the last version and write down what came."""
    receiver = WeightReceiver(folder)
    while receiver.version < VERSIONS:
        if receiver.pull():
            with Path(log).open("a") as file:
                file.write(f"{receiver.version} {checksum(dict(receiver.model))}\n")
        time.sleep(0.01)


def main() -> int:
    """Publish, receive, compare; return 0 where every version that arrived is the one that was published."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        logs = [str(Path(folder, f"log{n}")) for n in range(3)]
        place = str(Path(folder, "weights"))
        publisher = WeightPublisher(place, anchor_every=8)
        receivers = [context.Process(target=receive, args=(place, log)) for log in logs]
        sums, sizes = {}, []
        sums[1] = checksum(model(1))
        publisher.publish(model(1))
        for process in receivers:
            process.start()
        for version in range(2, VERSIONS + 1):
            weights = model(version)
            sums[version] = checksum(weights)
            sizes.append(publisher.publish(weights).update_bytes)
            if version == VERSIONS // 2 and receivers[0].pid is not None:
                os.kill(receivers[0].pid, signal.SIGKILL)
                receivers[0].join()
                receivers[0] = context.Process(target=receive, args=(place, logs[0]))
                receivers[0].start()
        for process in receivers:
            process.join()
        lines = [line.split() for log in logs for line in Path(log).read_text().splitlines(keepends=False)]
        wrong = sum(sums[int(version)] != found for version, found in lines)
    whole = sum(array.nbytes for array in model(0).values())
    print(f"{VERSIONS} versions of {whole} bytes; an update takes {np.mean(sizes) / whole:.1%} of that")
    print(f"{len(lines)} versions arrived at 3 receivers, one of them killed on the way; {wrong} of them wrong")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
