"""Headers of real bitstreams: what the corpus says of them, and the same bytes when written again.

The corpus lies in the folder that NNC_SHARED names.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from conformance.support.corpus import CORPUS
from nnc_core.bitstream import Bitstream, UnitRecord
from nnc_core.syntax import (
    CompressedDataUnitHeader,
    InputParameters,
    IntegerCodebook,
    TopologyUnitHeader,
    unit,
)
from nnc_core.syntax.unit_types import header_bytes
from nnc_core.tables.code_points import NnrUnitType

CASES = sorted(path.parent for path in CORPUS.glob("*/config.json"))

pytestmark = pytest.mark.skipif(not CASES, reason=f"no test vectors in {CORPUS}; set NNC_SHARED")


def steps(case: Path) -> list[tuple[dict[str, Any], Bitstream, bytes]]:
    found = []
    for step in json.loads((case / "config.json").read_text())["steps"]:
        data = (case / step["bitstream"]).read_bytes()
        found.append((step, Bitstream(data, input_parameters=from_outside(step).get), data))
    return found


def from_outside(step: dict[str, Any]) -> dict[str, InputParameters]:
    known = {name: {"tensor_dimensions": dims} for name, dims in step.get("dimensions_known_from_parent", {}).items()}
    known |= step.get("out_of_band", {})
    return {
        name: InputParameters(tuple(values["tensor_dimensions"]), values.get("cabac_unary_length_minus1"))
        for name, values in known.items()
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_index_and_the_headers_are_those_of_the_corpus(case: Path) -> None:
    for step, bitstream, data in steps(case):
        assert len(bitstream.units) >= len(step["units"])
        for found, told in zip(bitstream.units, step["units"], strict=False):
            assert (found.offset, found.size, NnrUnitType(found.type).name) == (
                told["offset"],
                told["size"],
                told["type"],
            )
            if "payload_offset" in told:
                assert (found.payload_offset, found.payload_size) == (told["payload_offset"], told["payload_size"])
            says = elements(found, bitstream, data)
            assert {name: says[name] for name in told["syntax"]} == told["syntax"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_header_that_is_written_again_gives_the_same_bytes(case: Path) -> None:
    for _, bitstream, data in steps(case):
        for found in bitstream.units:
            again = unit(NnrUnitType(found.type), written(found), bitstream.payload(found))
            assert again == data[found.offset : found.offset + found.size]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_bit_of_a_header_is_in_the_trace(case: Path) -> None:
    for _, bitstream, data in steps(case):
        for found in bitstream.units:
            elements = [element for element in bitstream.trace(found) if element.descriptor != "bs(v)"]
            bits = "".join(element.bits for element in elements)
            header = data[found.offset : found.payload_offset]
            assert int("1" + bits, 2) == int.from_bytes(b"\1" + header, "big")


def written(found: UnitRecord) -> bytes:
    assert found.header is not None
    return header_bytes(found.type, found.header, found.context)


def elements(found: UnitRecord, bitstream: Bitstream, data: bytes) -> dict[str, Any]:
    """All that our records say of a unit, under the names that the corpus uses."""
    says: dict[str, Any] = {
        "nnr_unit_size_flag": data[found.offset] >> 7,
        "independently_decodable_flag": 1,
        "partial_data_counter_present_flag": 0,
        "general_profile_idc": bitstream.general_profile_idc,
        "nnr_reserved_zero_1bit": 0,
        "nnr_reserved_zero_2bits": 0,
        "nnr_reserved_zero_7bits": 0,
    }
    assert bitstream.mps is not None
    says["mps_topology_indexed_reference_flag"] = bitstream.mps.mps_topology_indexed_reference_flag
    says["mps_parent_signalling_enabled_flag"] = bitstream.mps.mps_parent_signalling_enabled_flag
    if found.header is not None:
        says |= asdict(found.header)
    if isinstance(found.header, TopologyUnitHeader):
        says["topology_data"] = bytes(bitstream.payload(found)).decode().removesuffix("\0")
    if isinstance(found.header, CompressedDataUnitHeader):
        says |= data_elements(found.header)
    return says


def data_elements(header: CompressedDataUnitHeader) -> dict[str, Any]:
    names = header.topology_elements_ids_list.topology_elem_id_list
    return {
        "topology_elem_id_list": list(names),
        "count_topology_elements_minus2": len(names) - 2,
        "tensor_dimensions": list(header.tensor_dimensions),
        "count_tensor_dimensions": len(header.tensor_dimensions),
        "parent_node_payload_sha256": f"{header.parent_node_payload_sha256 or 0:#066x}",
        "parent_node_payload_sha512": f"{header.parent_node_payload_sha512 or 0:#0130x}",
        "cabac_entry_point_list": [e.bit_offset << 11 | e.cabac_offset << 3 | e.dq_state for e in header.entry_points],
        **codebook_elements(header.integer_codebook, ""),
        **codebook_elements(header.integer_codebook_h, "_dc"),
    }


def codebook_elements(codebook: IntegerCodebook | None, suffix: str) -> dict[str, Any]:
    if codebook is None:
        return {}
    again = IntegerCodebook.from_values(codebook.values(), codebook.zero_offset)
    assert replace(again, codebook_egk=codebook.codebook_egk) == codebook
    return {
        "codebook_egk" + suffix: codebook.codebook_egk,
        "codebook_size" + suffix: codebook.codebook_size,
        "CbZeroOffset" + suffix: codebook.zero_offset,
        "codebook" + suffix: codebook.values().tolist(),
    }
