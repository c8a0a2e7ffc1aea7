"""The rows of the conformance suite: described as Part 18 has them, made byte for byte as described, decoded."""

import re

import pytest

from conformance.suite.decoders import Native
from conformance.suite.files import Folder, digest, load
from conformance.suite.generate import Generated
from conformance.suite.procedures import outcomes_of
from conformance.suite.quick import QUICK
from conformance.suite.rows import SUITE, all_rows, selected, updated
from conformance.support.shared import SHARED
from nnc_core.bitstream import Bitstream

ROWS = all_rows()
TABLES = SHARED / "spec" / "conformance-tables.md"


def test_the_suite_has_all_rows_of_both_tables() -> None:
    assert [row.number for row in ROWS if row.table == 1] == list(range(1, 37))
    assert [row.number for row in ROWS if row.table == 2] == list(range(1, 29))
    tables = [row for row in ROWS if row.table < 3]
    assert len({name for row in tables for name in row.files}) == 36 + 4 * 28


@pytest.mark.skipif(not TABLES.is_file(), reason="NNC_SHARED has no conformance tables")
def test_the_rows_are_called_as_in_the_standard() -> None:
    named = re.findall(r"^\| \d+ \| `([^`]+)` \| [^|]+ \| ([^|]+) \| ([^|]+) \|", TABLES.read_text(), re.MULTILINE)
    rows = [row for row in ROWS if row.table < 3]
    assert [(row.id, row.clause, row.feature) for row in rows] == [tuple(map(str.strip, each)) for each in named]


def test_the_suite_is_small_and_says_how_large_it_is() -> None:
    assert sum(sum(row.bytes) for row in ROWS) < 12e6
    assert all(len(row.bytes) == len(row.sha256) == len(row.expected) == len(row.files) for row in ROWS)


def test_rows_of_limited_precision_are_selected_by_platform() -> None:
    assert {row.name for row in selected(ROWS, platform="4bit")} == {"1.28", "1.30"}
    assert {row.number for row in selected(ROWS, platform="8bit")} == {26, 27, 29, *range(31, 37)}


def test_the_small_rows_are_made_byte_for_byte_as_described(quick_suite: tuple[Folder, list[Generated]]) -> None:
    assert [problem for made in quick_suite[1] for problem in made.problems] == []
    assert len(quick_suite[1]) > 15


def test_the_native_decoder_passes_the_small_rows(quick_suite: tuple[Folder, list[Generated]]) -> None:
    outcomes = list(outcomes_of(Native(), QUICK, quick_suite[0]))
    assert [outcome.message for outcome in outcomes if outcome.status != "passed"] == []
    assert all(outcome.described for outcome in outcomes)


def test_what_is_expected_is_what_the_description_says(quick_suite: tuple[Folder, list[Generated]]) -> None:
    for row in QUICK:
        assert tuple(digest(load(quick_suite[0].expected(name))) for name in row.files) == row.expected


def test_the_description_is_updated_in_place() -> None:
    text = SUITE.read_text()
    row = ROWS[0]
    assert updated(text, {row.id: (row.bytes, row.sha256, row.expected)}) == text
    other = updated(text, {row.id: ([1], ["0"], ["f"])})
    assert 'bytes = [1]\nsha256 = ["0"]\nexpected = ["f"]' in other
    assert len(other.splitlines()) == len(text.splitlines())


def test_no_bitstream_depends_on_a_compression_library(quick_suite: tuple[Folder, list[Generated]]) -> None:
    """Blocks of deflate begin with their type: what is there is stored (a last block of type 0), not compressed."""
    compressed = {}
    for row in QUICK:
        for name in row.files if not row.out_of_band else ():
            data = quick_suite[0].stream(name).read_bytes()
            for unit in Bitstream(data).units:
                formats = ("topology_compression_format", "quantization_compression_format")
                if any(getattr(unit.header, each, 0) for each in formats):
                    compressed[f"{name} {unit.index}"] = data[unit.payload_offset :][:3]
    assert set(compressed.values()) == {b"\x78\x01\x01"}
