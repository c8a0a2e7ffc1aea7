"""Descriptions in bitstreams without the choices of a compression library, whose output is not the same everywhere."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from nnc_core.bitstream import Bitstream
from nnc_core.bitstream.units import UnitRecord
from nnc_core.syntax.quantization import QuantizationUnitHeader
from nnc_core.syntax.topology import TopologyUnitHeader
from nnc_core.syntax.units import unit_prefix
from nnc_core.tables.code_points import TopologyCompressionFormat


def normalized(bitstream: bytes, *, stored: bool = False) -> bytes:
    """The bitstream with descriptions uncompressed, or ``stored`` in zlib streams that compress nothing."""
    return b"".join(_normalized(Bitstream(bitstream), bitstream, stored))


def _normalized(found: Bitstream, bitstream: bytes, stored: bool) -> Iterator[bytes]:
    end = 0
    for unit in found.units:
        if unit.offset < end:  # it stands in an aggregate
            continue
        yield bitstream[end : unit.offset]
        end = unit.offset + unit.size
        yield _description(unit, bytes(found.payload(unit)), stored) or bitstream[unit.offset : end]
    yield bitstream[end:]


def _description(unit: UnitRecord, payload: bytes, stored: bool) -> bytes | None:
    """The unit anew; None where nothing in it is compressed."""
    h = unit.header
    if isinstance(h, TopologyUnitHeader):
        storage_format, compression = h.topology_storage_format, h.topology_compression_format
    elif isinstance(h, QuantizationUnitHeader):
        storage_format, compression = h.quantization_storage_format, h.quantization_compression_format
    else:
        return None
    if compression != TopologyCompressionFormat.NNR_DFL or unit.partial_data_counter:
        return None
    data = zlib.decompress(payload)
    header = bytes([storage_format, compression if stored else TopologyCompressionFormat.NNR_PT_RAW])
    data = _stored(data) if stored else data
    return unit_prefix(unit.type, header, len(data)) + data  # type: ignore[arg-type]


def _stored(data: bytes) -> bytes:
    """A zlib stream (RFC 1950) of one block that is not compressed; at most 65535 bytes."""
    size = len(data)
    block = b"\x01" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + data
    return b"\x78\x01" + block + zlib.adler32(data).to_bytes(4, "big")
