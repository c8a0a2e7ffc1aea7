"""Integers that are kept from one update to the next, as small as the coder makes them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.entropy.native import Decoder, Encoder
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.errors import PayloadError

__all__ = ["Packed", "packed", "unpacked"]

_PLAIN = TensorParameters()


class Packed(NamedTuple):
    """A payload (NNR_PT_INT, without any context from elsewhere) of ``rows`` x ``width`` integers."""

    rows: int
    width: int
    payload: bytes


def packed(integers: NDArray[np.int32]) -> Packed:
    """Pack a matrix of int32."""
    rows, width = integers.shape
    encoder = Encoder()
    skip = min(rows, width) > 1 and not integers.any(axis=1).all()
    encoder.tensor(np.ascontiguousarray(integers), _PLAIN, TensorChoices(row_skip_enabled_flag=skip))
    return Packed(rows, width, encoder.finish())


def unpacked(kept: Packed) -> NDArray[np.int32]:
    """The matrix that was packed; a `BitstreamError` where the payload is damaged."""
    decoder = Decoder(kept.payload)
    integers = decoder.tensor(kept.rows, kept.width, _PLAIN).levels
    if decoder.finish() != len(kept.payload):
        raise PayloadError("bytes follow the codeword")
    return integers
