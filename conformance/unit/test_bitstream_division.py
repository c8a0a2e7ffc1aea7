"""Units in parts: how they are cut, and that they come together again."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conformance.support import every_unit
from conformance.support.every_unit import PAYLOAD, QUANTIZED, made, tensor
from nnc_core.bitstream import Bitstream, Division, division
from nnc_core.errors import LimitError
from nnc_core.nnr_model import Topology
from nnc_core.syntax.units import unit_size
from nnc_core.tables.code_points import TopologyStorageFormat


@given(
    payload=st.binary(max_size=400),
    header=st.integers(0, 60),
    parts=st.integers(0, 255),
    size=st.integers(70, 500) | st.just(0),
)
def test_parts_are_as_many_or_as_small_as_asked_for(payload: bytes, header: int, parts: int, size: int) -> None:
    pieces = list(Division(parts, size).pieces(header, payload))
    assert b"".join(bytes(piece) for _, piece in pieces) == payload
    counters = [counter for counter, _ in pieces]
    assert counters == (list(range(len(pieces), 0, -1)) if len(pieces) > 1 else [0])
    if size:
        sizes = [unit_size(header, len(piece), in_parts=len(pieces) > 1) for _, piece in pieces]
        assert max(sizes) <= size
    else:
        assert len(pieces) <= max(1, parts)


def test_one_part_is_a_whole_unit_without_a_counter() -> None:
    assert list(Division(parts=1).pieces(10, b"abc")) == [(0, b"abc")]


def test_a_size_counts_more_than_a_number() -> None:
    assert len(list(Division(parts=50, max_unit_size=100).pieces(10, bytes(170)))) == 2


@pytest.mark.parametrize(("size", "limit"), [(12, "max_ndu_nnr_unit_size"), (16, "partial_data_counter")])
def test_what_would_be_too_many_or_too_small_parts_is_refused(size: int, limit: str) -> None:
    with pytest.raises(LimitError, match=limit):
        list(Division(max_unit_size=size).pieces(10, bytes(1000)))


def test_a_topology_beyond_the_largest_unit_is_cut_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(division, "LONG", 100)
    data = bytes(range(256)) * 3
    topology = Topology(TopologyStorageFormat.NNR_TPL_ONNX, data, data[::-1])
    mps = replace(QUANTIZED, topology_carriage_flag=True)
    coded = made(lambda writer: writer.topology(topology), mps)
    bitstream = Bitstream(coded)
    assert max(unit.size for unit in bitstream.units) <= 100
    assert bitstream.topology == topology


def test_parts_repeat_the_header_and_decode_to_the_same_tensor() -> None:
    whole = made(lambda writer: writer.data_unit(tensor(), PAYLOAD))
    parts = made(lambda writer: writer.data_unit(tensor(), PAYLOAD), division=Division(parts=7))
    (a,), (b,) = Bitstream(whole).data_units, Bitstream(parts).data_units
    assert len(b.units) == 7
    assert (a.header, bytes(a.payload)) == (b.header, bytes(b.payload))
    assert {unit.header == a.header for unit in b.units} == {True}
    assert every_unit.LEVELS.shape == b.header.tensor_dimensions
