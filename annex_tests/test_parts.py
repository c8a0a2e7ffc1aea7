"""Several named byte strings in one topology."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    [b"{}", b"5", b'[["a"]]', b'[["a",1,2]]', b'[["a",-1]]', b'[["a","1"]]', b'[["a",true]]', b"[null]", b'["ab"]',
     b'[["a",1],["a",0]]', b'[["a",2]]', b'[["a",0]]', b'[["a",1e99]]', b"[" * 100_000, b"\xff"],
)  # fmt: skip
def test_a_list_that_does_not_fit_is_refused(text: bytes) -> None:
    with pytest.raises(ModelError, match="parts of the topology"):
        unpack(text + b"\n1", LIMITS)


def test_more_than_the_limit_is_refused() -> None:
    with pytest.raises(LimitError, match="topology_bytes"):
        unpack(pack({"a": bytes(1000)}), Limits(topology_bytes=999))
