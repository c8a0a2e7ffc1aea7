"""Several named byte strings in one topology."""

from __future__ import annotations

import io
import zipfile

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
def test_what_is_no_archive_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError):
        unpack(data, LIMITS)


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
    assert set(found.values()) <= set(parts.values())


def archive(compression: int = zipfile.ZIP_STORED, **members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data, compression)
    return stream.getvalue()


def test_parts_that_are_compressed_are_refused() -> None:
    with pytest.raises(ModelError, match="not stored"):
        unpack(archive(zipfile.ZIP_DEFLATED, a=bytes(1 << 20)), LIMITS)


def test_a_name_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ModelError, match="same name twice"):
        unpack(archive(a=b"1", b=b"2").replace(b"b", b"a"), LIMITS)


def test_parts_that_overlap_are_refused() -> None:
    # both entries of the directory lead to the first member
    data = bytearray(archive(a=bytes(1000), b=bytes(1000)))
    second = data.rfind(b"PK\x01\x02")
    data[second + 42 : second + 46] = bytes(4)
    with pytest.raises(ModelError, match=r"damaged|overlap"):
        unpack(bytes(data), LIMITS)


def test_more_than_the_limit_is_refused() -> None:
    with pytest.raises(LimitError, match="topology_bytes"):
        unpack(pack({"a": bytes(1000)}), Limits(topology_bytes=999))
