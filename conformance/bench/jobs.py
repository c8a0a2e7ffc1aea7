"""How much faster several threads would be: the scheduler itself, on jobs that sleep for what each tensor costs.

A machine with few cores cannot show what more would bring. Costs are measured on one thread, one tensor at a time.
There are as many cores as threads, which all that is busy has to share; of a large tensor that has entry points,
several threads search, code or decode the rows of blocks, and one does the rest.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from threading import Semaphore, Thread
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import nnc_core
from nnc_core import CodingParameters
from nnc_core.coder.decoder import decode_levels, shapes
from nnc_core.coder.payload import SHARED
from nnc_core.coder.pool import Job, in_order
from nnc_core.entropy.native import Encoder, shift_indices

THREADS = (2, 4)
_SHORTEST = 4.0  # seconds of work that a simulation has at least: sleeping is not exact
_SLICE = 0.02  # seconds that a thread has a core at a time


class Cost(NamedTuple):
    """CPU seconds of a tensor, those among them that threads can share, and its bytes."""

    seconds: float
    shared: float
    size: int


def speed_up(tensors: Path, dq_flag: bool, scan_order: int) -> dict[str, tuple[float, float]]:
    """The speed-up with 2 and 4 threads by direction."""
    p = CodingParameters(-38, -75, 2, dq_flag=dq_flag, scan_order=scan_order)
    with np.load(tensors) as archive:
        costs = [_costs(name, archive[name], p) for name in archive.files]
    return {
        "encode": _simulated([encode for encode, _ in costs], 1.5, lambda size: size // 5),
        "decode": _simulated([decode for _, decode in costs], 1.0, lambda size: size),
    }


def _costs(name: str, array: NDArray[Any], p: CodingParameters) -> tuple[Cost, Cost]:
    """Of a tensor, in both directions."""
    start = time.process_time()
    data = nnc_core.encode({name: array}, parameters=p, threads=1)
    coded = time.process_time()
    nnc_core.decode(data, threads=1)
    decoded = time.process_time()
    size, shared = 4 * array.size, (0.0, 0.0)
    if p.scan_order and array.ndim > 1 and size >= SHARED:
        shared = _shared(data)
    return Cost(coded - start, shared[0], size), Cost(decoded - coded, shared[1], size)


def _shared(data: bytes) -> tuple[float, float]:
    """What it takes to search for shift indices and code the levels of a bitstream's one tensor, and to decode them."""
    unit = nnc_core.open(data).bitstream.data_units[0]
    start = time.process_time()
    tensor = next(iter(decode_levels(unit).values()))
    decoded = time.process_time()
    parameters, encoder = shapes(unit)[0].parameters, Encoder()
    shift_indices(tensor.levels, parameters, tensor.choices)
    encoder.tensor(tensor.levels, parameters, tensor.choices)
    return time.process_time() - decoded, decoded - start


def _simulated(costs: list[Cost], running: float, result: Any) -> tuple[float, float]:
    total = sum(cost.seconds for cost in costs)
    stretch = max(1.0, _SHORTEST / total)
    ratios = []
    for threads in THREADS:
        cores = Semaphore(threads)
        jobs = (Job(partial(_work, cost, stretch, threads, cores), cost.size) for cost in costs)
        start = time.perf_counter()
        for _ in in_order(jobs, threads, running=running, result_size=result):
            pass
        ratios.append(total * stretch / (time.perf_counter() - start))
    return ratios[0], ratios[1]


def _work(cost: Cost, stretch: float, threads: int, cores: Semaphore) -> int:
    _busy((cost.seconds - cost.shared) * stretch, cores)
    helpers = [Thread(target=_busy, args=(cost.shared * stretch / threads, cores)) for _ in range(threads)]
    for helper in helpers if cost.shared else ():
        helper.start()
    for helper in helpers if cost.shared else ():
        helper.join()
    return cost.size


def _busy(seconds: float, cores: Semaphore) -> None:
    """Take turns on the cores."""
    end = seconds
    while end > 0:
        with cores:
            start = time.perf_counter()
            time.sleep(min(end, _SLICE))
            end -= time.perf_counter() - start
