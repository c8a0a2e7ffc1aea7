"""NNR_DFL: what topology and quantization units may do to their data (RFC 1950)."""

from __future__ import annotations

import zlib

from nnc_core.errors import ElementValueError, LimitError, TruncatedError, UnitSizeError, UnsupportedError
from nnc_core.syntax.driver import Buffer
from nnc_core.tables.code_points import TopologyCompressionFormat

_RULE = "deflated-data"


_MOST_THOROUGHLY = 1 << 23
"""Bytes for which a search for the shortest stream takes seconds, not minutes."""


def deflate(data: Buffer, *, thorough: bool = False) -> bytes:
    """Compress the data of a topology or quantization unit for NNR_DFL: a zlib stream (RFC 1950).

    ``thorough`` asks the package zopfli, if it is installed and the data are not too large, for a shorter one.
    """
    packed = zlib.compress(data, 9)
    return min(packed, _shortest(data), key=len) if thorough and len(data) <= _MOST_THOROUGHLY else packed


def _shortest(data: Buffer) -> bytes:
    try:
        from zopfli.zlib import compress
    except ModuleNotFoundError:
        return zlib.compress(data, 9)
    return bytes(compress(bytes(data)))


def inflate(
    compression_format: int,
    payload: Buffer,
    most: int,
    unit: int | None = None,
    kind: str = "topology",
    limit: str = "topology_bytes",
) -> bytes:
    """Undo ``topology_compression_format`` (or that of a unit of another ``kind``), up to ``most`` bytes (``limit``).

    `LimitError` if there are more; `TruncatedError` and `UnitSizeError` for a zlib stream that ends too late or too
    early, `UnsupportedError` for an unknown format.
    """
    if compression_format == TopologyCompressionFormat.NNR_PT_RAW:
        data = bytes(payload)
    elif compression_format == TopologyCompressionFormat.NNR_DFL:
        data = _inflate(payload, most, unit, f"{kind}_data")
    else:
        raise UnsupportedError(f"{kind}_compression_format {compression_format}")
    if len(data) > most:
        raise LimitError(limit, len(data), most, f"{kind}_data")
    return data


def _inflate(payload: Buffer, most: int, unit: int | None, element: str) -> bytes:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(payload, most + 1)
    except zlib.error as error:
        raise ElementValueError(str(error), unit=unit, element=element, expected="a zlib stream", rule=_RULE) from None
    if len(data) <= most and not stream.eof:
        raise TruncatedError("the zlib stream has no end", unit=unit, element=element, rule=_RULE)
    if stream.unused_data:
        raise UnitSizeError("bytes follow the zlib stream", unit=unit, element=element, rule=_RULE)
    return data
