"""The compressed sizes of a small made-up network, pinned in ``sizes.csv`` so that a change of ratio shows in a diff.

``python -m conformance.bench.sizes`` measures them anew.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import nnc_core
from nnc_core import CodingParameters

PINNED = Path(__file__).parent / "sizes.csv"
COLUMNS = ("qp", "nonweight_qp", "dq", "param_opt", "row_skip", "profile", "scan_order", "dense", "sparse", "vectors")

# A ResNet-56 in its proportions, with a twentieth of its layers.
STAGES = (16, 32, 64)


def bell(seed: int, *shape: int) -> NDArray[np.float32]:
    """Numbers between -1 and 1, thickest at 0: sums of four uniform ones, from integers alone, the same everywhere."""
    raw = np.random.PCG64(seed).random_raw(int(np.prod(shape)))
    sums = raw.view(np.uint16).reshape(-1, 4).astype(np.int64).sum(axis=1) - 2 * (2**16 - 1)
    return (sums.astype(np.float32) * np.float32(2.0**-17)).reshape(shape)


def dense() -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Weights as they are after training: the wider the layer, the smaller they are."""
    yield "conv1.weight", bell(1, 16, 3, 3, 3) / 2  # type: ignore[misc]
    for stage, width in enumerate(STAGES):
        entering = max(16, width // 2)
        yield f"layer{stage}.conv1.weight", bell(10 + stage, width, entering, 3, 3) / np.float32(entering)
        yield f"layer{stage}.conv2.weight", bell(20 + stage, width, width, 3, 3) / np.float32(width)
    yield "fc.weight", bell(30, 100, 64) / 8  # type: ignore[misc]


def sparse() -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The same, pruned: small weights and every third filter are zero."""
    for name, weight in dense():
        pruned = np.where(np.abs(weight) > np.abs(weight).mean(), weight, np.float32(0))
        pruned[::3] = 0
        yield name, pruned


def vectors() -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Batch-norm parameters and biases."""
    for number, width in enumerate(STAGES):
        yield f"bn{number}.weight", bell(40 + number, width) / 4 + 1  # type: ignore[misc]
        yield f"bn{number}.running_var", np.abs(bell(50 + number, width)) * width
        yield f"bn{number}.bias", bell(60 + number, width) / 8  # type: ignore[misc]


MODELS = (dict(dense()), dict(sparse()), dict(vectors()))


def settings() -> Iterator[CodingParameters]:
    """The settings that are measured: the three choices at three qualities, then what else there is, one by one."""
    for qp in (-38, -26, -14):
        for dq_flag in (False, True):
            for param_opt_flag in (False, True):
                yield CodingParameters(qp=qp, nonweight_qp=qp, dq_flag=dq_flag, param_opt_flag=param_opt_flag)
    yield CodingParameters(qp=-26, nonweight_qp=-26, row_skip_enabled_flag=False)
    yield CodingParameters(qp=-26, nonweight_qp=-26, general_profile_idc=0)
    for scan_order in range(1, 5):
        yield CodingParameters(qp=-26, nonweight_qp=-26, scan_order=scan_order)
    yield CodingParameters(qp=-38)
    yield CodingParameters()


def row(p: CodingParameters) -> list[int | str]:
    """One line of the table."""
    flags = (p.dq_flag, p.param_opt_flag, p.row_skip_enabled_flag)
    sizes = [len(nnc_core.encode(model, parameters=p)) for model in MODELS]
    return [p.qp or "", p.nonweight_qp or "", *map(int, flags), p.general_profile_idc, p.scan_order, *sizes]


def table() -> str:
    """The whole table, as text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row(p) for p in settings())
    return text.getvalue()


if __name__ == "__main__":
    PINNED.write_text(table())
