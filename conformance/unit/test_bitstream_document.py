"""docs/bitstream.md has every syntax element with its descriptor, in the order in which the Tracer meets them."""

import re
from pathlib import Path

import pytest

from conformance.suite.elements import named_in_tables
from conformance.suite.files import Folder
from conformance.suite.generate import Generated
from conformance.suite.quick import QUICK
from nnc_core.bitstream import Bitstream
from nnc_core.coder.data import input_parameters_from_json
from nnc_core.entropy.contexts import Layout
from nnc_core.entropy.tracing import context_name
from nnc_core.tables.code_points import NnrUnitType

Element = tuple[str, str]
TEXT = (Path(__file__).parents[2] / "docs" / "bitstream.md").read_text()
SECTIONS = dict(re.findall(r"^### ([^\n]+)\n(.*?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL))
MAPS = "Performance maps, in NNR_MPS and NNR_LPS"
COMMON = "Every unit"
REPEATING = ("NNR_NDU", "NNR_TPL", "NNR_AGG")
"""Units in which some elements come several times in turn."""
ALONE = [each.name for each in NnrUnitType if each != NnrUnitType.NNR_AGG]


def listed(section: str) -> list[Element]:
    """The elements of a section; of one with two descriptors, both."""
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|[^|]*\|[^|]*\|$", SECTIONS[section], re.MULTILINE)
    return [(name, descriptor) for name, cell in rows for descriptor in cell.strip().split(" or ")]


@pytest.fixture(scope="module")
def traced(quick_suite: tuple[Folder, list[Generated]]) -> dict[int, list[list[Element]]]:
    """By unit type, the elements of each unit."""
    folder, found = quick_suite[0], {}
    for row in QUICK:
        for name in row.files if row.small or row.name == "1.11" else ():
            known = input_parameters_from_json(folder.out_of_band(name).read_bytes()) if row.out_of_band else {}
            bitstream = Bitstream(folder.stream(name).read_bytes(), input_parameters=known.get)
            for unit in bitstream.units:
                elements = [described(each.name, each.descriptor) for each in bitstream.trace(unit)]
                found.setdefault(unit.type, []).append(elements)
    return found


def described(name: str, descriptor: str) -> Element:
    name, descriptor = name.partition("[")[0], descriptor.partition(" x ")[0]
    return name, "ue(codebook_egk)" if name.startswith("codebook_delta") else descriptor


def sections_of(unit_type: NnrUnitType) -> list[str]:
    maps = [MAPS] if unit_type in (NnrUnitType.NNR_MPS, NnrUnitType.NNR_LPS) else []
    return [COMMON, unit_type.name, *maps]


@pytest.mark.parametrize("unit_type", NnrUnitType, ids=lambda each: each.name)
def test_the_tables_have_exactly_the_elements_that_the_tracer_meets(
    unit_type: NnrUnitType, traced: dict[int, list[list[Element]]]
) -> None:
    met = {element for unit in traced[unit_type] for element in unit}
    known = {element for section in sections_of(unit_type) for element in listed(section)}
    own = {*listed(unit_type.name)}
    assert met <= known
    assert own <= met


def test_all_maps_and_all_common_elements_are_met(traced: dict[int, list[list[Element]]]) -> None:
    met = {element for units in traced.values() for unit in units for element in unit}
    assert {*listed(MAPS), *listed(COMMON)} <= met


@pytest.mark.parametrize("section", [name for name in SECTIONS if name not in (MAPS, *REPEATING)])
def test_the_elements_stand_in_their_order(section: str, traced: dict[int, list[list[Element]]]) -> None:
    order = {element: place for place, element in enumerate(listed(section))}
    units = [traced[each] for each in NnrUnitType if each.name in (section, *(ALONE if section == COMMON else ()))]
    for unit in (unit for several in units for unit in several):
        last = max((i for i, (name, _) in enumerate(unit) if name == "byte_alignment()"), default=len(unit))
        places = [order[each] for i, each in enumerate(unit) if each in order and (i == last or each[1] != "f(n)")]
        assert places == sorted(places)


def test_every_element_of_the_syntax_descriptions_is_in_the_document() -> None:
    names = {name for section in SECTIONS for name, _ in listed(section)}
    assert named_in_tables() <= names


def test_the_table_of_contexts_is_that_of_the_arithmetic_coder() -> None:
    layout = Layout(10)
    counts: dict[str, int] = {}
    for context in range(layout.size + 2):
        name = context_name(layout, context).partition("[")[0]
        counts[name] = counts.get(name, 0) + 1
    rows = re.findall(r"^\| `([^`]+)` \| (\d+)( per flag)? \|", SECTIONS["NNR_NDU"], re.MULTILINE)
    assert {name: int(count) * (10 if per_flag else 1) for name, count, per_flag in rows} == counts
