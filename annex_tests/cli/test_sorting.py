"""Orders and trees: what is largest, finest or worst stands first."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc_core
from annex_tests.support.program import Nnc
from conformance.support import every_unit
from nnc_adapters.cli import console


def names(nnc: Nnc, path: Path, order: str) -> list[str]:
    units = json.loads(nnc("inspect", "--json", "--sort", order, path).stdout)["units"]
    return [name for unit in units for name in unit["names"]]


def test_units_are_sorted_by_size_name_bits_and_qp(nnc: Nnc, bitstream: Path) -> None:
    with nnc_core.open(bitstream) as file:
        infos = dict(file.tensors)
    rates = {name: info.size / np.prod(info.shape) for name, info in infos.items()}
    assert names(nnc, bitstream, "size") == sorted(infos, key=lambda name: -infos[name].size)
    assert names(nnc, bitstream, "name") == sorted(infos)
    assert names(nnc, bitstream, "bits") == sorted(infos, key=lambda name: -rates[name])
    assert names(nnc, bitstream, "qp") == sorted(infos, key=lambda name: infos[name].qp or 0)
    assert names(nnc, bitstream, "position") == list(infos)


def leaves(node: Any) -> Iterator[Any]:
    if not node["inside"]:
        yield node
    for child in node["inside"].values():
        yield from leaves(child)


EVERY_UNIT = dict(every_unit.bitstreams())


@pytest.mark.parametrize("name", EVERY_UNIT)
def test_the_tree_has_every_byte_once(nnc: Nnc, tmp_path: Path, name: str) -> None:
    path = tmp_path / "each.nnr"
    path.write_bytes(EVERY_UNIT[name])
    root = json.loads(nnc("inspect", "--tree", "--json", path).stdout)
    assert root["size"] == len(EVERY_UNIT[name]) == sum(leaf["size"] for leaf in leaves(root))


def test_the_tree_follows_the_modules(nnc: Nnc, bitstream: Path) -> None:
    lines = nnc("inspect", "--tree", "--sort", "size", bitstream).stdout.splitlines()
    assert [line.split()[-1] for line in lines[2:5]] == [bitstream.name, "hidden", "weight"]
    assert "\u251c\u2500 hidden" in lines[3]
    assert "\u2502  \u251c\u2500 weight" in lines[4]
    assert "\u2588" in lines[3]
    assert len(nnc("inspect", "--tree", "--depth", "1", bitstream).stdout.splitlines()) == 2 + 1 + 7


def test_names_of_thousands_of_parts_are_shown(nnc: Nnc, tmp_path: Path) -> None:
    nnc_core.write(tmp_path / "deep.nnr", {".".join("a" * 2000): np.eye(3, dtype=np.float32)})
    assert nnc("inspect", "--tree", tmp_path / "deep.nnr").exit_code == 0
    assert nnc("report", tmp_path / "deep.nnr").exit_code == 0


FULL = "\u2588"


@pytest.mark.parametrize(
    ("part", "expected"), [(0, ""), (12, FULL * 12), (6, FULL * 6), (0.5, "\u258c"), (11.9, FULL * 11 + "\u2589")]
)
def test_bars_are_drawn_to_an_eighth(part: float, expected: str) -> None:
    assert console.bar(part, 12) == expected


def test_verify_puts_the_worst_tensor_first(nnc: Nnc, model: Path, bitstream: Path) -> None:
    tensors = json.loads(nnc("verify", model, bitstream, "--sort", "sqnr", "--json").stdout)["tensors"]
    assert [t["sqnr_db"] for t in tensors] == sorted(t["sqnr_db"] for t in tensors)
    tensors = json.loads(nnc("verify", model, bitstream, "--sort", "name", "--json").stdout)["tensors"]
    assert [t["name"] for t in tensors] == sorted(t["name"] for t in tensors)
