"""The tensor between a model and its coder: values, or levels and what they stand for (ISO/IEC 15938-18, Table 6)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.codebook import Codebook, reconstruct_codebook
from nnc_core.approximator.native import quantize_dependent, quantize_uniform, reconstruct
from nnc_core.approximator.step import step_size
from nnc_core.records import dataclass
from nnc_core.tables.blocks import Member


@dataclass(frozen=True, slots=True, eq=False)
class Approximation:
    """A tensor on its way: ``values`` are floats as they are, or integers.

    With a ``qp`` they are integers that stand for multiples of the step or, with a ``codebook``, for its entries,
    counted from its zero. Without, integers mean themselves. ``dq_flag`` tells that the integers are on the lattice of
    dependent quantization in ``scan_order``.
    """

    values: NDArray[Any]
    qp: int | None = None
    dq_flag: bool = False
    scan_order: int = 0
    codebook: Codebook | None = None

    @property
    def is_quantized(self) -> bool:
        """Whether the integers stand for something else."""
        return self.qp is not None

    @property
    def is_integer(self) -> bool:
        """Whether the values are integers that mean themselves."""
        return self.qp is None and self.values.dtype.kind == "i"

    def matrix(self) -> NDArray[Any]:
        """The values as the coder sees them: rows x width, C-contiguous, the first dimension being the rows."""
        return np.ascontiguousarray(self.values.reshape(len(self.values), -1))


Members = Mapping[Member, Approximation]
"""The tensors of a block; a lone tensor is its weight."""


def without(block: Members, *members: Member) -> dict[Member, Approximation]:
    """The block without these members."""
    return {member: tensor for member, tensor in block.items() if member not in members}


def quantized(
    values: NDArray[np.float32],
    qp: int,
    qp_density: int,
    dq_flag: bool = False,
    scan_order: int = 0,
    lambda_scale: float = 0.0,
) -> Approximation:
    """Quantize float32 values of at least one dimension uniformly, or dependently in ``scan_order``.

    With ``lambda_scale`` (Part 18, Table 8) above 0, bits count as well as errors. Raises ValueError for values that
    are not finite, or too large for the step.
    """
    step = step_size(qp, qp_density)
    whole = Approximation(values, qp, dq_flag, scan_order)
    quantize = quantize_dependent if dq_flag else quantize_uniform
    return replace(whole, values=quantize(whole.matrix(), step, scan_order, lambda_scale).reshape(values.shape))


def with_codebook(approximation: Approximation, codebook: Codebook) -> Approximation:
    """The same uniformly quantized tensor, with its levels as indices into a codebook that has them all."""
    indices = np.searchsorted(codebook.values, approximation.values).astype(np.int32) - codebook.zero_offset
    return replace(approximation, values=indices.astype(np.int32), dq_flag=False, codebook=codebook)


def reconstructed(approximation: Approximation, qp_density: int) -> Approximation:
    """What a decoder makes of the integers, float32; others stay as they are (clause 9)."""
    if approximation.qp is None:
        return approximation
    step, levels = step_size(approximation.qp, qp_density), np.ascontiguousarray(approximation.values)
    if (book := approximation.codebook) is None:
        return Approximation(reconstruct(levels, step))
    return Approximation(reconstruct_codebook(levels, book.values, book.zero_offset, step))
