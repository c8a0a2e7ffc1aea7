"""Every syntax element that a table names is written and read by some test, and has a field or a place of its own."""

from __future__ import annotations

import ast
from pathlib import Path
from random import Random

import every_unit
from hostile import handmade
from test_bitstream_sequences import LIMITS, Sequence

import nnc_core.syntax
from nnc_core.bitstream import Bitstream

CODING = {"flag", "u", "i", "ue", "ie", "flt", "st", "bs", "code", "array", "reserved", "mask"}
"""The methods that pass an element."""
HELPERS = {"_count", "_entries", "_deltas"}
"""The functions of tables that pass elements by a name that they are given."""


def named_in_tables() -> set[str]:
    """The elements that the syntax tables name, taken from their source."""
    found: set[str] = set()
    for path in Path(nnc_core.syntax.__file__).parent.glob("*.py"):
        if path.stem in ("driver", "reader", "writer", "sampler"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and called(node) in CODING | HELPERS:
                found |= {name for argument in node.args if (name := literal(argument))}
    return found


def called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def literal(argument: ast.expr) -> str:
    """A name that stands in the source, without the index in brackets."""
    if isinstance(argument, ast.JoinedStr):
        argument = argument.values[0]
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return argument.value.partition("[")[0]
    return ""


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
