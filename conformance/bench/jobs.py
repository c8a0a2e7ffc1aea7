"""How much faster several threads would be: the scheduler itself, on jobs that sleep for what each tensor costs.

A machine with few cores cannot show what more would bring. Costs are measured on one thread, one tensor at a time.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np

import nnc_core
from nnc_core import CodingParameters
from nnc_core.coder.pool import Job, in_order

Costs = list[tuple[float, int]]

THREADS = (2, 4)
_SHORTEST = 1.0  # seconds that a simulation takes at least: sleeping is not exact


def speed_up(tensors: Path, dq_flag: bool) -> dict[str, tuple[float, float]]:
    """The speed-up with 2 and 4 threads by direction."""
    encode, decode = _costs(tensors, dq_flag)
    return {
        "encode": _simulated(encode, 1.5, lambda size: size // 5),
        "decode": _simulated(decode, 1.0, lambda size: size),
    }


def _costs(tensors: Path, dq_flag: bool) -> tuple[Costs, Costs]:
    """CPU seconds and bytes of each tensor, in both directions."""
    encode, decode = [], []
    p = CodingParameters(-38, -75, 2, dq_flag=dq_flag)
    with np.load(tensors) as archive:
        for name in archive.files:
            array = archive[name]
            start = time.process_time()
            data = nnc_core.encode({name: array}, parameters=p, threads=1)
            coded = time.process_time()
            nnc_core.decode(data, threads=1)
            encode.append((coded - start, 4 * array.size))
            decode.append((time.process_time() - coded, 4 * array.size))
    return encode, decode


def _simulated(costs: Costs, running: float, result: object) -> tuple[float, float]:
    total = sum(cost for cost, _ in costs)
    stretch = max(1.0, _SHORTEST / total)
    ratios = []
    for threads in THREADS:
        jobs = (Job(partial(_sleep, cost * stretch, size), size) for cost, size in costs)
        start = time.perf_counter()
        for _ in in_order(jobs, threads, running=running, result_size=result):  # type: ignore[arg-type]
            pass
        ratios.append(total * stretch / (time.perf_counter() - start))
    return ratios[0], ratios[1]


def _sleep(seconds: float, size: int) -> int:
    time.sleep(seconds)
    return size
