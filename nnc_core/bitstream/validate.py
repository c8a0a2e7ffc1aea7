"""All that is wrong with a bitstream, as far as it shows without decoding tensors (clauses 6.3 and 6.4)."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator
from itertools import zip_longest
from typing import Final

from nnc_core.bitstream.descriptions import in_parts
from nnc_core.bitstream.index import Bitstream
from nnc_core.bitstream.scope import topology_payload
from nnc_core.bitstream.units import UnitRecord, compression_format
from nnc_core.errors import BitstreamError, ElementValueError, UnitOrderError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.stored import StoredBytes
from nnc_core.syntax.context import InputParameters, nothing_known
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.deflate import inflate
from nnc_core.syntax.driver import Buffer
from nnc_core.syntax.layer_parameter_set import LayerParameterSet
from nnc_core.syntax.quantization import QuantizationUnitHeader
from nnc_core.syntax.topology import TopologyUnitHeader
from nnc_core.syntax.units import StartUnitHeader
from nnc_core.tables.code_points import (
    CompressedParameterTypes,
    DecompressedDataFormat,
    NnrUnitType,
    PayloadType,
    TopologyCompressionFormat,
    TopologyStorageFormat,
)

PROFILES: Final = ("2022", "2024", "3gpp")
"""What a bitstream can be held against: the editions, and the draft of a profile for phones."""

_IN_PARTS = (NnrUnitType.NNR_TPL, NnrUnitType.NNR_QNT, NnrUnitType.NNR_NDU)
_DESCRIPTIONS = (NnrUnitType.NNR_TPL, NnrUnitType.NNR_QNT)
_RESERVED_TYPES = range(7, 32)
_RESERVED_FORMATS = {TopologyUnitHeader: range(7, 128), QuantizationUnitHeader: range(5, 128)}
_RESERVED_COMPRESSION = range(2, 128)
WITH_RESERVED_BITS = (NnrUnitType.NNR_MPS, NnrUnitType.NNR_LPS, NnrUnitType.NNR_TPL, NnrUnitType.NNR_AGG)
_FORMATS_2022 = (DecompressedDataFormat.INT32, DecompressedDataFormat.FLOAT32)
_UNITS_3GPP = (NnrUnitType.NNR_STR, NnrUnitType.NNR_MPS, NnrUnitType.NNR_TPL, NnrUnitType.NNR_NDU)

_Check = Callable[[Bitstream], Iterator[BitstreamError]]


def violations(
    data: Buffer | mmap.mmap | StoredBytes,
    limits: Limits | None = None,
    input_parameters: Callable[[str], InputParameters | None] = nothing_known,
    profile: str = "2024",
) -> list[BitstreamError]:
    """Every violation, in bitstream order; ``profile`` is one of `PROFILES`.

    What an update leaves to its base model, such as dimensions, is not a violation. `LimitError` for what exceeds
    ``limits``; `UnsupportedError` for an unknown profile.
    """
    if profile not in PROFILES:
        raise UnsupportedError(f"the profile {profile}")
    found: list[BitstreamError] = []
    bitstream = Bitstream(data, limits, input_parameters, found.append)
    for check in (*_CHECKS, *_PROFILE_CHECKS.get(profile, ())):
        found += check(bitstream)
    if bitstream.mps is not None and bitstream.mps.mps_parent_signalling_enabled_flag:
        found = [error for error in found if error.rule.id != "dimensions-known"]
    return sorted(found, key=lambda error: (error.unit or 0, error.bit_offset or 0))


def _reserved_units(bitstream: Bitstream) -> Iterator[BitstreamError]:
    for unit in bitstream.units:
        if unit.type in _RESERVED_TYPES:
            yield _at(
                bitstream, unit, "reserved-unit-type", f"a unit of the reserved type {unit.type}", "nnr_unit_type"
            )


def _reserved_bits(bitstream: Bitstream) -> Iterator[BitstreamError]:
    for unit in (unit for unit in bitstream.units if unit.type in WITH_RESERVED_BITS):
        for element in bitstream.trace(unit):
            if element.name.startswith("nnr_reserved_zero") and element.value:
                message = f"the value {element.value}"
                yield ElementValueError(
                    message,
                    unit=unit.index,
                    bit_offset=element.bit_offset,
                    element=element.name,
                    expected="0",
                    rule="reserved-bits",
                )


def _parts_of_a_kind(bitstream: Bitstream) -> Iterator[BitstreamError]:
    for unit in bitstream.units:
        if unit.partial_data_counter > 1 and unit.type not in _IN_PARTS:
            yield _at(bitstream, unit, "parts-of-a-kind", "a unit that cannot have parts", "partial_data_counter")


def _storage_formats(bitstream: Bitstream) -> Iterator[BitstreamError]:
    for unit in bitstream.units:
        kind = {TopologyUnitHeader: "topology", QuantizationUnitHeader: "quantization"}.get(type(unit.header))
        if kind is not None:
            storage = getattr(unit.header, f"{kind}_storage_format")
            if storage in _RESERVED_FORMATS[type(unit.header)]:
                yield _at(
                    bitstream, unit, "storage-format", f"the value {storage} is reserved", f"{kind}_storage_format"
                )
            if (compression := compression_format(unit.header)) in _RESERVED_COMPRESSION:
                message, element = f"the value {compression} is reserved", f"{kind}_compression_format"
                yield _at(bitstream, unit, "storage-format", message, element)


def _topology_flag(bitstream: Bitstream) -> Iterator[BitstreamError]:
    for unit in bitstream.units:
        header = unit.header
        own = isinstance(header, TopologyUnitHeader) and header.topology_storage_format in (
            *range(TopologyStorageFormat.NNR_TPL_PRUN),
            TopologyStorageFormat.NNR_TPL_PRUN,
        )
        if own and bitstream.mps is not None and not bitstream.mps.topology_carriage_flag:
            message = "a topology unit although topology_carriage_flag is 0"
            yield _at(bitstream, unit, "topology-announced", message, "nnr_unit_type")
            return


def _late_descriptions(bitstream: Bitstream) -> Iterator[BitstreamError]:
    first = next((unit.index for unit in bitstream.units if unit.type == NnrUnitType.NNR_NDU), len(bitstream.units))
    for unit in bitstream.units[first:]:
        if unit.type in _DESCRIPTIONS:
            yield _at(bitstream, unit, "topology-before-data", "a description after the first NNR_NDU", "nnr_unit_type")


def _lone_layers(bitstream: Bitstream) -> Iterator[BitstreamError]:
    for unit in bitstream.units:
        if isinstance(unit.header, LayerParameterSet) and unit.header.lps_self_contained_flag and unit.within is None:
            message = "a self-contained layer parameter set outside of any aggregate"
            yield _at(bitstream, unit, "self-contained-layer", message, "lps_self_contained_flag")


def _lone_factors(bitstream: Bitstream) -> Iterator[BitstreamError]:
    """A unit with a factor G is followed by one that was read as its H."""
    units = bitstream.data_units
    for g, after in zip_longest(units, units[1:]):
        if g.opens_decomposition and (after is None or not after.closes_decomposition):
            message = "no unit with the factor H follows"
            yield _at(bitstream, g.units[0], "factors-together", message, "compressed_parameter_types")


def _descriptions(bitstream: Bitstream) -> Iterator[BitstreamError]:
    """What is wrong inside of topology and quantization units; reference lists have been read before."""
    for kind in _DESCRIPTIONS:
        for parts in in_parts(unit for unit in bitstream.units if unit.type == kind):
            error = _description(bitstream, parts)
            if error is not None:
                yield error


def _description(bitstream: Bitstream, parts: tuple[UnitRecord, ...]) -> BitstreamError | None:
    try:
        _read_description(bitstream, parts)
    except BitstreamError as error:
        error.bit_offset = error.bit_offset or 8 * (parts[0].payload_offset - parts[0].offset)
        return error
    except UnsupportedError:
        return None  # a reserved or private format, which says nothing of its data
    return None


def _read_description(bitstream: Bitstream, parts: tuple[UnitRecord, ...]) -> None:
    header, context = parts[-1].header, parts[-1].context
    storage = header.topology_storage_format if isinstance(header, TopologyUnitHeader) else None
    if isinstance(header, TopologyUnitHeader) and storage == TopologyStorageFormat.NNR_TPL_PRUN:
        topology_payload([bitstream.payload(*parts)], parts[-1], header, context)
    elif header is not None and storage != TopologyStorageFormat.NNR_TPL_REFLIST:
        kind = "topology" if isinstance(header, TopologyUnitHeader) else "quantization"
        if compression_format(header) == TopologyCompressionFormat.NNR_DFL:
            most = context.limits.topology_bytes
            inflate(TopologyCompressionFormat.NNR_DFL, bitstream.payload(*parts), most, parts[0].index, kind)


def _edition_2022(bitstream: Bitstream) -> Iterator[BitstreamError]:
    for unit in bitstream.units:
        header = unit.header
        if isinstance(header, StartUnitHeader) and header.general_profile_idc != 0:
            message = f"the value {header.general_profile_idc}"
            yield _at(bitstream, unit, "edition-2022", message, "general_profile_idc")
        elif isinstance(header, CompressedDataUnitHeader):
            data_format = header.nnr_decompressed_data_format
            if data_format is not None and data_format not in _FORMATS_2022:
                message = f"the value {data_format}"
                yield _at(bitstream, unit, "edition-2022", message, "nnr_decompressed_data_format")


def _draft_3gpp(bitstream: Bitstream) -> Iterator[BitstreamError]:
    for unit in bitstream.units:
        header = unit.header
        if unit.type not in _UNITS_3GPP:
            yield _at(bitstream, unit, "draft-3gpp", f"a unit of type {unit.type}", "nnr_unit_type")
        elif unit.partial_data_counter > 1:
            yield _at(bitstream, unit, "draft-3gpp", "a unit in several parts", "partial_data_counter")
        elif isinstance(header, CompressedDataUnitHeader):
            yield from _data_unit_3gpp(bitstream, unit, header)


def _data_unit_3gpp(
    bitstream: Bitstream, unit: UnitRecord, header: CompressedDataUnitHeader
) -> Iterator[BitstreamError]:
    block = header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_BLOCK
    if header.compressed_parameter_types & CompressedParameterTypes.NNR_CPT_DC:
        yield _at(bitstream, unit, "draft-3gpp", "a decomposed tensor", "compressed_parameter_types")
    if header.nnr_multiple_topology_elements_present_flag and not block:
        message = "tensors that are cut out of another one"
        yield _at(bitstream, unit, "draft-3gpp", message, "nnr_multiple_topology_elements_present_flag")


def _at(bitstream: Bitstream, unit: UnitRecord, rule: str, message: str, element: str) -> UnitOrderError:
    places = {traced.name: traced.bit_offset for traced in bitstream.trace(unit)}
    return UnitOrderError(message, unit=unit.index, bit_offset=places.get(element, 0), element=element, rule=rule)


_CHECKS: tuple[_Check, ...] = (
    _reserved_units,
    _reserved_bits,
    _parts_of_a_kind,
    _storage_formats,
    _topology_flag,
    _late_descriptions,
    _lone_layers,
    _lone_factors,
    _descriptions,
)
_PROFILE_CHECKS: dict[str, tuple[_Check, ...]] = {"2022": (_edition_2022,), "3gpp": (_draft_3gpp,)}
