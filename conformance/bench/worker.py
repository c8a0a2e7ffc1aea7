"""One measured run of the codec in a process of its own, as the benchmark needs it; prints one line of JSON.

    python -m conformance.bench.worker make WORKLOAD TARGET.npz
    python -m conformance.bench.worker encode SOURCE.npz TARGET.nnr [--no-dq] [--scan N] [--threads N]
    python -m conformance.bench.worker decode SOURCE.nnr [--threads N]
    python -m conformance.bench.worker compare SOURCE.npz CODED.nnr

Seconds of wall time and CPU time leave imports and file access out; ``peak_mib`` is resident memory beyond that of the
interpreter with its imports, ``bound_mib`` what the project allows: what goes in and comes out, and twice the largest
tensor.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

import nnc_core
from conformance.bench import minilm, synthetic
from conformance.bench.checkpoint import read_checkpoint
from conformance.support.peer_codec import ROOT
from conformance.support.shared import SHARED
from nnc_core import CodingParameters, UpdateDecoder, UpdateEncoder, UpdateOptions, decode, encode  # imported here
from nnc_core.coder.pool import LEAST_WINDOW

Tensors = dict[str, NDArray[Any]]

CHECKPOINT = SHARED / "models" / "ResNet56_CIFAR100.pt"


def workload(name: str) -> Tensors:
    """``laplace:SCALE``, ``sparse:SHARE``, ``tiny:NUMBER``, ``huge:WEIGHTS``, or the name of a model."""
    kind, _, number = name.partition(":")
    return _MAKERS[kind](float(number or 0))


def _sparse(share: float) -> Tensors:
    kept = np.random.default_rng(5).random((2048, 1024)) >= share
    return {"weight": synthetic.laplace((2048, 1024), 3) * kept}


def _tiny(number: float) -> Tensors:
    return {f"layers.{i}.weight": synthetic.laplace((4, 4), 3, i) for i in range(int(number))}


def _update(_: float) -> Tensors:
    """A model and the same after a small step of training."""
    base, rng = synthetic.network(2_500_000), np.random.default_rng(7)
    new = {name: (w + rng.normal(0, 1e-5, w.shape)).astype(np.float32) for name, w in base.items()}
    return {**{f"base/{name}": w for name, w in base.items()}, **{f"new/{name}": w for name, w in new.items()}}


def _digits(_: float) -> Tensors:
    import onnx
    from onnx.numpy_helper import to_array

    model = onnx.load(ROOT / "examples" / "digits.onnx")
    arrays = {each.name: to_array(each) for each in model.graph.initializer}
    return {name: array for name, array in arrays.items() if array.dtype == np.float32}


def _minilm(_: float) -> Tensors:
    path = minilm.weights_file()
    if path is None:
        raise SystemExit(f"the package {minilm.PACKAGE} is not installed")
    return {name: w for name, w in load_file(path).items() if w.dtype == np.float32}


_MAKERS: dict[str, Callable[[float], Tensors]] = {
    "laplace": lambda scale: {"weight": synthetic.laplace((2048, 1024), scale)},
    "sparse": _sparse,
    "tiny": _tiny,
    "huge": lambda weights: {"weight": synthetic.laplace((10_000, int(weights) // 10_000), 1)},
    "startup": lambda _: {"weight": synthetic.laplace((8, 8), 3)},
    "network": lambda weights: synthetic.network(int(weights)),
    "update": _update,
    "digits": _digits,
    "resnet56": lambda _: read_checkpoint(CHECKPOINT),
    "minilm": _minilm,
}


def call(*arguments: str | Path) -> dict[str, Any]:
    """Run this program in a process of its own, on one thread of BLAS."""
    command = [sys.executable, "-m", "conformance.bench.worker", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {' '.join(map(str, arguments))} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def load(path: str) -> Tensors:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def resident_mib(peak: bool) -> float:
    """Resident memory of this process, now or at most so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
    key = "VmHWM:" if peak else "VmRSS:"
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(key)) / 1024


def bound_mib(tensors: Tensors, coded: int = 0) -> float:
    sizes = [array.nbytes for array in tensors.values()]
    return (sum(sizes) + coded + max(2 * max(sizes), LEAST_WINDOW)) / (1 << 20)


class Timer:
    """Wall and CPU seconds of a block."""

    def __enter__(self) -> Timer:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu = time.perf_counter() - self._start[0], time.process_time() - self._start[1]


def halves(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """The models before and after an update; the second is empty for what is not an update."""
    found = ({n.partition("/")[2]: a for n, a in tensors.items() if n.startswith(h)} for h in ("base/", "new/"))
    base, new = found
    return base, new


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Code or decode once."""
    baseline = resident_mib(peak=False)
    tensors = load(arguments.source) if arguments.what == "encode" else {}
    p = CodingParameters(-38, -75, 2, dq_flag=not arguments.no_dq, scan_order=arguments.scan)
    base, new = halves(tensors)
    if arguments.what == "decode":
        data, before = Path(arguments.source).read_bytes(), Path(f"{arguments.source}.base.npz")
        decoder = UpdateDecoder(load(str(before)), threads=arguments.threads) if before.exists() else None
        with Timer() as timer:
            if decoder is None:
                tensors = decode(data, threads=arguments.threads)
            else:
                decoder.apply(data)
        tensors = tensors or dict(decoder.model if decoder else {})
    elif new:
        encoder = UpdateEncoder(base, UpdateOptions(exact=True), threads=arguments.threads)
        with Timer() as timer:
            data = encoder.encode(new)
        np.savez(f"{arguments.target}.base.npz", **base)
    else:
        with Timer() as timer:
            data = encode(tensors, parameters=p, threads=arguments.threads)
    if arguments.what == "encode":
        Path(arguments.target).write_bytes(data)
    return {
        "seconds": timer.seconds,
        "cpu": timer.cpu,
        "peak_mib": resident_mib(peak=True) - baseline,
        "bound_mib": bound_mib(tensors, len(data)),
        "bytes": len(data),
        "weights": sum(array.size for array in (new or tensors).values()),
    }


def compare(source: str, coded: str) -> dict[str, Any]:
    """The SQNR in dB of what a bitstream holds; None for an exact update."""
    tensors, noise, energy = load(source), 0.0, 0.0
    if halves(tensors)[1]:
        return {"sqnr": None}
    for name, restored in nnc_core.open(coded).decode_all(threads=1):
        for at in range(0, restored.size, 1 << 20):
            values, back = (each.reshape(-1)[at : at + (1 << 20)] for each in (tensors[name], restored))
            noise += float(np.square(values.astype(np.float64) - back).sum())
            energy += float(np.square(values, dtype=np.float64).sum())
    return {"sqnr": 10 * float(np.log10(energy / noise)) if noise else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "encode", "decode", "compare"))
    parser.add_argument("source")
    parser.add_argument("target", nargs="?")
    parser.add_argument("--no-dq", action="store_true")
    parser.add_argument("--scan", type=int, default=0)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.what == "make":
        np.savez(arguments.target, **workload(arguments.source))
        result: dict[str, Any] = {}
    elif arguments.what == "compare":
        result = compare(arguments.source, arguments.target)
    else:
        result = measure(arguments)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
