"""Commands that look at a bitstream of many units take memory for its headers, not for what they print about them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nnc_core
from conformance.support.handmade import bitstream, payload_of
from nnc_adapters.cli import json_output
from nnc_core import CodingParameters
from nnc_core.syntax import CompressedDataUnitHeader

UNITS = 8_000

MEASURED = """
import resource, sys
from nnc_adapters.cli import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    main(sys.argv[1:])
finally:
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(grown >> (20 if sys.platform == "darwin" else 10), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bitstream of many tiny units."""
    payload = payload_of(np.zeros((1, 1), np.int32))
    headers = (CompressedDataUnitHeader(topology_elem_id=f"w{i}", tensor_dimensions=(1, 1)) for i in range(UNITS))
    path = tmp_path_factory.mktemp("many") / "many.nnr"
    path.write_bytes(bitstream([(header, payload) for header in headers]))
    return path


def run(*arguments: str | Path) -> tuple[bytes, int]:
    """What a command prints, and by how many MiB it grew."""
    command = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stdout, int(done.stderr.split()[-1])


def test_a_long_description_is_never_in_memory_as_a_whole(many: Path) -> None:
    """It was once, in pieces that took ten times its size."""
    printed, grown = run("inspect", "--json", many)
    assert len(json.loads(printed)["units"]) == UNITS + 2
    assert len(printed) > 12 << 20
    assert grown < 48


@pytest.mark.parametrize("arguments", [("inspect",), ("validate",), ("inspect", "--sort", "size")])
def test_looking_at_many_units_takes_memory_for_their_headers(many: Path, arguments: tuple[str, ...]) -> None:
    printed, grown = run(*arguments, many)
    assert printed
    assert grown < 48


VALUES = [
    {},
    [],
    {"a": [], "b": {}, "c": [[1, [2.5, None]], {"d": True}], "\u00e9\n": "\u2190"},
    [{"a": 1}, {"b": [1, 2]}, "x", 3],
    {1: 2, "x": {"y": {"z": [False]}}},
    "text",
    7,
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_json_in_pieces_is_the_json_of_the_standard_library(value: object) -> None:
    assert "".join(json_output.pieces(value)) == json.dumps(value, indent=2)


def test_iterators_are_written_as_lists() -> None:
    value = {"a": iter([1, {"b": [2]}]), "c": iter(())}
    assert json.loads("".join(json_output.pieces(value))) == {"a": [1, {"b": [2]}], "c": []}


def test_what_json_lacks_is_said_in_its_terms() -> None:
    parameters = CodingParameters(qp=-20)
    written = json.loads("".join(json_output.pieces([float("nan"), float("inf"), b"123", Path("x"), parameters])))
    assert written[:4] == [None, None, "3 bytes", "x"]
    assert written[4]["qp"] == -20
    assert nnc_core.Limits.__slots__ == tuple(json.loads("".join(json_output.pieces(nnc_core.Limits()))))
