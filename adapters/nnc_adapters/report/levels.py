"""Histograms of what the arithmetic coder codes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.report.data import Levels
from nnc_core import NnrFile
from nnc_core.bitstream import DataUnit
from nnc_core.bitstream.marks import mark_of
from nnc_core.coder.block import is_quantized
from nnc_core.coder.decoder import decode_levels
from nnc_core.errors import UnsupportedError, UpdateError
from nnc_core.tables.code_points import PayloadType

__all__ = ["histogram", "histograms"]

_BINS = 64
_TAIL = 1e-3  # the share of levels that may lie beside the bins on each side
_COUNTABLE = 1 << 20


def histograms(file: NnrFile) -> Iterator[dict[str, Levels]]:
    """For each data unit the levels of its tensors; nothing for raw floats, and where the updates before are needed."""
    for unit in file.bitstream.data_units:
        found: dict[str, Levels] = {}
        with suppress(UpdateError, UnsupportedError):
            found = _of_unit(unit)
        yield found


def _of_unit(unit: DataUnit) -> dict[str, Levels]:
    if unit.header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_RAW_FLOAT:
        return {}
    decoded = decode_levels(unit)
    dependent = unit.header.dq_flag and is_quantized(unit.header) and not unit.header.codebook_present_flag
    arrays = {mark_of(name).tensor: coded.levels for name, coded in decoded.items() if coded.levels.size}
    return {name: histogram(levels, dependent=dependent) for name, levels in arrays.items()}


def histogram(levels: NDArray[np.int32], *, dependent: bool = False) -> Levels:
    """Count levels in at most 64 bins of equal width; the few that are far away are counted together.

    Of ``dependent`` quantization's levels, those of one sign share an integer two by two, and its entropy counts.
    """
    low, high = int(levels.min()), int(levels.max())
    if high - low >= _COUNTABLE:
        return _coarse(levels, low, high)
    counts = np.bincount((levels.reshape(-1) - low).astype(np.intp))
    zeros = int(counts[-low]) if low <= 0 <= high else 0
    coded = _halved(counts, low) if dependent else counts
    return _cut(counts, low)._replace(zeros=zeros, entropy=_entropy(coded))


def _halved(counts: NDArray[np.int64], low: int) -> NDArray[Any]:
    """How often each integer is coded where the parity of a level follows from the state."""
    levels = np.arange(low, low + len(counts))
    integers = np.sign(levels) * ((np.abs(levels) + 1) // 2)
    return np.bincount(integers - integers[0], weights=counts)


def _entropy(counts: NDArray[Any]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return abs(float(-(shares * np.log2(shares)).sum()))


def _cut(counts: NDArray[np.int64], low: int) -> Levels:
    """The bins of single levels put together, without the tails."""
    tail = np.cumsum(counts)
    size = int(tail[-1])
    start, end = (int(np.searchsorted(tail, share * size)) for share in (_TAIL, 1 - _TAIL))
    width = -(-(end + 1 - start) // _BINS)
    bins = np.add.reduceat(counts[start : end + 1], np.arange(0, end + 1 - start, width))
    below = int(tail[start - 1]) if start else 0
    return Levels(low + start, width, tuple(map(int, bins)), below, size - int(tail[end]), 0, 0.0)


def _coarse(levels: NDArray[np.int32], low: int, high: int) -> Levels:
    """Levels that are too far apart to be counted one by one."""
    width = -(-(high + 1 - low) // _BINS)
    places = (levels.reshape(-1).astype(np.int64) - low) // width
    entropy = _entropy(np.unique(levels, return_counts=True)[1])
    zeros = int(np.count_nonzero(levels == 0))
    return Levels(low, width, tuple(map(int, np.bincount(places))), 0, 0, zeros, entropy)
