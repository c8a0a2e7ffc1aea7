"""Which tensors of a model are coded; the others stay as they are, in the topology."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.base import Options
from nnc_adapters.shared.dtypes import FLOATS, INTEGERS
from nnc_adapters.shared.thrift import Candidate, paying
from nnc_core.planner.exactness import worth_coding

__all__ = ["SMALLEST_FLOATS", "SMALLEST_INTEGERS", "Selection", "fits"]

SMALLEST_FLOATS = 16
SMALLEST_INTEGERS = 256

_MOST = (1 << 31) - 1
# Types whose values are all within what the codec can express.
_ALWAYS_FIT = (FLOATS | INTEGERS) - {"float64", "int32", "uint32", "int64"}
_FEW_BYTES, _WORTH_SEEING, _ALL_WORTH_SEEING = 4096, 64, 96
_UNIT = 64  # bytes that a tensor of few numbers needs besides these: for its unit, and its description
# How much of a tensor is looked at for infinities, so that models are not read before they are coded.
_LARGE, _RUNS, _RUN = 1 << 16, 4, 1 << 12
# What has more elements is no mask of anything; it is not read.
_LARGEST_MASK = 1 << 24
# How many values are looked at together, so that a large tensor in a file does not have to fit into memory.
_PIECE = 1 << 20

K = TypeVar("K")


class Selection:
    """Decides which tensors of one model are coded, where nobody has ``chosen`` them; asked for each in model order.

    `takes` judges each alone, which is enough for a few tensors; `paying` then judges all small ones together.
    Few floats that are exact stay tensors even if they take a little more: they can be seen there. But a model with
    many of them, such as the scales of all its layers, does not become larger by more than ``_ALL_WORTH_SEEING`` bytes.
    """

    def __init__(self, options: Options) -> None:
        self._only, self._all_floats = options.only, options.all_floats
        self._left = _ALL_WORTH_SEEING

    def takes(self, data_type: str, elements: int, load: Callable[[], NDArray[Any]], *, exact: bool = False) -> bool:
        """Whether a tensor leaves the topology: numbers, enough of them, within the codec's range, and smaller there.

        ``data_type`` is a name of numpy or ml_dtypes; ``load`` is called only where the values decide. Floats that are
        not ``exact`` may lose precision.
        """
        smallest = 1 if self._all_floats else SMALLEST_FLOATS
        many_floats = data_type in FLOATS and elements >= smallest
        enough = many_floats or (data_type in INTEGERS and elements >= SMALLEST_INTEGERS)
        if self._only or not enough or not fits(data_type, load):
            return False
        exact = exact or data_type in INTEGERS
        return (not exact and elements > _LARGEST_MASK) or self.costs_less(load, exact=exact)

    def costs_less(self, load: Callable[[], NDArray[Any]], *, exact: bool) -> bool:
        """Whether a tensor that is coded takes fewer bytes than in the topology, or not many more.

        What is quantized does. Numbers that must be ``exact`` are compared, and so are masks, by their infinities; no
        other values decide before all tensors are known, see `paying`. With ``all_floats`` all are tensors in any case.
        """
        if self._all_floats:
            return True
        array = load()
        if not (exact or _is_mask(array)) or worth_coding(array):
            return True
        return array.dtype.kind not in "iu" and array.nbytes <= _FEW_BYTES and self._affords(array)

    def paying(self, candidates: Mapping[K, Candidate]) -> frozenset[K]:
        """Which of those that it takes, all in model order, are to be coded: see `nnc_adapters.shared.thrift`."""
        return frozenset(candidates) if self._all_floats else paying(candidates)

    def _affords(self, array: NDArray[Any]) -> bool:
        deflated = len(zlib.compress(array.tobytes()))
        more = array.nbytes + _UNIT - deflated
        afforded = deflated + _WORTH_SEEING >= array.nbytes and more <= self._left
        self._left -= more if afforded else 0
        return afforded


def _is_mask(array: NDArray[Any]) -> bool:
    """Whether more than one value in 16 is infinite or not a number; of large tensors a sample is looked at."""
    if array.dtype.kind in "iu":
        return False
    flat = array.reshape(-1)
    starts = [0] if flat.size <= _LARGE else [k * (flat.size - _RUN) // (_RUNS - 1) for k in range(_RUNS)]
    with np.errstate(over="ignore", invalid="ignore"):
        looked_at = [flat[at : at + (_RUN if len(starts) > 1 else _LARGE)].astype(np.float32) for at in starts]
        return 16 * sum(int(np.count_nonzero(~np.isfinite(run))) for run in looked_at) > sum(map(len, looked_at))


def fits(data_type: str, load: Callable[[], NDArray[Any]]) -> bool:
    """Whether the values of a tensor are finite float32, or integers within +-(2**31 - 1), where there is a doubt."""
    if data_type in _ALWAYS_FIT:
        return True
    flat = load().reshape(-1)
    return all(_fits(flat[at : at + _PIECE]) for at in range(0, flat.size, _PIECE))


def _fits(values: NDArray[Any]) -> bool:
    if values.dtype.kind in "iu":
        return bool(values.min() >= -_MOST and values.max() <= _MOST)
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.astype(np.float32)).all())
