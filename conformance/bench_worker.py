"""One measured run of the codec in a process of its own, as the benchmark needs it; prints one line of JSON.

    bench_worker.py make WORKLOAD TARGET.npz
    bench_worker.py quantize SOURCE.npz [--no-dq]
    bench_worker.py encode SOURCE.npz TARGET.nnr [--no-dq] [--threads N]
    bench_worker.py decode SOURCE.nnr [--threads N]

Seconds leave imports and file access out; ``peak_mib`` is resident memory beyond that of the interpreter with its
imports, ``bound_mib`` what the project allows: what goes in and comes out, and twice the largest tensor.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import synthetic
from checkpoint import read_checkpoint
from numpy.typing import NDArray
from peer_codec import SHARED

import nnc_core
from nnc_core import CodingParameters, NnrFile
from nnc_core.approximator.native import quantize_dependent, quantize_uniform
from nnc_core.approximator.step import step_size
from nnc_core.coder.decoder import decode_levels
from nnc_core.coder.pool import LEAST_WINDOW
from nnc_core.tables.code_points import PayloadType

Tensors = dict[str, NDArray[Any]]

CHECKPOINT = SHARED / "models" / "ResNet56_CIFAR100.pt"


def workload(name: str) -> Tensors:
    """``laplace:SCALE``, ``network:WEIGHTS`` or ``resnet56``."""
    kind, _, number = name.partition(":")
    if kind == "laplace":
        return {"weight": synthetic.laplace((2048, 1024), float(number))}
    return synthetic.network(int(number)) if kind == "network" else read_checkpoint(CHECKPOINT)


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


def quantize(tensors: Tensors, dq: bool) -> float:
    """Seconds for the quantization alone."""
    p = CodingParameters(-38, -75, 2, dq_flag=dq)
    floats = {name: array for name, array in tensors.items() if array.dtype.kind == "f"}
    start = time.perf_counter()
    for name, array in floats.items():
        step = step_size(p.plan(name, "unspecified", array.ndim).qp, p.qp_density)
        matrix = array.reshape(len(array), -1)
        quantize_dependent(matrix, step) if dq else quantize_uniform(matrix, step)
    return time.perf_counter() - start


def bins(data: bytes) -> int:
    """How many bins the levels of a bitstream take, without what is sent once for each tensor."""
    file = NnrFile(data)
    raw = PayloadType.NNR_PT_RAW_FLOAT
    return sum(
        _bins(tensor.levels, unit.header.dq_flag)
        for unit in file.bitstream.data_units
        if unit.header.nnr_compressed_data_unit_payload_type != raw
        for tensor in decode_levels(unit).values()
    )


def _bins(levels: NDArray[np.int32], dq: bool, flags: int = 11) -> int:
    a = (np.abs(levels.astype(np.int64)) + dq) >> dq
    suffix = np.log2(np.maximum(a - flags, 1)).astype(np.int64)
    beyond = np.where(a > flags, flags + 3 + 2 * suffix, a + 2)
    return int(np.where(a == 0, 1, beyond).sum())


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    baseline = resident_mib(peak=False)
    if arguments.what == "decode":
        data = Path(arguments.source).read_bytes()
        start = time.perf_counter()
        tensors = nnc_core.decode(data, threads=arguments.threads)
        seconds = time.perf_counter() - start
    else:
        tensors = load(arguments.source)
        p = CodingParameters(-38, -75, 2, dq_flag=not arguments.no_dq)
        start = time.perf_counter()
        data = nnc_core.encode(tensors, parameters=p, threads=arguments.threads)
        seconds = time.perf_counter() - start
        Path(arguments.target).write_bytes(data)
    return {
        "seconds": seconds,
        "peak_mib": resident_mib(peak=True) - baseline,
        "bound_mib": bound_mib(tensors, len(data)),
        "bytes": len(data),
        "weights": sum(array.size for array in tensors.values()),
        "bins": bins(data) if arguments.what == "decode" else 0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("make", "quantize", "encode", "decode"))
    parser.add_argument("source")
    parser.add_argument("target", nargs="?")
    parser.add_argument("--no-dq", action="store_true")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.what == "make":
        np.savez(arguments.target, **workload(arguments.source))
        result = {}
    elif arguments.what == "quantize":
        result = {"seconds": quantize(load(arguments.source), not arguments.no_dq)}
    else:
        result = measure(arguments)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
