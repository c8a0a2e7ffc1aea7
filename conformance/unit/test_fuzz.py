"""Hostile bitstreams do no harm, and the harness that says so would notice if they did (`fuzz`)."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

import nnc_core
from conformance.fuzz import codec as fuzz
from conformance.fuzz import fuzzing
from conformance.fuzz.codec import Cases
from conformance.fuzz.seeds import HISTORY, encoded, handmade

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cases() -> Cases:
    return Cases(7)


def outcomes_of(cases: Cases, numbers: Iterable[int]) -> list[fuzzing.Outcome]:
    return [fuzzing.run_case(number, cases[number], fuzzing.Bounds(megabytes=0)) for number in numbers]


def test_damaged_bitstreams_are_decoded_or_refused(cases: Cases) -> None:
    outcomes = outcomes_of(cases, [*range(100), *range(cases.cuts, cases.cuts + 200)])
    assert [outcome for outcome in outcomes if outcome.finding] == []
    assert len({outcome.ending for outcome in outcomes}) > 5


def test_the_first_cases_are_everything_cut_at_every_byte(cases: Cases) -> None:
    cut = Counter(cases[number].files["case.nnr"] for number in range(cases.cuts))
    for seed in (*encoded(), *handmade()):
        assert all(seed.data[:size] in cut for size in range(len(seed.data))), seed.name
    assert "cut" not in cases[cases.cuts].what


def test_what_the_cases_are_made_from_is_valid() -> None:
    for seed in (*encoded(), *handmade()):
        assert seed.units, seed.name
        try:
            history = {"w": HISTORY} if seed.name == "update" else None
            nnc_core.decode(seed.data, limits=fuzz.LIMITS, threads=1, history=history)
        except nnc_core.UnsupportedError:
            assert seed.name.split()[0] == "unit"


def test_a_case_is_the_same_whenever_its_number_and_the_seed_are(cases: Cases) -> None:
    numbers = [*range(20), *range(cases.cuts, cases.cuts + 100)]

    def made(source: Cases) -> list[object]:
        return [(source[number].what, source[number].files) for number in numbers]

    assert made(Cases(7)) == made(cases)
    assert made(Cases(8)) != made(cases)


BROKEN = """
import os, sys, time, warnings, nnc_core
from conformance.fuzz import codec as fuzz
good = nnc_core.decode
def broken(data, **options):
    if len(data) % 2 == 0:
        return good(data, **options)
    {fault}
nnc_core.decode = broken
options = ["--cuts", "2", "--cases", "3", "--jobs", "2", "--seconds", "2", "--findings", sys.argv[1], *sys.argv[2:]]
sys.exit(fuzz.main(options))
"""


def run(fault: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BROKEN.format(fault=fault), *arguments]
    environment = {"PYTHONPATH": str(ROOT), "NNC_SHARED": "/nowhere"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


@pytest.mark.parametrize(
    ("fault", "ending", "report"),
    [
        ("raise IndexError('list index out of range')", "IndexError", "list index out of range"),
        ("raise nnc_core.BitstreamError('x', bit_offset=-1)", "ValueError", "before the start of its unit"),
        ("return {'w': __import__('numpy').zeros(1 << 21, 'i1')}", "ValueError", "tensor_elements allows"),
        ("os.abort()", "crash", "ended with code -6"),
        ("os.abort()", "crash", "Fatal Python error: Aborted"),
        ("warnings.warn('it is old'); return {}", "warning", "it is old"),
        ("print('it is odd', file=sys.stderr); return {}", "output", "it is odd"),
        ("os.system('echo it is odd'); return {}", "output", "it is odd"),
        ("time.sleep(60)", "hang", "more than 2 s"),
        ("bytearray(1 << 40)", "MemoryError", "MemoryError"),
        ("bytearray(b'x') * (200 << 20); return {}", "memory", "grew by"),
    ],
)
def test_whatever_goes_wrong_is_a_finding(fault: str, ending: str, report: str, tmp_path: Path) -> None:
    result = run(fault, str(tmp_path))
    assert result.returncode == 1, result.stderr
    assert f"{ending}: " in result.stdout
    assert any(report in path.read_text() for path in tmp_path.glob("*.txt"))
    assert {path.stat().st_size % 2 for path in tmp_path.glob("*/0-case.nnr")} == {1}


def test_a_run_without_findings_ends_with_its_totals(tmp_path: Path) -> None:
    result = run("return good(data, **options)", str(tmp_path / "none"), "--seed", "3")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("codec: 5 cases, 0 findings: ")
    assert not (tmp_path / "none").exists()
