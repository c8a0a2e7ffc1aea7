"""Hostile files do no harm to the adapters, and the run that says so would notice if they did (`fuzz_adapters`)."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from annex_tests.fuzz import adapters as fuzz_adapters
from annex_tests.fuzz.adapters import Cases
from annex_tests.fuzz.guard import Box, TrespassError
from annex_tests.fuzz.reading import Files, Reader, exercise
from conformance.fuzz import fuzzing
from nnc_core.errors import ModelError

BOUNDS = fuzzing.Bounds(megabytes=0)


@pytest.fixture(scope="module")
def readers() -> list[Reader]:
    return fuzz_adapters.readers()


def test_what_the_cases_are_made_from_is_read(readers: list[Reader]) -> None:
    fuzz_adapters.check(readers)


def test_damaged_files_are_read_or_refused(readers: list[Reader]) -> None:
    quick = [reader for reader in readers if not reader.slow]
    cases = Cases(7, quick)
    numbers = [*range(150), *range(cases.cuts, cases.cuts + 400)]
    outcomes = [fuzzing.run_case(number, cases[number], BOUNDS) for number in numbers]
    assert [outcome for outcome in outcomes if outcome.finding] == []
    assert {outcome.reader for outcome in outcomes} == {reader.name for reader in quick}
    assert len({outcome.ending for outcome in outcomes}) > 5


def test_the_first_cases_are_small_files_cut_at_every_byte(readers: list[Reader]) -> None:
    cases = Cases(7, readers)
    cut = {(case.reader, *case.files.items()) for case in map(cases.__getitem__, range(cases.cuts))}
    (small,) = (reader for reader in readers if reader.name == "pytorch/safetensors")
    data = small.seeds["file"]["m.safetensors"]
    assert all((small.name, ("m.safetensors", data[:size])) in cut for size in range(len(data)))
    assert "cut" not in cases[cases.cuts].what


def test_a_case_is_the_same_whenever_its_number_and_the_seed_are(readers: list[Reader]) -> None:
    again = fuzz_adapters.readers()
    cases = Cases(7, readers)
    numbers = [*range(30), *range(cases.cuts, cases.cuts + 100)]

    def made(seed: int, chosen: list[Reader]) -> list[object]:
        found = Cases(seed, chosen)
        return [(found[number].what, found[number].files) for number in numbers]

    assert made(7, again) == made(7, readers)
    assert made(8, readers) != made(7, readers)


def write_outside() -> None:
    (Path(tempfile.gettempdir()).parents[1] / "nnc-outside").write_text("x")


def move_outside() -> None:
    inside = Path(tempfile.gettempdir(), "x")
    inside.mkdir()
    inside.rename(inside.parents[2] / "nnc-outside")


def leave_half(box: Box) -> None:
    target = box.target("half")
    with box.step(target):
        target.write_text("half")
        raise ModelError("damaged")


def say_nothing(box: Box) -> None:
    with box.step():
        raise ModelError("")


@pytest.mark.parametrize(
    ("deed", "what"),
    [
        (lambda box: write_outside(), "open of "),
        (lambda box: move_outside(), r"os\.rename of "),
        (lambda box: os.mkdir("/nnc-outside"), r"os\.mkdir of /nnc-outside"),
        (lambda box: os.system("true"), r"os\.system"),
        (lambda box: subprocess.run([sys.executable, "-c", ""]), r"subprocess\.Popen"),
        (lambda box: pickle.loads(pickle.dumps(os.getcwd)), r"pickle\.find_class"),
        (lambda box: Path("/etc/passwd").read_bytes(), "open of /etc/passwd"),
        (lambda box: Path(tempfile.gettempdir(), "x").write_text("left"), "left behind"),
        (lambda box: box.target("a").with_name("b").write_text("strange"), "left behind"),
        (lambda box: box.put({"a": b"1"}, "a").write_text("2"), "have changed"),
        (leave_half, "half is there in spite of an error"),
        (say_nothing, "without a message"),
    ],
)
def test_harm_is_a_finding_even_where_the_error_is_caught(deed: Callable[[Box], object], what: str) -> None:
    def use(files: Files, box: Box) -> None:
        try:
            deed(box)
        except TrespassError as error:
            if box.inside.exists() and "error" not in str(error):  # as a reader would that catches whatever comes
                return
            raise

    with pytest.raises(TrespassError, match=what):
        exercise(Reader("x", {}, use), {})
    assert not Path("/nnc-outside").exists()


def test_what_happens_inside_is_not_a_finding() -> None:
    def use(files: Files, box: Box) -> None:
        path = box.put(files, "a/b")
        with tempfile.TemporaryFile() as stream, box.step(box.target("c")):
            stream.write(path.read_bytes())
            raise ModelError("damaged")

    assert exercise(Reader("x", {}, use), {"a/b": b"1"}) == "ModelError"
    assert exercise(Reader("x", {}, use), {"a/c": b"1"}) == "absent"
