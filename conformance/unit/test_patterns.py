"""Regular expressions of rules find what those of the standard library find, and none takes forever."""

from __future__ import annotations

import re
import time
from random import Random

import pytest

from nnc_core.planner.parameters import Rule
from nnc_core.planner.patterns import finder

EXPLODING = [
    r"(a+)+b",
    r"(a|a)*b",
    r"(a|aa)+$",
    r"^(([a-z])+.)+[A-Z]$",
    r"(.*a){12}x",
    r"a.*a.*a.*a.*a.*a.*b",
    r"(a?){200}a{200}b",
    r"(\w+\.)*(\w+)*!",
    r"((a*)*)*b",
]
ATOMS = ["a", "b", ".", "[ab]", "[^a]", "\\d", "\\w", "\\.", "^", "$", "\\b", "\\B", "\\S", "c"]


def expression(source: Random, depth: int = 3) -> str:
    """Any expression, nested ones among them."""
    kind = source.randrange(5) if depth else 0
    if kind == 0:
        return source.choice(ATOMS)
    if kind == 1:
        inner = expression(source, depth - 1)
        return f"(?:{inner}){source.choice(('*', '+', '?', '{2}', '{1,3}', '*?', '{2,}'))}"
    if kind == 2:
        return f"({expression(source, depth - 1)}|{expression(source, depth - 1)})"
    return expression(source, depth - 1) + expression(source, depth - 1)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_found_is_what_the_standard_library_finds(seed: int) -> None:
    source, automata = Random(seed), 0
    for _ in range(1500):
        pattern = expression(source)
        find = finder(pattern)
        automata += "finds" in getattr(find, "__name__", "")
        for _ in range(4):
            text = "".join(source.choice("aabbc.1_ \n") for _ in range(source.randrange(9)))
            assert find(text) == (re.search(pattern, text) is not None), (pattern, text)
    assert automata > 150


@pytest.mark.parametrize("pattern", [r"a.*a.*b", r"a.*a.*a.*b", r"conv.*bias"])
def test_honest_rules_take_little_time_on_the_longest_names(pattern: str) -> None:
    start = time.process_time()
    assert not finder(pattern)(4096 * "a")
    assert finder(pattern)("conv" + 2000 * "a" + "bias")
    assert time.process_time() - start < 4


@pytest.mark.parametrize("pattern", EXPLODING)
def test_no_rule_takes_forever_on_a_hostile_name(pattern: str) -> None:
    rule, start = Rule(pattern, (("qp", -30),)), time.process_time()
    assert not rule.applies_to(400 * "a" + "-")
    assert time.process_time() - start < 8


def test_a_rule_that_cannot_be_bounded_is_refused_and_others_are_not() -> None:
    with pytest.raises(ValueError, match="could take forever"):
        Rule(r"(a+)+(?!b)", (("qp", -30),))
    with pytest.raises(ValueError, match="could take forever"):
        Rule(r"(?i)(a+)+b", (("qp", -30),))
    assert Rule(r"^(?!.*bias).*weight$", (("qp", -30),)).applies_to("fc.weight")
    assert Rule(r"(?i)FC\\.", (("qp", -30),)).pattern == r"(?i)FC\\."
    assert Rule(r"layers\.(\d+\.)*weight", (("qp", -30),)).applies_to("layers.3.14.weight")
