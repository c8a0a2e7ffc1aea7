"""The arithmetic-coded payload of a data unit: its tensors one after another, in one codeword (clause 10)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.entropy.native import Decoder, Encoder
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.errors import PayloadError, TruncatedError
from nnc_core.syntax.driver import Buffer
from nnc_core.tables.code_points import GeneralProfileIdc
from nnc_core.tables.entry_point import EntryPoint

# The least probable symbol has 2 of at most 511 parts of the range: no bin costs less than 1 / 177 of a bit.
_MOST_BINS_PER_BYTE = 8 * 177


class CodedTensor(NamedTuple):
    """A tensor as the payload has it.

    ``levels`` are int32, rows x width, with dependent quantization undone; ``qp`` is the difference from the base
    quantization parameter, None for integers. ``entry_points`` follow from the rest; an encoder is not told them.
    """

    levels: NDArray[np.int32]
    qp: int | None
    choices: TensorChoices
    entry_points: Sequence[EntryPoint] = ()


class Shape(NamedTuple):
    """The size of a tensor as a matrix, and what the headers say about it."""

    rows: int
    width: int
    parameters: TensorParameters


def decode_payload(payload: Buffer, shapes: Sequence[Shape], qp_bits: int) -> Iterator[CodedTensor]:
    """Read the tensors of a payload, which must end with the last; ``qp_bits`` is 0 where no QP precedes each.

    Raises `PayloadError` or `TruncatedError`, before it takes memory for what so few bytes cannot hold.
    """
    _check_plausible(shapes, len(payload))
    decoder = Decoder(payload)
    for rows, width, parameters in shapes:
        qp = decoder.iae(qp_bits) if qp_bits else None
        levels, choices, entry_points = decoder.tensor(rows, width, parameters)
        yield CodedTensor(levels, qp, choices, entry_points)
    consumed = decoder.finish()
    if consumed != len(payload):
        raise PayloadError(f"{len(payload) - consumed} bytes follow the codeword")


def encode_payload(
    tensors: Sequence[CodedTensor], parameters: Sequence[TensorParameters], qp_bits: int
) -> tuple[bytes, list[list[EntryPoint]]]:
    """Code tensors into a payload; also return the entry points of each. Raises ValueError as `Encoder.tensor`."""
    encoder = Encoder()
    for tensor, p in zip(tensors, parameters, strict=True):
        if tensor.qp is not None:
            encoder.iae(tensor.qp, qp_bits)
        encoder.tensor(tensor.levels, p, tensor.choices)
    payload = encoder.finish()
    return payload, encoder.entry_points


def first_qp(payload: Buffer, qp_bits: int) -> int:
    """The quantization parameter of the first tensor in a payload, as the difference from the base."""
    return Decoder(payload[:16]).iae(qp_bits)


def _check_plausible(shapes: Sequence[Shape], size: int) -> None:
    """Refuse dimensions that ``size`` payload bytes cannot fill, before memory is taken for them."""
    if sum(map(_fewest_bins, shapes)) > _MOST_BINS_PER_BYTE * (size + 8):
        described = " and ".join(f"{shape.rows} x {shape.width}" for shape in shapes)
        raise TruncatedError(f"{described} elements in {size} payload bytes")


def _fewest_bins(shape: Shape) -> int:
    extended = shape.parameters.general_profile_idc == GeneralProfileIdc.EXTENDED
    if extended and shape.parameters.codebook_size == 1:
        return 0
    # A row can be skipped with one bin.
    return shape.rows if extended and min(shape.rows, shape.width) > 1 else shape.rows * shape.width
