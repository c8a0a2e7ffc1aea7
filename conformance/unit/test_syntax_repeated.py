"""Headers like earlier ones: what is remembered gives what is read, written and refused without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nnc_core.errors import NncError
from nnc_core.limits import Limits
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.reader import Reader
from nnc_core.syntax.repeated import ReadHeaders, WrittenHeaders
from nnc_core.syntax.unit_types import header_bytes, read_header
from nnc_core.syntax.units import unit
from nnc_core.tables.code_points import NnrUnitType, PayloadType

NDU = NnrUnitType.NNR_NDU
CONTEXTS = [
    SyntaxContext(),
    SyntaxContext(general_profile_idc=0),
    SyntaxContext(mps_parent_signalling_enabled_flag=True),
]
HEADERS = [
    CompressedDataUnitHeader(topology_elem_id="a", tensor_dimensions=(4, 4)),
    CompressedDataUnitHeader(topology_elem_id="a", tensor_dimensions=(4, 4), dq_flag=True, scan_order=0),
    CompressedDataUnitHeader(topology_elem_id="a", tensor_dimensions=(200,), cabac_unary_length_minus1=3),
    CompressedDataUnitHeader(PayloadType.NNR_PT_INT, topology_elem_id="a", tensor_dimensions=(3, 500, 1)),
    CompressedDataUnitHeader(topology_elem_id="a", tensor_dimensions=(4, 4), cabac_unary_length_flag=False),
    CompressedDataUnitHeader(
        topology_elem_id="a",
        tensor_dimensions=(7, 2),
        nnr_decompressed_data_format_present_flag=True,
        nnr_decompressed_data_format=3,
    ),
]
NODES = [
    replace(h, node_id_present_flag=True, device_id=device, parameter_id=parameter, put_node_depth=depth)
    for h in HEADERS
    for device, parameter, depth in [(0, 0, 0), (0, 31, 1), (3, 1000, 17), (2**32 - 1, 2**32 - 1, 2**20)]
]
NAMES = ["a", "layers.0.weight", "\N{GREEK SMALL LETTER MU}?", "", "long" * 60]


@pytest.mark.parametrize("ctx", CONTEXTS)
def test_headers_are_written_as_if_each_were_the_first(ctx: SyntaxContext) -> None:
    written = WrittenHeaders()
    for name in NAMES:
        for h in HEADERS:
            expected = header_bytes(NDU, replace(h, topology_elem_id=name), ctx)
            assert written.data(replace(h, topology_elem_id=name), ctx) == expected


@pytest.mark.parametrize("ctx", CONTEXTS)
def test_headers_are_read_as_if_each_were_the_first(ctx: SyntaxContext) -> None:
    known, found = ReadHeaders(), 0
    for name in NAMES:
        for h in HEADERS + NODES:
            coded = header_bytes(NDU, replace(h, topology_elem_id=name), ctx)
            data = memoryview(b"before" + unit(NDU, coded, b"payload") + b"behind")
            like = known.find(data, 6, len(data), ctx)
            reader = Reader(data, 9)
            plain = read_header(reader, NDU, ctx)
            if like is not None:
                found += 1
                assert (like.header, like.payload_offset) == (plain, reader.byte_position)
                assert like.size == len(data) - 12
            known.learn(data, 6, reader.byte_position, plain, ctx)
    assert found >= (12 if ctx.general_profile_idc == 0 else 75)


def test_what_does_not_fit_its_unit_or_a_limit_is_left_to_the_reader() -> None:
    ctx, known = CONTEXTS[0], ReadHeaders()
    data = memoryview(unit(NDU, header_bytes(NDU, HEADERS[0], ctx), b"payload"))
    known.learn(data, 0, len(data) - 7, HEADERS[0], ctx)
    assert known.find(data, 0, len(data), ctx) is not None
    assert known.find(data, 0, len(data) - 1, ctx) is None
    assert known.find(data, 0, len(data), replace(ctx)) is None
    whole = bytes(data)
    for damaged in (b"\0\7" + whole[2:], b"\x80" + whole[1:], whole[:4] + b"\xff" + whole[5:], whole[:5]):
        assert known.find(memoryview(damaged), 0, len(damaged), ctx) is None


@pytest.mark.parametrize("name", ["zero\0byte", "\udc80", "x" * 50])
def test_names_are_refused_after_others_as_before(name: str) -> None:
    ctx, written = SyntaxContext(limits=Limits(name_length=40)), WrittenHeaders()
    written.data(HEADERS[0], ctx)
    with pytest.raises(NncError):
        written.data(replace(HEADERS[0], topology_elem_id=name), ctx)
