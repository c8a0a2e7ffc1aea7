"""Which tensors take fewer bytes coded than deflated in the topology: not all small ones do, nor such as repeat others.

Deflate finds again what stood up to 32 KiB before, and needs no header for a tensor. So the tensors of a model are
judged in model order, each behind those before it, as they would lie in the topology.
"""

from __future__ import annotations

import math
import zlib
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

import nnc_core
from nnc_adapters.shared.dtypes import INTEGERS, named
from nnc_adapters.shared.lazy import LazyTensors
from nnc_core.coder.planned import unit_sizes
from nnc_core.nnr_model import SourceModel

__all__ = ["Candidate", "paying"]

_BEHIND = 1 << 15  # bytes that deflate looks back; no larger tensor is in doubt
_MANY = 2048  # small tensors that are remembered while others behind them are judged
_SAMPLE, _SAMPLES = 1 << 14, 32  # bytes of a sample, and how many there are of all tensors
_BITS, _BITS_OF_VECTORS, _UNIT = 9, 24, 32  # about what a value takes at most, and bytes of a unit besides

_SURELY = 0.8
"""How much of an estimate by samples can be relied on. Of values that hardly deflate, the estimate is within 1 % of the
truth, and what is coded takes 80 to 95 % of `_most_coded`; the rest allows for copies that stand between samples."""

_CLEARLY = 0.95
"""How much of what a tensor takes deflated can be relied on to be saved where it is not: a share of what all take
together, while those that stay lose a little by having fewer before them."""

_FEW = 8
"""Tensors that cost little more whatever they are: so many units and names take about 200 bytes."""

_WORTH_SEEING = 40
"""Bytes that more of them may take together, about those of one unit, so that they can be seen in the bitstream."""

K = TypeVar("K")


class Candidate(NamedTuple):
    """A tensor that could be coded: its name, the name of its type, its shape, and where its values come from.

    Floats that are not ``exact`` may lose precision. ``described`` is about how many bytes the topology needs to say
    where a coded tensor goes, beyond those that it would need for one that is not coded.
    """

    name: str
    data_type: str
    shape: tuple[int, ...]
    load: Callable[[], NDArray[Any]]
    exact: bool = False
    described: int = 8

    @property
    def size(self) -> int:
        """What the values take in bytes."""
        return math.prod(self.shape) * named(self.data_type).itemsize

    @property
    def is_exact(self) -> bool:
        """Whether every bit counts, as that of all integers does."""
        return self.exact or self.data_type in INTEGERS


def paying(candidates: Mapping[K, Candidate]) -> frozenset[K]:
    """Which of all ``candidates``, in model order, are to be coded: all, unless together they take more bytes so.

    Then those that alone take clearly fewer behind the others; none of the small ones if that is no better. A few
    tensors that may lose precision are coded in any case, and so are large ones, which make up for small ones.
    """
    doubted = {key: each for key, each in candidates.items() if each.size <= _BEHIND}
    few = len(doubted) <= _FEW and not all(each.is_exact for each in doubted.values())
    large = [each for each in candidates.values() if each.size > _BEHIND and not each.is_exact]
    spare = sum(max(0.0, _SURELY * each.size - _most_coded(each)) for each in large)
    if few or spare >= sum(2 * each.size + _most_coded(each) for each in doubted.values()):  # whatever these take
        return frozenset(candidates)
    if (lying := _Lying(tuple(doubted.values()))).clearly_larger():
        return frozenset(candidates)
    return frozenset(candidates) - {key for key, pays in zip(doubted, lying.paying(spare), strict=True) if not pays}


class _Lying:
    """Tensors as they would lie in the topology, one behind the other."""

    def __init__(self, tensors: Sequence[Candidate]) -> None:
        self._tensors = tensors
        self._ends = list(accumulate(each.size for each in tensors))
        self._size = self._ends[-1]
        self._bytes = lru_cache(maxsize=_MANY)(self._loaded)

    def clearly_larger(self) -> bool:
        """Whether samples leave no doubt that deflating the tensors takes more bytes than coding them."""
        step = max(_SAMPLE, self._size // _SAMPLES)
        spans = [(at, min(self._size, at + _SAMPLE)) for at in range(0, self._size, step)]
        deflated = sum(self._deflated(*span, level=1) for span in spans)
        sampled = sum(end - start for start, end in spans)
        return _SURELY * deflated * self._size >= sampled * sum(map(_most_coded, self._tensors))

    def paying(self, spare: float) -> list[bool]:
        """For each tensor, whether it is to be coded, where others have ``spare`` bytes."""
        coded, apart = self._coded(), self._kept()
        together = self._together([True] * len(apart))
        kept = [size * together / sum(apart) for size in apart]
        if sum(coded) <= together + _WORTH_SEEING + spare:
            return [True] * len(kept)
        pays = [code < _CLEARLY * keep for code, keep in zip(coded, kept, strict=True)]
        left = self._together([not each for each in pays])
        if sum(code for code, each in zip(coded, pays, strict=True) if each) + left <= together:
            return pays
        return [False] * len(pays)

    def _coded(self) -> list[float]:
        """About what the tensors take in units, and their descriptions."""
        # names as long as theirs, of which no two are the same
        named = {str(i).rjust(len(each.name)): each for i, each in enumerate(self._tensors)}
        exact = {name: "exact" for name, each in named.items() if each.is_exact}
        model = SourceModel(LazyTensors({name: each.load for name, each in named.items()}), exact=exact)
        sizes = unit_sizes(model, nnc_core.plan(model, threads=1), named, threads=1)
        return [sizes[name] + each.described for name, each in named.items()]

    def _kept(self) -> list[int]:
        """About what each tensor takes deflated behind those before it."""
        starts = (end - each.size for end, each in zip(self._ends, self._tensors, strict=True))
        return [min(end - start, self._deflated(start, end)) for start, end in zip(starts, self._ends, strict=True)]

    def _together(self, wanted: Sequence[bool]) -> int:
        """What the tensors take that are ``wanted``."""
        stream = zlib.compressobj(9)
        chosen = [i for i, each in enumerate(wanted) if each]
        deflated = sum(len(stream.compress(self._bytes(i).tobytes())) for i in chosen) + len(stream.flush())
        return min(deflated, sum(self._tensors[i].size for i in chosen))

    def _deflated(self, start: int, end: int, level: int = 9) -> int:
        """What bytes take behind those that stand before them."""
        before = self._read(max(0, start - _BEHIND), start)
        stream = zlib.compressobj(level, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, before)
        return len(stream.compress(self._read(start, end))) + len(stream.flush())

    def _read(self, start: int, end: int) -> bytes:
        pieces = []
        while start < end:
            index = bisect_right(self._ends, start)
            first = self._ends[index] - self._tensors[index].size
            pieces.append(self._bytes(index)[start - first : end - first].tobytes())
            start += len(pieces[-1])
        return b"".join(pieces)

    def _loaded(self, index: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self._tensors[index].load()).reshape(-1).view(np.uint8)


def _most_coded(tensor: Candidate) -> float:
    """About what a tensor takes at most that pays for being coded."""
    bits = _BITS if len(tensor.shape) > 1 else _BITS_OF_VECTORS
    payload = tensor.size if tensor.is_exact else bits * math.prod(tensor.shape) / 8
    return payload + _UNIT + len(tensor.name) + tensor.described
