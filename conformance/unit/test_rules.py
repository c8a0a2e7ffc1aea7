"""Every rule has a bitstream that breaks exactly it, and says so with its place; valid ones break none."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest

import nnc_core
from conformance.negative.streams import BREAKING, CARRYING, CONTEXTS, DECODED, NDU, STR, data_units, topology, unit
from conformance.support import every_unit
from conformance.support.corpus import for_each, model_names, model_steps
from conformance.support.every_unit import QUANTIZED, tensor
from nnc_core.bitstream import Bitstream
from nnc_core.bitstream.validate import PROFILES, WITH_RESERVED_BITS, violations
from nnc_core.errors import BitstreamError, NncError, UnsupportedError
from nnc_core.syntax import SyntaxContext
from nnc_core.syntax.sampler import Sampler
from nnc_core.syntax.unit_types import UNIT_TYPES
from nnc_core.tables.rules import ELEMENTS, RULES


def test_every_rule_has_an_example() -> None:
    assert BREAKING.keys() == RULES.keys()
    assert set(ELEMENTS.values()) <= RULES.keys()
    for rule in RULES.values():
        assert rule.sentence.endswith(".")
        assert rule.example
        assert not rule.example.endswith(".")


@pytest.mark.parametrize("rule", [rule for rule in BREAKING if rule not in DECODED])
def test_a_bitstream_that_breaks_a_rule_breaks_only_that_one(rule: str) -> None:
    found = violations(BREAKING[rule], **CONTEXTS.get(rule, {}))
    assert [violation.rule.id for violation in found] == [rule]
    assert found[0].unit is not None
    assert found[0].bit_offset is not None
    assert RULES[rule].sentence in found[0].explain()


@pytest.mark.parametrize("rule", [rule for rule in BREAKING if rule not in (*CONTEXTS, *DECODED)])
def test_a_reader_refuses_what_breaks_a_rule_unless_it_can_go_on(rule: str) -> None:
    if RULES[rule].lenient or rule in ("deflated-data", "pruning-size", "pruning-type", "pruning-dimensions"):
        assert Bitstream(BREAKING[rule]).units
        return
    with pytest.raises(BitstreamError) as caught:
        Bitstream(BREAKING[rule])
    assert caught.value.rule.id == rule


@pytest.mark.parametrize("rule", DECODED)
def test_what_shows_only_in_a_payload_is_refused_when_it_is_decoded(rule: str) -> None:
    assert violations(BREAKING[rule]) == []
    with pytest.raises(BitstreamError) as caught:
        nnc_core.decode(BREAKING[rule])
    assert caught.value.rule.id == rule


def test_several_violations_are_reported_in_bitstream_order() -> None:
    late = topology(7, b"?")
    data = data_units(tensor(), mps=CARRYING) + NDU + unit(9, b"", b"?") + late  # type: ignore[arg-type]
    found = [(violation.unit, violation.rule.id) for violation in violations(data)]
    assert found == [(3, "tensor-once"), (4, "reserved-unit-type"), (5, "topology-before-data"), (5, "storage-format")]


@pytest.mark.parametrize("name", [name for name, _ in every_unit.bitstreams()])
def test_a_valid_bitstream_breaks_no_rule(name: str) -> None:
    data = dict(every_unit.bitstreams())[name]
    assert [v for v in violations(data) if v.rule.id != "topology-announced"] == []


@for_each("case", model_names())
def test_the_corpus_breaks_no_rule(case: str) -> None:
    for step in model_steps(case):
        assert violations(step.bitstream, input_parameters=step.input_parameters.get) == []


def test_what_an_update_leaves_to_its_base_is_not_a_violation() -> None:
    header = tensor(tensor_dimensions_flag=False)
    assert violations(data_units(header, mps=replace(QUANTIZED, mps_parent_signalling_enabled_flag=True))) == []


@pytest.mark.parametrize("profile", PROFILES)
def test_a_plain_tensor_is_within_every_profile(profile: str) -> None:
    general_profile_idc = int(profile != "2022")
    data = nnc_core.encode(
        {"w": np.ones((3, 4), np.float32)},
        parameters=nnc_core.CodingParameters(general_profile_idc=general_profile_idc),
    )
    assert violations(data, profile=profile) == []


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="profile"):
        violations(STR, profile="2030")


def test_the_documentation_lists_the_rules_as_they_are() -> None:
    text = (Path(__file__).parents[2] / "docs" / "bitstream.md").read_text()
    for rule in RULES.values():
        cells = (f"`{rule.id}`", rule.clause, rule.sentence, rule.example, "yes" if rule.lenient else "")
        assert f"| {' | '.join(cells)} |".replace("|  |", "| |") in text, rule.id
    rules = text.partition("\n## Rules")[2].partition("\n## Not yet")[0]
    assert rules.count("\n| `") == len(RULES)


def test_only_the_units_that_have_reserved_bits_are_searched_for_them() -> None:
    found: set[int] = set()

    class Noting(Sampler):
        def reserved(self, bits: int, name: str) -> None:
            found.add(self.type)  # type: ignore[attr-defined]

    sampler = Noting(Random(0))
    for sampler.type, tables in UNIT_TYPES.items():  # type: ignore[attr-defined]
        for profile in (0, 1) * 200:
            context, header = SyntaxContext(general_profile_idc=profile), tables.header.record()
            with suppress(NncError, IndexError):
                tables.header.run(sampler, header, context)
                if tables.payload is not None:
                    tables.payload.run(sampler, tables.payload.record(), header, context)
    assert found == set(WITH_RESERVED_BITS)
