"""Topology units: header, payload, and the list of tensor names that data units may refer to."""

from __future__ import annotations

import zlib

from nnc_core.errors import ElementValueError, LimitError, TruncatedError, UnitSizeError, UnsupportedError
from nnc_core.syntax.elements import Buffer, Syntax, padded
from nnc_core.syntax.records import SyntaxContext, TopologyElementsIdsList, TopologyUnitHeader, TopologyUnitPayload
from nnc_core.tables.code_points import TopologyCompressionFormat, TopologyStorageFormat


def nnr_topology_unit_header(s: Syntax, h: TopologyUnitHeader) -> None:
    """``nnr_topology_unit_header()``."""
    h.topology_storage_format = s.u(8, "topology_storage_format", h.topology_storage_format)
    h.topology_compression_format = s.u(8, "topology_compression_format", h.topology_compression_format)


def topology_elements_ids_list(s: Syntax, ids: TopologyElementsIdsList, indexed: bool, ctx: SyntaxContext) -> None:
    """``topology_elements_ids_list()``: at least two names, or indices in their place."""
    given = len(ids.topology_elem_id_index_list if indexed else ids.topology_elem_id_list)
    count = 2 + s.ue(7, "count_topology_elements_minus2", given - 2)
    s.expect(count, 8, "count_topology_elements_minus2")
    ctx.limits.check("units", count, "count_topology_elements_minus2")
    if indexed:
        indices = padded(ids.topology_elem_id_index_list, count, 0)
        ids.topology_elem_id_index_list = tuple(
            [s.ue(7, f"topology_elem_id_index_list[{j}]", index) for j, index in enumerate(indices)]
        )
        s.byte_alignment()
    else:
        s.byte_alignment()
        longest = ctx.limits.name_length
        names = padded(ids.topology_elem_id_list, count, "")
        ids.topology_elem_id_list = tuple(
            [s.st(f"topology_elem_id_list[{j}]", name, longest) for j, name in enumerate(names)]
        )


def nnr_topology_unit_payload(s: Syntax, p: TopologyUnitPayload, h: TopologyUnitHeader, ctx: SyntaxContext) -> None:
    """``nnr_topology_unit_payload()``, of data that are not compressed (any more)."""
    if h.topology_storage_format == TopologyStorageFormat.NNR_TPL_PRUN:
        raise UnsupportedError("nnr_pruning_topology_container")
    if h.topology_storage_format == TopologyStorageFormat.NNR_TPL_REFLIST:
        topology_elements_ids_list(s, p.topology_elements_ids_list, False, ctx)
    else:
        p.topology_data = s.bs("topology_data", p.topology_data)


def deflate(data: Buffer) -> bytes:
    """Compress the data of a topology or quantization unit for NNR_DFL: a zlib stream (RFC 1950)."""
    return zlib.compress(data, 9)


def inflate(
    compression_format: int, payload: Buffer, most: int, unit: int | None = None, kind: str = "topology"
) -> bytes:
    """Undo ``topology_compression_format`` (or that of a unit of another ``kind``), up to ``most`` bytes.

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
        raise LimitError("topology_bytes", len(data), most, f"{kind}_data")
    return data


def _inflate(payload: Buffer, most: int, unit: int | None, element: str) -> bytes:
    stream = zlib.decompressobj()
    try:
        data = stream.decompress(payload, most + 1)
    except zlib.error as error:
        raise ElementValueError(str(error), unit=unit, element=element, expected="a zlib stream") from None
    if len(data) <= most and not stream.eof:
        raise TruncatedError("the zlib stream has no end", unit=unit, element=element)
    if stream.unused_data:
        raise UnitSizeError("bytes follow the zlib stream", unit=unit, element=element)
    return data
