"""The header of a data unit: what is there when, what is taken from outside, and what is refused; codebooks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnc_core.errors import ElementValueError, LimitError, TruncatedError
from nnc_core.limits import Limits
from nnc_core.syntax import (
    CompressedDataUnitHeader,
    InputParameters,
    IntegerCodebook,
    Reader,
    SyntaxContext,
    TopologyElementsIdsList,
    Writer,
    coded_shapes,
    integer_codebook,
    nnr_compressed_data_unit_header,
)
from nnc_core.syntax.context import Decomposition
from nnc_core.tables.code_points import CompressedParameterTypes, ParentNodeIdType, PayloadType
from nnc_core.tables.entry_point import EntryPoint

BASE = SyntaxContext(general_profile_idc=0)
EXTENDED = SyntaxContext(general_profile_idc=1)
UPDATE = SyntaxContext(general_profile_idc=1, mps_parent_signalling_enabled_flag=True)
KNOWN = replace(
    UPDATE, input_parameters=lambda name: InputParameters((6, 4), 3, 1, decomposition_rank=2, g_number_of_rows=3)
)


def written(header: CompressedDataUnitHeader, ctx: SyntaxContext) -> bytes:
    writer = Writer()
    nnr_compressed_data_unit_header(writer, header, ctx)
    return writer.data()


def read_header(header: CompressedDataUnitHeader, ctx: SyntaxContext, reading: SyntaxContext | None = None):
    data = written(header, ctx)
    read = CompressedDataUnitHeader()
    nnr_compressed_data_unit_header(Reader(data), read, reading or ctx)
    return read


def test_the_tree_place_is_sent_with_the_parent_where_it_was_not_sent_before() -> None:
    header = CompressedDataUnitHeader(
        topology_elem_id="w",
        parent_node_id_present_flag=True,
        parent_node_id_type=ParentNodeIdType.ICNN_NDU_ID,
        temporal_context_modeling_flag=True,
        parent_device_id=3,
        parameter_id=17,
        put_node_depth=2,
        tensor_dimensions=(5,),
    )
    assert read_header(header, UPDATE) == header


def test_dimensions_from_outside_decide_whether_a_scan_order_is_read() -> None:
    header = CompressedDataUnitHeader(
        topology_elem_id="w", tensor_dimensions_flag=False, tensor_dimensions=(20, 3), scan_order=1, dq_flag=True
    )
    header.entry_points = (EntryPoint(46, 60, 5), EntryPoint(47, 54, 0))
    known = replace(BASE, input_parameters={"w": InputParameters((20, 3))}.get)
    assert read_header(header, BASE, known) == header


def test_dimensions_that_nobody_knows_are_refused() -> None:
    header = CompressedDataUnitHeader(topology_elem_id="w", tensor_dimensions_flag=False, tensor_dimensions=(20, 3))
    with pytest.raises(ElementValueError, match="tensor_dimensions"):
        read_header(header, BASE, BASE)


def test_input_parameters_from_outside_are_taken_where_none_are_sent() -> None:
    header = CompressedDataUnitHeader(topology_elem_id="w", input_parameters_present_flag=False)
    read = read_header(header, KNOWN)
    assert read.tensor_dimensions == (6, 4)
    assert read.cabac_unary_length_minus1 == 3
    assert read.compressed_parameter_types == CompressedParameterTypes.NNR_CPT_DC
    assert (read.decomposition_rank, read.g_number_of_rows) == (2, 3)


def test_each_input_parameter_may_be_known_under_another_of_the_unit_s_names() -> None:
    outside = {
        "t0": InputParameters(cabac_unary_length_minus1=200),
        "t1": InputParameters((6, 4), 3, CompressedParameterTypes.NNR_CPT_BI),
    }
    header = block(2, 8, input_parameters_present_flag=False)
    read = read_header(header, replace(BASE, input_parameters=outside.get))
    assert (read.tensor_dimensions, read.cabac_unary_length_minus1) == ((6, 4), 200)
    assert read.compressed_parameter_types == CompressedParameterTypes.NNR_CPT_BI


@pytest.mark.parametrize(
    ("outside", "element"),
    [
        (InputParameters((6, 4), 256), "cabac_unary_length_minus1"),
        (InputParameters((6, 4), -1), "cabac_unary_length_minus1"),
        (InputParameters((6, -4)), "tensor_dimensions"),
        (InputParameters((6, 4), None, 16), "compressed_parameter_types"),
        (InputParameters((6, 4), None, 1, 2, -3), "g_number_of_rows"),
        (InputParameters((6, 4), None, 1, -2, 3), "decomposition_rank"),
        (InputParameters((6, 4), None, 1), "g_number_of_rows"),
    ],
)
def test_an_input_parameter_from_outside_that_no_bitstream_could_have_is_refused_by_name(
    outside: InputParameters, element: str
) -> None:
    header = CompressedDataUnitHeader(topology_elem_id="w", input_parameters_present_flag=False)
    header.tensor_dimensions = (6, 4)
    data = written(header, BASE)
    with pytest.raises(ElementValueError, match=element):
        nnr_compressed_data_unit_header(
            Reader(data), CompressedDataUnitHeader(), replace(BASE, input_parameters=lambda name: outside)
        )


def block(names: int, types: int, **fields: Any) -> CompressedDataUnitHeader:
    return CompressedDataUnitHeader(
        nnr_compressed_data_unit_payload_type=PayloadType.NNR_PT_BLOCK,
        nnr_multiple_topology_elements_present_flag=True,
        topology_elements_ids_list=TopologyElementsIdsList(tuple(f"t{i}" for i in range(names))),
        compressed_parameter_types=CompressedParameterTypes(types),
        tensor_dimensions=(24, 10),
        **fields,
    )


@pytest.mark.parametrize(("names", "types"), [(2, 8), (5, 4), (6, 12), (3, 10)])
def test_a_block_has_the_names_that_its_parameter_types_ask_for(names: int, types: int) -> None:
    assert read_header(block(names, types), BASE) == block(names, types)
    with pytest.raises(ElementValueError, match="compressed_parameter_types"):
        written(block(names + 1, types), BASE)


def test_a_block_with_one_name_is_refused() -> None:
    header = CompressedDataUnitHeader(PayloadType.NNR_PT_BLOCK, topology_elem_id="w", tensor_dimensions=(2,))
    with pytest.raises(ElementValueError, match="nnr_multiple_topology_elements_present_flag"):
        written(header, BASE)


def test_a_decomposed_block_has_two_codebooks_and_one_run_of_entry_points_for_both_factors() -> None:
    header = block(
        2,
        1,
        codebook_present_flag=True,
        integer_codebook=IntegerCodebook.from_values([-1, 0, 4], 1),
        integer_codebook_h=IntegerCodebook.from_values([0, 7], 0),
        decomposition_rank=20,
        g_number_of_rows=24,
        scan_order=1,
        entry_points=tuple(EntryPoint(40 + 3 * j, 20, 0) for j in range(4)),
    )
    assert read_header(header, BASE) == header
    assert coded_shapes(header, BASE) == ((24, 20), (20, 10))


def test_the_codebook_of_the_second_factor_follows_where_the_decomposition_is_known_from_outside() -> None:
    outside = InputParameters((24, 10), 9, 1, decomposition_rank=20, g_number_of_rows=24)
    known = replace(BASE, input_parameters=lambda name: outside)
    header = block(
        2,
        1,
        input_parameters_present_flag=False,
        codebook_present_flag=True,
        integer_codebook=IntegerCodebook.from_values([-1, 0, 4], 1),
        integer_codebook_h=IntegerCodebook.from_values([0, 7], 0),
    )
    read = read_header(header, known)
    assert read.integer_codebook_h == header.integer_codebook_h
    assert read == header


def factor(**fields: Any) -> CompressedDataUnitHeader:
    return CompressedDataUnitHeader(
        compressed_parameter_types=CompressedParameterTypes.NNR_CPT_DC,
        decomposition_rank=9,
        g_number_of_rows=20,
        tensor_dimensions=(20, 3, 3),
        scan_order=1,
        **fields,
    )


def test_factors_in_units_of_their_own_have_entry_points_by_their_own_rows() -> None:
    g = factor(topology_elem_id="w_G", entry_points=(EntryPoint(5, 6, 0), EntryPoint(9, 1, 0)))
    h = factor(topology_elem_id="w_H", entry_points=(EntryPoint(7, 8, 0),))
    after_g = replace(BASE, factor_g=Decomposition((20, 3, 3), 9, 20))
    assert read_header(g, BASE) == g
    assert read_header(h, after_g) == h
    assert coded_shapes(g, BASE) == ((20, 9),)
    assert coded_shapes(h, after_g) == ((9, 9),)


def test_a_dimension_shift_puts_that_dimension_first_in_the_coded_shape() -> None:
    header = CompressedDataUnitHeader(topology_elem_id="w", tensor_dimensions=(3, 4, 20), scan_order=1)
    header.first_tensor_dimension_shift = 2
    header.entry_points = (EntryPoint(5, 6, 0), EntryPoint(9, 1, 0))
    assert read_header(header, EXTENDED) == header
    assert coded_shapes(header, EXTENDED) == ((20, 3, 4),)


@pytest.mark.parametrize(
    ("fields", "element"),
    [
        ({"tensor_dimensions": ()}, "count_tensor_dimensions"),
        ({"tensor_dimensions": (3, 0)}, r"tensor_dimensions\[1\]"),
        ({"tensor_dimensions": (3, 4), "scan_order": 5}, "scan_order"),
        ({"tensor_dimensions": (3, 4), "first_tensor_dimension_shift": 2}, "first_tensor_dimension_shift"),
        ({"tensor_dimensions": (3,), "nnr_decompressed_data_format_present_flag": True,
          "nnr_decompressed_data_format": 128}, "nnr_decompressed_data_format"),
        ({"tensor_dimensions": (3,), "codebook_present_flag": True,
          "integer_codebook": IntegerCodebook(codebook_size=0)}, "codebook_size"),
        ({"tensor_dimensions": (3,), "codebook_present_flag": True,
          "integer_codebook": IntegerCodebook(codebook_size=2, codebook_centre_offset=1)}, "codebook_centre_offset"),
        ({"tensor_dimensions": (4, 4), "compressed_parameter_types": 1, "g_number_of_rows": 3,
          "decomposition_rank": 1}, "g_number_of_rows"),
        ({"tensor_dimensions": (4, 4), "compressed_parameter_types": 1, "g_number_of_rows": 0,
          "decomposition_rank": 1}, "g_number_of_rows"),
        ({"tensor_dimensions": (4, 4), "compressed_parameter_types": 1, "g_number_of_rows": 2,
          "decomposition_rank": 0}, "decomposition_rank"),
    ],
)  # fmt: skip
def test_an_illegal_header_value_is_refused_by_name(fields: dict[str, Any], element: str) -> None:
    with pytest.raises(ElementValueError, match=element):
        written(CompressedDataUnitHeader(topology_elem_id="w", **fields), EXTENDED)


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (Limits(dimensions=2), "dimensions"),
        (Limits(tensor_elements=59), "tensor_elements"),
        (Limits(name_length=5), "name_length"),
    ],
)
def test_a_header_beyond_a_limit_is_refused_by_the_limit_s_name(limits: Limits, limit: str) -> None:
    header = CompressedDataUnitHeader(topology_elem_id="weight", tensor_dimensions=(3, 4, 5))
    with pytest.raises(LimitError, match=limit):
        read_header(header, BASE, replace(BASE, limits=limits))


def test_entry_points_that_cannot_follow_are_refused_before_they_are_stored() -> None:
    writer = Writer()
    writer.u(8, "FLOAT with input parameters", 0x09)
    writer.st("topology_elem_id", "w")
    writer.u(8, "dimensions and unary length", 0x30)
    writer.ue(1, "count_tensor_dimensions", 2)
    writer.ue(7, "tensor_dimensions[0]", 1 << 20)
    writer.ue(7, "tensor_dimensions[1]", 1)
    writer.u(8, "cabac_unary_length_minus1", 9)
    writer.u(4, "scan_order", 1)
    writer.byte_alignment()
    with pytest.raises(TruncatedError, match="131071 elements cannot follow"):
        nnr_compressed_data_unit_header(Reader(writer.data()), CompressedDataUnitHeader(), BASE)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=40, unique=True).map(sorted),
    data=st.data(),
)
def test_a_codebook_gives_back_its_values_and_zero_entry(values: list[int], data: st.DataObject) -> None:
    zero = data.draw(st.integers(0, len(values) - 1))
    codebook = IntegerCodebook.from_values(values, zero)
    read = IntegerCodebook()
    writer = Writer()
    integer_codebook(writer, codebook)
    writer.byte_alignment()
    integer_codebook(Reader(writer.data()), read)
    assert read.values().tolist() == values
    assert read.zero_offset == zero


@pytest.mark.parametrize(
    ("codebook", "egk"), [([-6, -5, -4, -3, -2, -1, 0, 1, 2], 0), ([-2, 0, 5], 1), ([0, 1000, 2000, 3000], 10)]
)
def test_a_codebook_takes_the_smallest_golomb_order_that_costs_least(codebook: list[int], egk: int) -> None:
    assert IntegerCodebook.from_values(codebook, 1).codebook_egk == egk


def test_a_codebook_out_of_order_or_beyond_int32_is_refused() -> None:
    for values in ([3, 3], [2**31 - 1, 2**31], [-(2**31) - 1, 0]):
        with pytest.raises(ElementValueError):
            IntegerCodebook.from_values(values, 0)
    with pytest.raises(ElementValueError, match="codebook_centre_offset"):
        IntegerCodebook.from_values([1, 2], 2)
