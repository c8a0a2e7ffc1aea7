"""The same networks in PyTorch, Keras, ONNX and NNEF: what one computes, the others compute with its weights."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc_adapters
from nnc_adapters.convert import convert, plan

FLATTENED = [8, 4, 4]  # what the image is before the matrix
FORMATS = ("pytorch", "keras", "savedmodel", "onnx", "nnef")
PAIRS = list(permutations(FORMATS, 2))
# Keras 3.15 with numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

BOTH = pytest.mark.parametrize("kind", ["seer", "reader"])
EVERY_PAIR = pytest.mark.parametrize(("first", "second"), PAIRS, ids=map("-".join, PAIRS))


@pytest.fixture(scope="session")
def made() -> dict[tuple[str, str], Any]:
    return {}


@pytest.fixture
def network(request: pytest.FixtureRequest, made: dict[tuple[str, str], Any], kind: str) -> Any:
    """Finds the network ``kind`` in a format; makes it at the first time."""

    def find(form: str) -> Any:
        if (form, kind) not in made:
            made[form, kind] = request.getfixturevalue(f"{form}_file")(kind)
        return made[form, kind]

    return find


def moved(source: Path, into: Path, target: Path) -> Path:
    """Convert, with the one answer that is asked for: what was flattened."""
    questions = plan(source, into, by="structure")["questions"]
    for image in questions.values():
        assert image in (FLATTENED, [FLATTENED[0], 0, 0])
    report = convert(
        source, target, into=into, by="structure", flatten=dict.fromkeys(questions, FLATTENED), check=False
    )
    assert (report.kept, report.unused) == ([], [])
    return target


@BOTH
@EVERY_PAIR
def test_weights_move_from_any_framework_to_any_other(network: Any, first: str, second: str, tmp_path: Path) -> None:
    ours, theirs = network(first), network(second)
    target = moved(ours.file, theirs.file, tmp_path / f"out{theirs.suffix}")
    expected = ours.run(ours.file)
    np.testing.assert_allclose(theirs.run(target), expected, atol=1e-5, rtol=1e-5)
    assert np.abs(theirs.run(theirs.file) - expected).max() > 0.01  # it was another before


@BOTH
@EVERY_PAIR
def test_decoded_weights_are_the_same_in_any_framework(network: Any, first: str, second: str, tmp_path: Path) -> None:
    ours, theirs = network(first), network(second)
    coded, decoded = tmp_path / "coded.nnr", tmp_path / f"decoded{ours.suffix}"
    nnc_adapters.compress(ours.file, coded)
    nnc_adapters.decompress(coded, decoded)
    target = moved(coded, theirs.file, tmp_path / f"out{theirs.suffix}")
    expected = ours.run(decoded)
    np.testing.assert_allclose(theirs.run(target), expected, atol=1e-5, rtol=1e-5)
    right = ours.run(ours.file)
    assert 0 < np.abs(expected - right).max() < 0.02 * np.abs(right).max()


@BOTH
@pytest.mark.parametrize("second", FORMATS[1:])
def test_a_bitstream_for_another_framework_restores_to_a_model_of_it(
    network: Any, kind: str, second: str, tmp_path: Path
) -> None:
    ours, theirs = network("pytorch"), network(second)
    moved(ours.file, theirs.file, tmp_path / "for_them.nnr")
    target = tmp_path / f"restored{theirs.suffix}"
    nnc_adapters.decompress(tmp_path / "for_them.nnr", target)
    np.testing.assert_allclose(theirs.run(target), ours.run(ours.file), atol=0.05)


@BOTH
@pytest.mark.parametrize("second", FORMATS[1:])
def test_weights_that_come_back_are_those_that_went(network: Any, kind: str, second: str, tmp_path: Path) -> None:
    ours, theirs = network("pytorch"), network(second)
    there = moved(ours.file, theirs.file, tmp_path / f"there{theirs.suffix}")
    back = moved(there, ours.file, tmp_path / f"back{ours.suffix}")
    np.testing.assert_allclose(ours.run(back), ours.run(ours.file), atol=1e-6)
