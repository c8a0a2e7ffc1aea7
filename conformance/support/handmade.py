"""Bitstreams that no encoder would write, made record by record."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_core.bitstream import Bitstream, BitstreamWriter
from nnc_core.entropy.native import Encoder
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.limits import Limits
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.model_parameter_set import ModelParameterSet

QP_DENSITY = 2
QP_BITS = 6 + QP_DENSITY


def bitstream(units: Iterable[tuple[CompressedDataUnitHeader, bytes]], profile: int = 1) -> bytes:
    """Start unit, parameter set, and the data units as they are given."""
    stream = io.BytesIO()
    mps = ModelParameterSet(mps_quantization_method_flags=1, mps_qp_density=QP_DENSITY, mps_quantization_parameter=0)
    writer = BitstreamWriter(stream, mps, profile, Limits(tensor_elements=1 << 200), sink=lambda violation: None)
    for header, payload in units:
        writer.data_unit(header, payload)
    return stream.getvalue()


def one_unit(payload: bytes, shape: tuple[int, ...], profile: int = 1, **header: Any) -> bytes:
    """A bitstream with one data unit, for a tensor called ``w``."""
    record = CompressedDataUnitHeader(topology_elem_id="w", tensor_dimensions=shape, **header)
    return bitstream([(record, payload)], profile)


def payload_of(levels: NDArray[np.int32], qp: int | None = 0, *, qp_bits: int = QP_BITS, **parameters: Any) -> bytes:
    """Arithmetic-coded integers (rows x width), for the parameters that a header has by default."""
    encoder = Encoder()
    if qp is not None:
        encoder.iae(qp, qp_bits)
    encoder.tensor(levels, TensorParameters(**{"cabac_unary_length_minus1": 9, **parameters}), TensorChoices())
    return encoder.finish()


def with_garbage(data: bytes, spared: str) -> bytes:
    """The same bitstream, but with ones in the payloads of all tensors except ``spared``."""
    damaged = bytearray(data)
    for unit in Bitstream(data).units:
        if unit.names and spared not in unit.names:
            damaged[unit.payload_offset : unit.payload_offset + unit.payload_size] = b"\xff" * unit.payload_size
    return bytes(damaged)
