"""Random small networks, each in PyTorch and in Keras: whether weights move between the two, and never wrongly.

python -m annex_tests.cross_framework.random_networks [--count N] [--seed S]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from annex_tests.cross_framework.built_networks import keras_model, network_is_signal, torch_module
from annex_tests.cross_framework.drawn_networks import Network, network

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

TOLERANCE = 1e-4


@dataclass
class Outcome:
    """Of one conversion: ``right``, ``refused`` or ``wrong``, and why."""

    way: str
    result: str
    reason: str = ""


def outcomes(seed: int, folder: Path) -> list[Outcome]:
    """Convert in both directions: with the module, and without it with every question answered as usual."""
    import keras
    import torch

    drawn = network(seed)
    module, model = torch_module(drawn, seed), keras_model(drawn)
    given = _inputs(drawn, seed)
    # Keras cannot load what it saves as .h5 where a layer normalizes several axes
    several = any(step.kind == "layer_norm" and len(step.options["sizes"]) > 1 for step in drawn.steps)
    torch_file, keras_file = folder / "net.pt", folder / f"net{'.keras' if seed % 3 or several else '.h5'}"
    torch.save(module.state_dict(), torch_file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(keras_file)

    def by_torch(path: Path) -> list[Any]:
        module.load_state_dict(torch.load(path, weights_only=True))
        with torch.no_grad():
            return _list(module(*(torch.from_numpy(array) for array in given)))

    def by_keras(path: Path) -> list[Any]:
        moved = [_last(drawn, array) for array in given]
        found = _list(keras.models.load_model(path)(moved if len(moved) > 1 else moved[0]))
        return [np.moveaxis(array, -1, 1) if array.ndim == 4 else array for array in found]

    ours, theirs = by_torch(torch_file), by_keras(keras_file)
    found = []
    for options in ({"module": module}, {}):
        name = "with the module" if options else "without it"
        there, back = folder / f"there{keras_file.suffix}", folder / "back.pt"
        found.append(_outcome(f"to Keras, {name}", torch_file, keras_file, there, options, by_keras, ours))
        found.append(_outcome(f"to PyTorch, {name}", keras_file, torch_file, back, options, by_torch, theirs))
    return found


def _outcome(
    way: str, source: Path, into: Path, target: Path, options: dict[str, Any], run: Callable[[Path], Any], expected: Any
) -> Outcome:
    from nnc_adapters.convert import convert, plan
    from nnc_core import ModelError

    try:
        flatten = {}
        if not options:
            flatten = plan(source, into)["questions"]
        convert(source, target, into=into, force=True, flatten=flatten, **options)
    except ModelError as error:
        return Outcome(way, "refused", str(error))
    worst = max(_difference(array, other) for array, other in zip(run(target), expected, strict=True))
    return Outcome(way, "right" if worst < TOLERANCE else "wrong", f"outputs differ by {worst:.2g}")


def _difference(one: Any, other: Any) -> float:
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-6))


def _inputs(drawn: Network, seed: int) -> list[Any]:
    generator = np.random.default_rng(seed)
    if drawn.integers:
        return [generator.integers(0, 11, (2, *shape)) for shape in drawn.shapes]
    return [generator.standard_normal((2, *shape)).astype(np.float32) for shape in drawn.shapes]


def _last(drawn: Network, array: Any) -> Any:
    moves = array.ndim == 4 or network_is_signal(drawn, array.shape[1:])
    return np.moveaxis(array, 1, -1) if moves else array


def _list(value: Any) -> list[Any]:
    return [item.numpy() for item in (value if isinstance(value, list | tuple) else [value])]


def main() -> int:
    parser = argparse.ArgumentParser(description="Convert random networks between PyTorch and Keras.")
    parser.add_argument("--count", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    counts: Counter[tuple[str, str]] = Counter()
    started = time.perf_counter()
    for seed in range(options.seed, options.seed + options.count):
        with tempfile.TemporaryDirectory() as folder:
            for outcome in outcomes(seed, Path(folder)):
                counts[outcome.way, outcome.result] += 1
                if outcome.result == "wrong" or (
                    outcome.result == "refused" and (options.verbose or "with the" in outcome.way)
                ):
                    print(f"seed {seed}, {outcome.way}: {outcome.result}: {outcome.reason[:400]}")
    for way in sorted({way for way, _ in counts}):
        total = sum(n for (w, _), n in counts.items() if w == way)
        shares = {result: counts[way, result] for result in ("right", "refused", "wrong")}
        print(f"{way:28} {shares}  {100 * shares['right'] / total:.1f} % converted")
    print(f"{time.perf_counter() - started:.0f} s")
    return 1 if any(result == "wrong" for _, result in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
