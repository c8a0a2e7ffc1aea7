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

from nnc_core.errors import ElementValueError, NncError
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
from nnc_core.syntax.layer_parameter_set import LayerParameterSet, nnr_layer_parameter_set
from nnc_core.syntax.pruning import PruningTopologyContainer, nnr_pruning_topology_container

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
