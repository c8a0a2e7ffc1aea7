"""Whatever is wrong with a bitstream is reported with unit, bit offset and syntax element."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest

import nnc_core
from conformance.support import handmade
from nnc_core.bitstream import Bitstream
from nnc_core.errors import BitstreamError
from nnc_core.nnr_model import Topology
from nnc_core.syntax import (
    CompressedDataUnitHeader,
    SyntaxContext,
    TopologyElementsIdsList,
    Writer,
    nnr_compressed_data_unit_header,
    unit,
)
from nnc_core.tables.code_points import NnrUnitType, PayloadType, TopologyStorageFormat

STR = bytes.fromhex("00040200")
MPS = bytes.fromhex("0008068100400080")
INDEXED_MPS = bytes.fromhex("0008068180400080")
UNQUANTIZED_MPS = bytes.fromhex("000606800080")
TPL = bytes.fromhex("00060e000000")
KNOWN = nnc_core.InputParameters((2, 3))
NAMES = b"\x80\x80a\0b\0"


def reference_list(payload: bytes, compression: int = 0) -> bytes:
    return unit(NnrUnitType.NNR_TPL, bytes([TopologyStorageFormat.NNR_TPL_REFLIST, compression]), payload)


def data_unit(payload: bytes = b"\x12\x34", counter: int = 0, *, indexed: bool = False, **fields: object) -> bytes:
    writer = Writer()
    header = CompressedDataUnitHeader(
        **{"topology_elem_id": "w", "topology_elem_id_index": 0, "tensor_dimensions": (2, 3), **fields}
    )
    ctx = SyntaxContext(0, mps_topology_indexed_reference_flag=indexed, topology_elements=("v", "w"))
    nnr_compressed_data_unit_header(writer, header, replace(ctx, input_parameters=lambda name: KNOWN))
    return unit(NnrUnitType.NNR_NDU, writer.data(), payload, counter)


SEVERAL = {
    "nnr_multiple_topology_elements_present_flag": True,
    "input_parameters_present_flag": False,
    "topology_elements_ids_list": TopologyElementsIdsList(("v", "w"), (0, 1)),
}
RAW = {"nnr_compressed_data_unit_payload_type": PayloadType.NNR_PT_RAW_FLOAT}


@pytest.mark.parametrize(
    ("data", "index", "bit_offset", "element"),
    [
        (MPS, 0, 16, "nnr_unit_type"),
        (STR + STR, 1, 16, "nnr_unit_type"),
        (STR + b"\x80\0\0\x06\2\0", 1, 32, "nnr_unit_type"),
        (STR + MPS + MPS, 2, 16, "nnr_unit_type"),
        (STR + data_unit(), 1, 16, "nnr_unit_type"),
        (bytes.fromhex("0005020000"), 0, 1, "nnr_unit_size"),
        (STR + bytes.fromhex("0009068100400080ff"), 1, 1, "nnr_unit_size"),
        (STR + UNQUANTIZED_MPS + data_unit(), 2, 24, "nnr_compressed_data_unit_payload_type"),
        (STR + MPS + data_unit() + data_unit(), 3, 32, "topology_elem_id"),
        (STR + MPS + data_unit(bytes(23), **RAW), 2, 1, "nnr_unit_size"),
        (STR + MPS + data_unit(counter=2) + TPL, 3, 16, "nnr_unit_type"),
        (STR + MPS + data_unit(counter=3) + data_unit(counter=1), 3, 24, "partial_data_counter"),
        (
            STR + MPS + data_unit(counter=2) + data_unit(counter=1, dq_flag=True),
            3,
            32,
            "nnr_compressed_data_unit_payload_type",
        ),
        (STR + MPS + data_unit(counter=2), 3, 0, "nnr_unit_size"),
        (STR + INDEXED_MPS + data_unit(indexed=True), 2, 32, "topology_elem_id_index"),
        (STR + INDEXED_MPS + reference_list(b"\x80\x80a\0\xff\0"), 2, 72, "topology_elem_id_list[1]"),
        (STR + INDEXED_MPS + reference_list(b"\x80\x81a\0b\0"), 2, 48, "byte_alignment"),
        (STR + INDEXED_MPS + reference_list(zlib.compress(b"\x80\x81a\0b\0"), 1), 2, 40, "byte_alignment"),
        (STR + INDEXED_MPS + reference_list(NAMES + b"c\0"), 2, 40, "topology_elem_id_list"),
        (STR + INDEXED_MPS + reference_list(b"no zlib", 1), 2, 40, "topology_data"),
    ],
)
def test_a_violation_between_units_is_reported_with_its_place(
    data: bytes, index: int, bit_offset: int, element: str
) -> None:
    with pytest.raises(BitstreamError) as caught:
        Bitstream(data)
    assert (caught.value.unit, caught.value.bit_offset, caught.value.element) == (index, bit_offset, element)


@pytest.mark.parametrize(
    ("indexed", "bit_offset", "element"), [(False, 64, "topology_elem_id"), (True, 48, "topology_elem_id_index")]
)
def test_a_name_that_is_used_twice_is_reported_where_it_stands_in_the_list(
    indexed: bool, bit_offset: int, element: str
) -> None:
    names = STR + (INDEXED_MPS + reference_list(b"\x80\x80v\0w\0") if indexed else MPS)
    one = data_unit(indexed=indexed, topology_elem_id_index=1)
    with pytest.raises(BitstreamError, match="coded twice") as caught:
        Bitstream(names + one + data_unit(indexed=indexed, **SEVERAL), input_parameters=lambda name: KNOWN)
    assert caught.value.element == f"{element}_list[1]"
    assert caught.value.tensor == "w"
    assert caught.value.bit_offset == bit_offset


LEVELS = np.array([[1, -2, 3], [0, 5, 0]], np.int32)
PAYLOAD = handmade.payload_of(LEVELS)


@pytest.mark.parametrize(
    ("payload", "header", "bit_offset", "element"),
    [
        (PAYLOAD + b"\0", {}, None, "nnr_compressed_data_unit_payload"),
        (PAYLOAD[:-1], {}, None, "nnr_compressed_data_unit_payload"),
        (b"\xff" * 9, {}, None, "nnr_compressed_data_unit_payload"),
        (
            handmade.payload_of(LEVELS * 1000, None),
            {
                "nnr_compressed_data_unit_payload_type": PayloadType.NNR_PT_INT,
                "nnr_decompressed_data_format_present_flag": True,
                "nnr_decompressed_data_format": 5,
            },
            50,
            "nnr_decompressed_data_format",
        ),
    ],
)
def test_a_damaged_payload_is_reported_with_its_place(
    payload: bytes, header: dict[str, object], bit_offset: int | None, element: str
) -> None:
    data = handmade.one_unit(payload, LEVELS.shape, **header)
    record = Bitstream(data).units[2]
    with pytest.raises(BitstreamError) as caught:
        nnc_core.decode(data)
    assert (caught.value.unit, caught.value.tensor, caught.value.element) == (2, "w", element)
    places = {traced.name: traced.bit_offset for traced in Bitstream(data).trace(record)}
    assert caught.value.bit_offset == places.get(element, 8 * (record.payload_offset - record.offset))
    assert bit_offset in (None, caught.value.bit_offset)


# --- units with a counter that says they are whole --------------------------------------------------------------------


@pytest.mark.parametrize("counter", [0, 1])
def test_a_description_that_is_its_own_last_part_is_read(counter: int) -> None:
    topology = unit(NnrUnitType.NNR_TPL, b"\1\0", b"graph", counter)
    quantization = unit(NnrUnitType.NNR_QNT, b"\1\0", b"quant", counter)
    names = unit(NnrUnitType.NNR_TPL, b"\6\0", NAMES, counter)
    bitstream = Bitstream(STR + INDEXED_MPS + topology + quantization + names)
    assert bitstream.topology == Topology(TopologyStorageFormat.NNR_TPL_NNEF, b"graph", b"quant")


@pytest.mark.parametrize("data", [b"\0", b""])
def test_a_description_of_a_lone_zero_byte_is_told_from_none(data: bytes) -> None:
    topology = Topology(TopologyStorageFormat.NNR_TPL_NNEF, data, data, data)
    assert nnc_core.NnrFile(nnc_core.encode({}, topology=topology)).topology == topology
