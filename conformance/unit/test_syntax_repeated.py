"""Headers like earlier ones: what is remembered gives what is read, written and refused without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnc_core.errors import NncError
from nnc_core.limits import Limits
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.reader import Reader
from nnc_core.syntax.repeated import ReadHeaders, WrittenHeaders
from nnc_core.syntax.unit_types import Header, header_bytes, read_header
from nnc_core.syntax.units import UnitHeader, nnr_unit_header, nnr_unit_size, unit
from nnc_core.tables.code_points import CompressedParameterTypes, NnrUnitType, ParentNodeIdType, PayloadType

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
    CompressedDataUnitHeader(topology_elem_id="a", tensor_dimensions=(8, 4), scan_order=1),
    CompressedDataUnitHeader(topology_elem_id="a", tensor_dimensions=(8, 4, 3), scan_order=1),
    CompressedDataUnitHeader(topology_elem_id="a", tensor_dimensions=(9, 4), scan_order=1),
    CompressedDataUnitHeader(topology_elem_id="a", tensor_dimensions=(9, 4, 2), first_tensor_dimension_shift=1),
    CompressedDataUnitHeader(PayloadType.NNR_PT_RAW_FLOAT, topology_elem_id="a", tensor_dimensions=(2**20,)),
    CompressedDataUnitHeader(
        topology_elem_id="a",
        compressed_parameter_types=int(CompressedParameterTypes.NNR_CPT_DC),
        tensor_dimensions=(6, 4),
        decomposition_rank=2,
        g_number_of_rows=3,
    ),
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
PARENTS = [
    replace(h, parent_node_id_present_flag=True, parent_node_id_type=kind, parent_device_id=device, **hashes)
    for h in NODES
    for kind, device, hashes in [
        (ParentNodeIdType.ICNN_NDU_ID, 0, {}),
        (ParentNodeIdType.ICNN_NDU_ID, 1, {}),
        (ParentNodeIdType.ICNN_NDU_PL_SHA256, None, {"parent_node_payload_sha256": 7}),
    ]
]
NAMES = ["a", "layers.0.weight", "\N{GREEK SMALL LETTER MU}?", "", "long" * 60]


@pytest.mark.parametrize("ctx", CONTEXTS)
def test_headers_are_written_as_if_each_were_the_first(ctx: SyntaxContext) -> None:
    written = WrittenHeaders()
    for name in NAMES:
        for h in HEADERS + NODES + PARENTS:
            expected = header_bytes(NDU, replace(h, topology_elem_id=name), ctx)
            assert written.data(replace(h, topology_elem_id=name), ctx) == expected


def read_unit(reader: Reader, ctx: SyntaxContext) -> tuple[int, Header | None]:
    """The size of a data unit, and its header."""
    h = UnitHeader()
    nnr_unit_size(reader, h)
    reader.narrow(h.nnr_unit_size)
    nnr_unit_header(reader, h)
    return h.nnr_unit_size, read_header(reader, NDU, ctx)


@pytest.mark.parametrize("ctx", CONTEXTS)
def test_headers_are_read_as_if_each_were_the_first(ctx: SyntaxContext) -> None:
    known, found = ReadHeaders(), 0
    for name in NAMES:
        for h in HEADERS + NODES + PARENTS:
            coded = header_bytes(NDU, replace(h, topology_elem_id=name), ctx)
            for payload in (b"payload", bytes(1 << 15)):
                data = memoryview(b"before" + unit(NDU, coded, payload) + b"behind")
                like = known.find(data, 6, len(data), ctx)
                reader = Reader(data, 6)
                size, plain = read_unit(reader, ctx)
                if like is not None:
                    found += 1
                    assert (like.size, like.header, like.payload_offset) == (size, plain, reader.byte_position)
                known.learn(data, 6, reader.byte_position, plain, ctx)
    assert found >= 500


@pytest.mark.parametrize("ctx", CONTEXTS)
@pytest.mark.parametrize("place", [(0, 0, 0), (3, 1000, 17)])
def test_a_header_is_recognized_whatever_its_name_place_and_dimensions(
    ctx: SyntaxContext, place: tuple[int, int, int]
) -> None:
    known = ReadHeaders()
    first, other = replace(NODES[0]), replace(NODES[0], topology_elem_id="another", tensor_dimensions=(5, 700, 3, 3))
    other.device_id, other.parameter_id, other.put_node_depth = place
    for h, expected in ((first, False), (other, True)):
        data = memoryview(unit(NDU, header_bytes(NDU, h, ctx), b"payload"))
        assert (known.find(data, 0, len(data), ctx) is not None) is expected
        known.learn(data, 0, len(data) - 7, h, ctx)


def outcome(result: Callable[[], object]) -> object:
    try:
        return result()
    except NncError as error:
        return str(error)


numbers = st.one_of(st.integers(0, 70), st.integers(2**32 - 2, 2**32 + 1), st.integers(0, 2**34))


@settings(max_examples=400, deadline=None)
@given(
    ctx=st.sampled_from(CONTEXTS),
    h=st.sampled_from(HEADERS[:4] + HEADERS[5:8]),
    dimensions=st.lists(numbers, max_size=5),
    place=st.one_of(st.none(), st.tuples(numbers, numbers, numbers)),
)
def test_dimensions_and_places_of_all_kinds_are_written_and_read_or_refused_as_if_each_were_the_first(
    ctx: SyntaxContext, h: CompressedDataUnitHeader, dimensions: list[int], place: tuple[int, int, int] | None
) -> None:
    written, known = WrittenHeaders(), ReadHeaders()
    for axes in (1, 2):
        for like in (replace(h, tensor_dimensions=(3,) * axes), replace(NODES[0], tensor_dimensions=(3,) * axes)):
            coded = unit(NDU, written.data(like, ctx), b"payload")
            known.learn(memoryview(coded), 0, len(coded) - 7, like, ctx)
    h = replace(h, tensor_dimensions=tuple(dimensions))
    if place is not None:
        device, parameter, depth = place
        h = replace(h, node_id_present_flag=True, device_id=device, parameter_id=parameter, put_node_depth=depth)
    expected = outcome(lambda: header_bytes(NDU, replace(h), ctx))
    assert outcome(lambda: written.data(replace(h), ctx)) == expected
    coded_anyway = outcome(lambda: header_bytes(NDU, replace(h), replace(ctx, limits=Limits(tensor_elements=2**200))))
    if isinstance(coded_anyway, bytes):
        data = memoryview(unit(NDU, coded_anyway, b"payload"))
        found, reader = known.find(data, 0, len(data), ctx), Reader(data)
        plain = outcome(lambda: read_unit(reader, ctx)[1])
        assert found is None or found.header == plain
        assert isinstance(plain, str) == (not isinstance(expected, bytes))


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
