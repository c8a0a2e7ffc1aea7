"""Several named byte strings in one topology."""

from __future__ import annotations

import random
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnc_adapters.shared import repeats
from nnc_adapters.shared.packing import pack, unpack
from nnc_core.errors import LimitError, ModelError
from nnc_core.limits import Limits

NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20)
LIMITS = Limits()


@given(parts=st.dictionaries(NAMES, st.binary(max_size=200), max_size=5))
def test_parts_come_back_in_their_order(parts: dict[str, bytes]) -> None:
    packed = pack(parts)
    assert list(unpack(packed, LIMITS).items()) == list(parts.items())
    assert pack(parts) == packed


@given(data=st.binary(max_size=300))
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        unpack(b"x" + data, LIMITS)


@given(at=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.booleans())
def test_damage_is_noticed_or_harmless(at: int, value: int, cut: bool) -> None:
    parts = {"a": b"first" * 20, "b/c": b"second" * 20}
    data = bytearray(pack(parts))
    at %= len(data)
    data[at] = value
    try:
        found = unpack(bytes(data[:at]) if cut else bytes(data), LIMITS)
    except (ModelError, LimitError):
        return
    assert sum(map(len, found.values())) == 220


@pytest.mark.parametrize(
    "text",
    [b'[["a",1,2,3]]', b'[["a",1,-1]]', b'[["a",1,2]]',
     b"{}", b"5", b'[["a"]]', b'[["a",-1]]', b'[["a","1"]]', b'[["a",true]]', b"[null]", b'["ab"]',
     b'[["a",1],["a",0]]', b'[["a",2]]', b'[["a",0]]', b'[["a",1e99]]', b"[" * 100_000, b"\xff"],
)  # fmt: skip
def test_a_list_that_does_not_fit_is_refused(text: bytes) -> None:
    with pytest.raises(ModelError, match="parts of the topology"):
        unpack(text + b"\n1", LIMITS)


GRAPH = b"".join(b"node %d of the layer; it is followed by the node %d.\n" % (n % 97, n % 89) for n in range(4000))

SHORT = repeats.shortened(GRAPH) or GRAPH


def test_long_parts_that_repeat_themselves_take_fewer_bytes() -> None:
    generator = random.Random(1)
    blocks = [generator.randbytes(30) + b"x" * 40 for _ in range(2000)]
    parts = {"a": b"".join(blocks + [blocks[generator.randrange(2000)] for _ in range(6000)]), "b": b"small"}
    packed = pack(parts)
    assert unpack(packed, LIMITS) == parts
    assert len(zlib.compress(packed, 9)) < len(zlib.compress(parts["a"], 9)) / 2


@pytest.mark.parametrize("period", [1, 7, 48, 60, 64, 65, 90, 100, 128, 200, 1000])
def test_what_goes_on_with_itself_comes_back(period: int) -> None:
    data = b"start" + random.Random(period).randbytes(period) * (2000 // period) + b"end"
    found = list(repeats._repeats(data))
    assert repeats.restored(repeats._numbers(found) + b"".join(repeats._new(data, found)), len(data)) == data


@given(text=st.binary(max_size=300), times=st.integers(1, 400), seed=st.integers(0, 9))
def test_whatever_repeats_itself_comes_back(text: bytes, times: int, seed: int) -> None:
    generator = random.Random(seed)
    data = b"".join(text[generator.randrange(len(text) + 1) :] for _ in range(times)) + GRAPH[: 100 * times]
    found = list(repeats._repeats(data))
    short = repeats._numbers(found) + b"".join(repeats._new(data, found))
    assert repeats.restored(short, len(data)) == data


@given(at=st.integers(0, 100_000), value=st.integers(0, 255), size=st.integers(0, 300_000))
def test_damaged_repeats_are_refused_or_make_as_many_bytes_as_they_say(at: int, value: int, size: int) -> None:
    short = bytearray(SHORT)
    short[at % len(short)] = value
    with suppress(ValueError):
        assert len(repeats.restored(bytes(short), size)) == size


def test_a_part_cannot_become_larger_than_the_limit() -> None:
    with pytest.raises(LimitError, match="topology_bytes"):
        unpack(b'[["a",4,1000000000000]]\n\1\0\0\1', LIMITS)


def test_more_than_the_limit_is_refused() -> None:
    with pytest.raises(LimitError, match="topology_bytes"):
        unpack(pack({"a": bytes(1000)}), Limits(topology_bytes=999))
