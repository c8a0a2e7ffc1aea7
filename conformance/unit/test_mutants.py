"""Broken decoders are caught by the row of the suite that is there for it; the unbroken one passes these rows."""

import pytest

from conformance.suite.decoders import Plain
from conformance.suite.files import Folder
from conformance.suite.generate import Generated
from conformance.suite.procedures import FAILED, PASSED, Outcome, outcomes_of
from conformance.suite.quick import QUICK
from conformance.support.mutants import MUTANTS, Plant

ROWS = {row.name: row for row in QUICK}


def outcome_of(name: str, folder: Folder) -> Outcome:
    (outcome,) = outcomes_of(Plain(), [ROWS[name]], folder)
    return outcome


@pytest.mark.parametrize("name", sorted(set(MUTANTS.values())))
def test_the_plain_decoder_passes_the_rows_that_catch_mutants(
    name: str, quick_suite: tuple[Folder, list[Generated]]
) -> None:
    outcome = outcome_of(name, quick_suite[0])
    assert outcome.status == PASSED, outcome.message


@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_a_row_catches_each_mutant(
    plant: Plant, quick_suite: tuple[Folder, list[Generated]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    outcome = outcome_of(MUTANTS[plant], quick_suite[0])
    assert outcome.status == FAILED
    assert outcome.reason


def test_there_are_more_than_ten_mutants() -> None:
    assert len(MUTANTS) > 10
