"""Every syntax element that a table names is written and read by some test, and has a field or a place of its own."""

from __future__ import annotations

from random import Random

from conformance.fuzz.seeds import handmade
from conformance.suite.elements import named_in_tables
from conformance.support import every_unit
from conformance.unit.test_bitstream_sequences import LIMITS, Sequence
from nnc_core.bitstream import Bitstream


def traced_in(data: bytes) -> set[str]:
    bitstream = Bitstream(data, LIMITS)
    return {element.name.partition("[")[0] for unit in bitstream.units for element in bitstream.trace(unit)}


def test_the_tables_name_elements_as_the_standard_does() -> None:
    names = named_in_tables()
    assert {"nnr_unit_size", "general_profile_idc", "mps_qp_density", "lps_qp_density", "topology_elem_id"} <= names
    assert {"bit_offset_delta1", "spm_count_thresholds", "count_ids", "num_of_nnr_units_minus2"} <= names
    assert len(names) > 110


def test_every_element_of_every_table_is_exercised() -> None:
    traced = set[str]()
    for _, data in every_unit.bitstreams():
        traced |= traced_in(data)
    for seed in handmade():
        traced |= traced_in(seed.data)
    for number in range(40):
        traced |= traced_in(Sequence(Random(number)).write())
    assert named_in_tables() - traced == set()
