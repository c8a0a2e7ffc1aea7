"""Codebooks of integers: reconstruction (clause 9), and their choice by an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nnc_core.entropy.native import Encoder, shift_indices
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.records import dataclass

_MOST_TRIALS: Final = 32
_SAMPLE: Final = 1 << 14


@dataclass(frozen=True, slots=True, eq=False)
class Codebook:
    """Strictly increasing integers (int32) that indices stand for; the index 0 means the entry ``zero_offset``.

    ``egk`` is the order of the code in which the differences between entries are sent; `None` is the shortest.
    """

    values: NDArray[np.int32]
    zero_offset: int
    egk: int | None = None


def reconstruct_codebook(
    levels: NDArray[np.int32], codebook: NDArray[np.int32], zero_offset: int, step: float
) -> NDArray[np.float32]:
    """The values of codebook indices, which count from the entry `zero_offset`; int32 of any shape to float32.

    Raises ValueError for an index outside the codebook.
    """
    indices = levels.astype(np.int64) + zero_offset
    if np.any((indices < 0) | (indices >= len(codebook))):
        raise ValueError(f"indices {indices.min()}..{indices.max()} in a codebook of {len(codebook)} entries")
    with np.errstate(over="ignore"):
        return (step * codebook.astype(np.float64)).astype(np.float32)[indices]


def codebook_of(levels: NDArray[np.int32], cabac_unary_length_minus1: int = 10) -> Codebook:
    """The codebook of all levels that occur (int32, any shape).

    Its zero is the entry with which the indices take the fewest bytes; in a large codebook only entries around the most
    frequent level are tried, and a large tensor is judged by its beginning. The first of equals wins.
    """
    entries, indices, counts = np.unique(levels, return_inverse=True, return_counts=True)
    matrix = indices.reshape(len(levels), -1)
    sample = np.ascontiguousarray(matrix[: max(1, _SAMPLE // matrix.shape[1])], np.int32)
    values, egk = entries.astype(np.int32), _egk(entries)
    books = [Codebook(values, zero, egk) for zero in _zeros(counts)]
    if len(books) == 1:
        return books[0]
    return min(books, key=lambda book: _coded_size(sample, book, cabac_unary_length_minus1))


def _egk(entries: NDArray[Any]) -> int:
    """The order of the exponential-Golomb code in which the differences between entries take the fewest bits."""
    wide = entries.astype(np.int64)
    gaps = wide[1:] - wide[:-1] - 1
    enough = int(gaps.max(initial=0)).bit_length()
    bits = [int((2 * np.frexp((gaps >> k) + 1)[1] - 1 + k).sum()) for k in range(min(15, enough) + 1)]
    return bits.index(min(bits))


def _zeros(counts: NDArray[np.int64]) -> Sequence[int]:
    """The entries that are worth a try as the zero."""
    first = max(0, min(int(counts.argmax()) - _MOST_TRIALS // 2, len(counts) - _MOST_TRIALS))
    return range(first, min(len(counts), first + _MOST_TRIALS))


def _coded_size(entries: NDArray[np.int32], book: Codebook, cabac_unary_length_minus1: int) -> int:
    """How many bytes a tensor (rows x width) takes that chooses these entries of the codebook."""
    indices = entries - np.int32(book.zero_offset)
    parameters = TensorParameters(
        cabac_unary_length_minus1=cabac_unary_length_minus1,
        codebook_size=len(book.values),
        codebook_zero_offset=book.zero_offset,
    )
    found = shift_indices(indices, parameters, TensorChoices())
    encoder = Encoder()
    encoder.tensor(indices, parameters, TensorChoices(shift_indices=found))
    return len(encoder.finish())
