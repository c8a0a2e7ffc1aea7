"""Names in one compressed list, to which data units refer by index: smaller where names are a large share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from nnc_core.bitstream.descriptions import smallest
from nnc_core.bitstream.index import Bitstream
from nnc_core.bitstream.units import UnitRecord
from nnc_core.limits import Limits
from nnc_core.syntax.context import InputParameters, nothing_known
from nnc_core.syntax.data_unit import CompressedDataUnitHeader, with_references
from nnc_core.syntax.driver import Buffer
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.syntax.topology import TopologyElementsIdsList, TopologyUnitHeader, TopologyUnitPayload
from nnc_core.syntax.unit_types import header_bytes, payload_bytes
from nnc_core.syntax.units import unit
from nnc_core.tables.code_points import NnrUnitType, TopologyStorageFormat

_LEAST: Final = 2
"""A reference list has at least two names."""
_NAMELESS: Final = (NnrUnitType.NNR_STR, NnrUnitType.NNR_TPL, NnrUnitType.NNR_QNT, NnrUnitType.NNR_LPS)


def with_reference_list(
    data: Buffer,
    limits: Limits | None = None,
    input_parameters: Callable[[str], InputParameters | None] = nothing_known,
) -> Buffer:
    """The same bitstream with its names in a reference list; ``data`` itself where that is not smaller.

    That is also where units refer by index already, stand in aggregates, or tell what was pruned. Nothing is decoded.
    Raises what `Bitstream` raises.
    """
    bitstream = Bitstream(data, limits, input_parameters)
    names = tuple(bitstream.tensors)
    if len(names) < _LEAST or not all(map(_can_change, bitstream.units)):
        return data
    view, indices = memoryview(data).cast("B"), {name: index for index, name in enumerate(names)}
    changed = (_changed(u, view[u.offset : u.offset + u.size], names, indices) for u in bitstream.units)
    shorter = b"".join(changed)
    return shorter if len(shorter) < len(view) else data


def _can_change(found: UnitRecord) -> bool:
    header = found.header
    if isinstance(header, ModelParameterSet):
        return not header.mps_topology_indexed_reference_flag
    if isinstance(header, TopologyUnitHeader):
        return header.topology_storage_format != TopologyStorageFormat.NNR_TPL_PRUN
    return isinstance(header, CompressedDataUnitHeader) or found.type in _NAMELESS


def _changed(found: UnitRecord, raw: memoryview, names: tuple[str, ...], indices: dict[str, int]) -> Buffer:
    """A unit as it is with references by index; the reference list follows the model parameter set."""
    context = replace(found.context, mps_topology_indexed_reference_flag=True, topology_elements=names)
    if isinstance(found.header, ModelParameterSet):
        header = replace(found.header, mps_topology_indexed_reference_flag=True)
        return unit(NnrUnitType.NNR_MPS, header_bytes(found.type, header, context)) + _reference_list(names, found)
    if isinstance(found.header, CompressedDataUnitHeader):
        coded = header_bytes(found.type, with_references(found.header, indices), context)
        payload = raw[found.payload_offset - found.offset :]
        return unit(NnrUnitType.NNR_NDU, coded, payload, found.partial_data_counter)
    return raw


def _reference_list(names: tuple[str, ...], found: UnitRecord) -> bytes:
    header = TopologyUnitHeader(TopologyStorageFormat.NNR_TPL_REFLIST)
    payload = TopologyUnitPayload(TopologyElementsIdsList(names))
    coded = payload_bytes(NnrUnitType.NNR_TPL, payload, header, found.context)
    header.topology_compression_format, data = smallest(coded)
    return unit(NnrUnitType.NNR_TPL, header_bytes(NnrUnitType.NNR_TPL, header, found.context), data)
