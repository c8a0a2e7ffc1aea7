"""Every syntax table: what the sampler draws is written, counted, read and traced alike."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnc_core.errors import ElementValueError, LimitError, NncError, TruncatedError
from nnc_core.limits import Limits
from nnc_core.syntax import (
    CompressedDataUnitHeader,
    InputParameters,
    IntegerCodebook,
    ModelParameterSet,
    QuantizationUnitHeader,
    QuantizationUnitPayload,
    Reader,
    Sizer,
    StartUnitHeader,
    Syntax,
    SyntaxContext,
    TopologyElementsIdsList,
    TopologyUnitHeader,
    TopologyUnitPayload,
    Tracer,
    UnitHeader,
    Writer,
    coded_shapes,
    integer_codebook,
    nnr_compressed_data_unit_header,
    nnr_model_parameter_set_payload,
    nnr_quantization_unit_header,
    nnr_quantization_unit_payload,
    nnr_start_unit_header,
    nnr_topology_unit_header,
    nnr_topology_unit_payload,
    nnr_unit_header,
    nnr_unit_size,
    sample,
    topology_elements_ids_list,
)
from nnc_core.syntax.context import Decomposition
from nnc_core.syntax.layer_parameter_set import LayerParameterSet, nnr_layer_parameter_set
from nnc_core.syntax.pruning import PruningTopologyContainer, nnr_pruning_topology_container
from nnc_core.tables.code_points import CompressedParameterTypes, ParentNodeIdType, PayloadType
from nnc_core.tables.entry_point import EntryPoint

OUTSIDE = InputParameters((6, 4), 3, 1, decomposition_rank=2, g_number_of_rows=3)
BASE = SyntaxContext(general_profile_idc=0)
EXTENDED = SyntaxContext(general_profile_idc=1)
UPDATE = SyntaxContext(general_profile_idc=1, mps_parent_signalling_enabled_flag=True)
INDEXED = SyntaxContext(
    general_profile_idc=0, mps_topology_indexed_reference_flag=True, topology_elements=tuple("abcdefghij")
)
KNOWN = replace(UPDATE, input_parameters=lambda name: OUTSIDE)

Run = Callable[[Syntax, Any], None]


class Table(NamedTuple):
    run: Run
    record: Callable[[], Any]


def aligned(table: Run) -> Run:
    def run(s: Syntax, record: Any) -> None:
        table(s, record)
        s.byte_alignment()

    return run


def data_unit(ctx: SyntaxContext) -> Table:
    return Table(lambda s, h: nnr_compressed_data_unit_header(s, h, ctx), CompressedDataUnitHeader)


TABLES = {
    "unit header": Table(nnr_unit_header, UnitHeader),
    "start unit": Table(partial(nnr_start_unit_header, ctx=BASE), StartUnitHeader),
    "model parameter set, 2022": Table(lambda s, p: nnr_model_parameter_set_payload(s, p, BASE), ModelParameterSet),
    "model parameter set, 2024": Table(lambda s, p: nnr_model_parameter_set_payload(s, p, UPDATE), ModelParameterSet),
    "topology header": Table(partial(nnr_topology_unit_header, ctx=BASE), TopologyUnitHeader),
    "topology data": Table(
        lambda s, p: nnr_topology_unit_payload(s, p, TopologyUnitHeader(0), BASE), TopologyUnitPayload
    ),
    "reference list": Table(
        lambda s, p: nnr_topology_unit_payload(s, p, TopologyUnitHeader(6), BASE), TopologyUnitPayload
    ),
    "quantization header": Table(partial(nnr_quantization_unit_header, ctx=BASE), QuantizationUnitHeader),
    "quantization data": Table(
        partial(nnr_quantization_unit_payload, h=QuantizationUnitHeader(), ctx=BASE), QuantizationUnitPayload
    ),
    "list of names": Table(lambda s, i: topology_elements_ids_list(s, i, False, BASE), TopologyElementsIdsList),
    "list of indices": Table(lambda s, i: topology_elements_ids_list(s, i, True, BASE), TopologyElementsIdsList),
    "layer parameter set": Table(partial(nnr_layer_parameter_set, ctx=BASE), LayerParameterSet),
    "pruning container": Table(partial(nnr_pruning_topology_container, ctx=BASE), PruningTopologyContainer),
    "pruning container with indices": Table(
        partial(nnr_pruning_topology_container, ctx=INDEXED), PruningTopologyContainer
    ),
    "codebook": Table(aligned(integer_codebook), IntegerCodebook),
    "data unit, 2022": data_unit(BASE),
    "data unit, 2024": data_unit(EXTENDED),
    "data unit of an update": data_unit(UPDATE),
    "data unit with indices": data_unit(INDEXED),
    "data unit with parameters from outside": data_unit(KNOWN),
}


def encoded(run: Run, record: Any) -> bytes:
    writer = Writer()
    run(writer, record)
    return writer.data()


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=60, deadline=None)
@given(source=st.randoms(use_true_random=True))
def test_what_is_written_is_read_back_counted_and_traced(name: str, source: Random) -> None:
    table = TABLES[name]
    drawn = sample(table.run, table.record, source)
    data = encoded(table.run, drawn)

    sizer = Sizer()
    table.run(sizer, drawn)
    assert sizer.bits == 8 * len(data)

    reader, read = Reader(data), table.record()
    table.run(reader, read)
    assert read == drawn
    assert reader.byte_position == len(data)

    tracer, traced = Tracer(data), table.record()
    table.run(tracer, traced)
    assert traced == drawn
    check_trace(tracer, data, repeats=getattr(drawn, "integer_codebook_h", None) is not None)


def check_trace(tracer: Tracer, data: bytes, repeats: bool) -> None:
    elements = tracer.elements
    names = [element.name for element in elements if element.name != "byte_alignment()"]
    assert repeats or len(set(names)) == len(names)
    bits = format(int.from_bytes(b"\1" + data, "big"), "b")[1:]
    at = 0
    for element in elements:
        assert element.bit_offset == at
        assert element.descriptor == "bs(v)" or element.bits == bits[at : at + len(element.bits)]
        at += len(element.bits) if element.descriptor != "bs(v)" else 8 * len(element.value)  # type: ignore[arg-type]
    assert at == 8 * len(data)


@pytest.mark.parametrize("name", TABLES)
@settings(max_examples=25, deadline=None)
@given(source=st.randoms(use_true_random=True))
def test_a_record_cut_short_is_refused_with_a_typed_error(name: str, source: Random) -> None:
    table = TABLES[name]
    if name in ("topology data", "quantization data"):
        return  # any bytes will do
    drawn = sample(table.run, table.record, source)
    data = encoded(table.run, drawn)
    for size in range(len(data)):
        read = table.record()
        with suppress(NncError):
            table.run(Reader(data[:size]), read)
            # What is left may end where another reading of counts or entries ends, but not the one it was written with.
            assert reading(read) != reading(drawn)


def reading(record: Any) -> tuple[Any, Any]:
    """Which of several readings a record has been written or read with."""
    return getattr(record, "map_counts", None), getattr(record, "layout", None)


@pytest.mark.parametrize(("size", "bits"), [(4, 16), (32767, 16), (32768, 32), (2**31 - 1, 32)])
def test_a_unit_size_takes_the_short_form_where_it_fits(size: int, bits: int) -> None:
    writer, read = Writer(), UnitHeader()
    nnr_unit_size(writer, UnitHeader(size))
    assert writer.bits == bits
    nnr_unit_size(Reader(writer.data()), read)
    assert read.nnr_unit_size == size


def test_a_unit_size_beyond_31_bits_is_refused() -> None:
    with pytest.raises(ElementValueError, match="nnr_unit_size"):
        nnr_unit_size(Writer(), UnitHeader(2**31))


def test_reserved_fields_are_written_as_zero_and_ignored_on_reading() -> None:
    data = bytes.fromhex("817f400080")
    read = ModelParameterSet()
    nnr_model_parameter_set_payload(Reader(data), read, BASE)
    writer = Writer()
    nnr_model_parameter_set_payload(writer, read, BASE)
    assert writer.data() == bytes.fromhex("8100400080")


def test_the_base_tool_set_has_nothing_of_what_the_extended_one_adds_to_a_parameter_set() -> None:
    p = ModelParameterSet(
        base_model_id_present_flag=True,
        base_model_id="base",
        validation_set_performance_present_flag=True,
        metric_type_performance_map_valid_flag=True,
        performance_metric_type="top-1",
        validation_set_performance=0.5,
        mps_parent_signalling_enabled_flag=True,
        nnr_pre_flag=True,
    )
    assert encoded(lambda s, p: nnr_model_parameter_set_payload(s, p, BASE), p) == b"\0\0\x80"
    assert p == ModelParameterSet()


def test_quantization_parameters_are_absent_without_a_quantization_method() -> None:
    p = ModelParameterSet(mps_qp_density=2, mps_quantization_parameter=-3)
    data = encoded(lambda s, p: nnr_model_parameter_set_payload(s, p, EXTENDED), p)
    assert data == b"\0\0\x80"
    assert p.mps_qp_density is None


def read_header(header: CompressedDataUnitHeader, ctx: SyntaxContext, reading: SyntaxContext | None = None):
    data = encoded(data_unit(ctx).run, header)
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
    data = encoded(data_unit(BASE).run, header)
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
        encoded(data_unit(BASE).run, block(names + 1, types))


def test_a_block_with_one_name_is_refused() -> None:
    header = CompressedDataUnitHeader(PayloadType.NNR_PT_BLOCK, topology_elem_id="w", tensor_dimensions=(2,))
    with pytest.raises(ElementValueError, match="nnr_multiple_topology_elements_present_flag"):
        encoded(data_unit(BASE).run, header)


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
        encoded(data_unit(EXTENDED).run, CompressedDataUnitHeader(topology_elem_id="w", **fields))


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
    integer_codebook(Reader(encoded(aligned(integer_codebook), codebook)), read)
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
