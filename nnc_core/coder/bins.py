"""The bins of a data unit's payload, decoded by the readable reference: for people who look into a bitstream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from nnc_core.bitstream import DataUnit
from nnc_core.coder.block import parts
from nnc_core.coder.decoder import qp_bits, shapes
from nnc_core.coder.history import Histories
from nnc_core.entropy.tracing import TracedBin, TracingDecoder
from nnc_core.tables.code_points import PayloadType


class TracedTensor(NamedTuple):
    """A coded tensor and the bins that make it, its quantization parameter first."""

    name: str
    bins: list[TracedBin]


def traced_bins(unit: DataUnit, histories: Histories | None = None) -> Iterator[TracedTensor]:
    """The tensors of a data unit in payload order, each with its bins; nothing for an NNR_PT_RAW_FLOAT.

    Raises as decoding does. Slow: some microseconds per bin.
    """
    if unit.header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_RAW_FLOAT:
        return
    decoder = TracingDecoder(unit.payload)
    for part, (rows, width, parameters, _) in zip(parts(unit), shapes(unit, histories), strict=True):
        first = len(decoder.bins)
        decoder.name_contexts(parameters)
        if qp_bits(unit):
            decoder.iae(qp_bits(unit))
        decoder.tensor(rows, width, parameters)
        yield TracedTensor(part.name, decoder.bins[first:])
    decoder.finish()
