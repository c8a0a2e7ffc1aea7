"""The bitstreams of the suite exercise every element, code point, context and branch, or there is a reason."""

import json

import pytest

from conformance.suite.cli import main
from conformance.suite.coverage import REASONS, Coverage, covered
from conformance.suite.elements import code_points, named_in_tables
from conformance.suite.files import Folder
from conformance.suite.generate import Generated
from conformance.suite.quick import QUICK
from nnc_core.bitstream.validate import violations

ENOUGH = [
    row for row in QUICK if row.table == 3 or row.name in ("1.2", "1.5", "1.8", "1.11", "1.15", "1.17", "1.25", "2.24")
]
Suite = tuple[Folder, list[Generated]]


@pytest.fixture(scope="module")
def coverage(quick_suite: Suite) -> Coverage:
    return covered(ENOUGH, quick_suite[0])


def test_nothing_is_unexercised_without_a_reason(coverage: Coverage) -> None:
    assert coverage.missing() == []


def test_the_reasons_are_needed(coverage: Coverage) -> None:
    described = coverage.described()
    exercised = {what for group in described.values() for what, rows in group.items() if rows != [REASONS.get(what)]}
    assert REASONS.keys() & exercised == set()
    assert REASONS.keys() <= {what for group in described.values() for what in group}


def test_all_elements_of_the_syntax_descriptions_are_looked_for(coverage: Coverage) -> None:
    assert named_in_tables() <= coverage.elements.keys()
    assert set(code_points()) <= {point.partition(" = ")[0] for point in coverage.points}
    assert len(coverage.contexts) > 200
    assert len(coverage.lines) > 100


def test_what_only_one_row_exercises_is_missing_without_it(quick_suite: Suite) -> None:
    found = covered(
        [row for row in ENOUGH if row.table == 3 and row.key in ("data_formats", "dimensions")], quick_suite[0]
    )
    assert "base_model_id" in found.missing()
    assert "quantization_storage_format = NNR_QNT_TEF" in found.missing()
    assert "nnr_decompressed_data_format = INT3" not in found.missing()


def test_the_command_says_what_is_missing(quick_suite: Suite, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["coverage", "3.8", "--suite", str(quick_suite[0].path), "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["points"]["codebook_egk = 7"] == ["3.8"]
    assert "lps_qp_density is not exercised" in captured.err


def test_the_bitstreams_of_the_suite_break_no_rule(quick_suite: Suite) -> None:
    broken = {}
    for row in QUICK:
        for name in row.files:
            if row.out_of_band or row.table == 2:
                continue
            found = violations(quick_suite[0].stream(name).read_bytes())
            broken |= {name: found[0].rule.id} if found and "parents" not in name else {}
    assert broken == {}
