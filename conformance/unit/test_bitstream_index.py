"""The rules between units: order, sizes, names, references, fragments, topologies."""

from __future__ import annotations

import io
import mmap
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from nnc_core.bitstream import Bitstream, BitstreamWriter
from nnc_core.errors import (
    ElementValueError,
    LimitError,
    NncError,
    TruncatedError,
    UnitOrderError,
    UnitSizeError,
    UnsupportedError,
)
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.syntax import CompressedDataUnitHeader, ModelParameterSet, SyntaxContext, Writer, unit
from nnc_core.syntax.data_unit import nnr_compressed_data_unit_header
from nnc_core.syntax.units import unit_prefix
from nnc_core.tables.code_points import (
    PRIVATE_TOPOLOGY,
    CompressedParameterTypes,
    NnrUnitType,
    PayloadType,
    TopologyStorageFormat,
)
from nnc_core.tables.entry_point import EntryPoint

STR = bytes.fromhex("00040200")
MPS = bytes.fromhex("0008068100400080")
INDEXED_MPS = bytes.fromhex("0008068180400080")
UNQUANTIZED_MPS = bytes.fromhex("0006068000 80")
TPL = bytes.fromhex("00060e000000")
NDU = bytes.fromhex("00131609770030482830 9080eba1004608bff8")
RAW = bytes.fromhex("001a1611720081 20a0820000803f000000c00000003f00004040")
REFLIST = unit(NnrUnitType.NNR_TPL, b"\6\0", b"\x80\x80a\0b\0")


def data_unit(
    header: CompressedDataUnitHeader, payload: bytes = b"\x12\x34", counter: int = 0, **context: bool
) -> bytes:
    writer = Writer()
    nnr_compressed_data_unit_header(writer, header, SyntaxContext(0, **context))
    return unit(NnrUnitType.NNR_NDU, writer.data(), payload, counter)


def tensor(name: str = "w", **fields: object) -> CompressedDataUnitHeader:
    return CompressedDataUnitHeader(topology_elem_id=name, tensor_dimensions=(2, 3), **fields)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (MPS + STR, "does not begin"),
        (STR + STR, "second NNR_STR"),
        (STR + MPS + MPS, "second NNR_MPS"),
        (STR + NDU, "before the NNR_MPS"),
        (STR + MPS + NDU + NDU, "coded twice"),
        (STR + INDEXED_MPS + data_unit(
            CompressedDataUnitHeader(topology_elem_id_index=0, tensor_dimensions=(2,)),
            mps_topology_indexed_reference_flag=True), "before the reference list"),
        (STR + UNQUANTIZED_MPS + NDU, "qp_density"),
    ],
)  # fmt: skip
def test_units_in_the_wrong_order_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(UnitOrderError, match=message):
        Bitstream(data)


@pytest.mark.parametrize("data", [STR, STR + MPS, STR + TPL, STR + TPL + MPS, STR + UNQUANTIZED_MPS + RAW])
def test_a_bitstream_may_lack_data_units_or_have_its_topology_first(data: bytes) -> None:
    assert sum(found.size for found in Bitstream(data).units) == len(data)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", TruncatedError),
        (b"\0", TruncatedError),
        (STR + b"\0", TruncatedError),
        (STR + b"\0\0", UnitSizeError),
        (STR + b"\0\2\6", UnitSizeError),
        (STR + MPS[:-1], TruncatedError),
        (b"\0\5\2\0\0", UnitSizeError),
        (STR + b"\0\x09" + MPS[2:] + b"\0", UnitSizeError),
        (STR + MPS + b"\0\x19" + RAW[2:-1], UnitSizeError),
        (b"\0\4\2\2", ElementValueError),
    ],
)
def test_a_wrong_size_or_value_is_refused(data: bytes, error: type[NncError]) -> None:
    with pytest.raises(error):
        Bitstream(data)


def test_unknown_and_later_kinds_of_units_are_listed_and_skipped_by_their_size() -> None:
    private = bytes([0, 6, 40 << 2 | 2, 1, 2, 3])
    layer = bytes.fromhex("00080a00027ff980")
    bitstream = Bitstream(STR + MPS + private + layer + NDU)
    assert [found.type for found in bitstream.units] == [0, 1, 40, 2, 5]
    assert bitstream.units[2].header is None
    assert bytes(bitstream.payload(bitstream.units[2])) == b"\1\2\3"
    unit = bitstream.tensors["w"]
    assert (unit.qp_density, unit.quantization_parameter) == (3, -7)


def test_a_layer_parameter_set_may_bring_the_only_qp_density() -> None:
    bitstream = Bitstream(STR + UNQUANTIZED_MPS + bytes.fromhex("00080a00027ff980") + NDU)
    assert bitstream.tensors["w"].qp_density == 3


def test_more_units_than_the_limit_are_refused() -> None:
    assert len(Bitstream(STR + MPS + TPL, Limits(units=3)).units) == 3
    with pytest.raises(LimitError, match="units"):
        Bitstream(STR + MPS + TPL, Limits(units=2))


def test_a_memory_map_is_read_in_place_and_can_be_closed_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "model.nnr"
    path.write_bytes(STR + MPS + TPL + NDU)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        bitstream = Bitstream(mapped)
        payload = bitstream.tensors["w"].payload
        assert isinstance(payload, memoryview)
        assert bytes(payload) == NDU[12:]
        payload.release()
        bitstream.close()


def fragments(counters: list[int], header: CompressedDataUnitHeader | None = None) -> bytes:
    header = header or tensor()
    return b"".join(data_unit(header, bytes([counter] * 3), counter) for counter in counters)


def test_the_fragments_of_a_data_unit_are_listed_and_their_payloads_joined() -> None:
    bitstream = Bitstream(STR + MPS + fragments([3, 2, 1]) + data_unit(tensor("v")))
    assert [found.partial_data_counter for found in bitstream.units] == [0, 0, 3, 2, 1, 0]
    assert list(bitstream.tensors) == ["w", "v"]
    assert bytes(bitstream.tensors["w"].payload) == bytes([3, 3, 3, 2, 2, 2, 1, 1, 1])
    assert bytes(bitstream.tensors["v"].payload) == b"\x12\x34"


def test_the_size_of_raw_floats_is_that_of_all_fragments_together() -> None:
    raw = CompressedDataUnitHeader(PayloadType.NNR_PT_RAW_FLOAT, topology_elem_id="r", tensor_dimensions=(2,))
    parts = data_unit(raw, bytes(5), 2) + data_unit(raw, bytes(3), 1)
    assert len(Bitstream(STR + MPS + parts).tensors["r"].payload) == 8
    with pytest.raises(UnitSizeError, match="8 bytes"):
        Bitstream(STR + MPS + data_unit(raw, bytes(5), 2) + data_unit(raw, bytes(4), 1))


@pytest.mark.parametrize(
    "tail",
    [
        fragments([3, 1]),
        fragments([2, 2]),
        fragments([2]),
        fragments([2]) + TPL,
        fragments([2]) + data_unit(tensor()),
        fragments([2]) + fragments([1], tensor("v")),
        fragments([2]) + fragments([1], tensor(dq_flag=True)),
        fragments([1, 1]),
    ],
)
def test_fragments_that_do_not_belong_together_are_refused(tail: bytes) -> None:
    with pytest.raises(UnitOrderError):
        Bitstream(STR + MPS + tail)


def indexed(index: int) -> bytes:
    header = CompressedDataUnitHeader(topology_elem_id_index=index, tensor_dimensions=(2,))
    return data_unit(header, mps_topology_indexed_reference_flag=True)


@pytest.mark.parametrize(
    "reference_list", [REFLIST, unit(NnrUnitType.NNR_TPL, b"\6\1", zlib.compress(b"\x80\x80a\0b\0"))]
)
def test_an_index_stands_for_a_name_of_the_reference_list(reference_list: bytes) -> None:
    bitstream = Bitstream(STR + INDEXED_MPS + reference_list + indexed(1) + indexed(0))
    assert list(bitstream.tensors) == ["b", "a"]
    assert bitstream.topology is None


def test_the_reference_list_is_in_the_trace_of_its_unit() -> None:
    bitstream = Bitstream(STR + INDEXED_MPS + REFLIST)
    traced = {element.name: element.value for element in bitstream.trace(bitstream.units[2])}
    assert (traced["topology_elem_id_list[0]"], traced["topology_elem_id_list[1]"]) == ("a", "b")


def test_an_index_beyond_the_reference_list_is_refused() -> None:
    with pytest.raises(ElementValueError, match="topology_elem_id_index"):
        Bitstream(STR + INDEXED_MPS + REFLIST + indexed(2))


def test_bytes_after_the_reference_list_are_refused() -> None:
    with pytest.raises(UnitSizeError, match="bytes follow"):
        Bitstream(STR + INDEXED_MPS + unit(NnrUnitType.NNR_TPL, b"\6\0", b"\x80\x80a\0b\0c\0"))


def topology_unit(storage: int, compression: int, payload: bytes) -> Bitstream:
    return Bitstream(STR + MPS + unit(NnrUnitType.NNR_TPL, bytes([storage, compression]), payload))


@pytest.mark.parametrize("data", [b"\0\0", b"onnx\0\0", b"\0x", b"", bytes(range(256)) * 40])
@pytest.mark.parametrize("compression", [0, 1])
def test_topology_data_come_back_byte_for_byte(data: bytes, compression: int) -> None:
    payload = zlib.compress(data) if compression else data
    topology = topology_unit(TopologyStorageFormat.NNR_TPL_ONNX, compression, payload).topology
    assert topology == Topology(TopologyStorageFormat.NNR_TPL_ONNX, data)


def test_a_lone_zero_byte_is_an_empty_topology() -> None:
    assert topology_unit(3, 0, b"\0").topology == Topology(TopologyStorageFormat.NNR_TPL_PYT, b"")


def test_a_topology_that_inflates_beyond_the_limit_is_refused() -> None:
    data = STR + MPS + unit(NnrUnitType.NNR_TPL, b"\2\1", zlib.compress(bytes(100_000)))
    assert Bitstream(data, Limits(topology_bytes=100_000)).topology is not None
    with pytest.raises(LimitError, match="topology_bytes"):
        _ = Bitstream(data, Limits(topology_bytes=99_999)).topology


@pytest.mark.parametrize(
    ("payload", "error"),
    [
        (b"no zlib stream", ElementValueError),
        (zlib.compress(b"topology" * 30)[:-1], TruncatedError),
        (zlib.compress(b"topology") + b"\0", UnitSizeError),
    ],
)
def test_a_damaged_compressed_topology_is_refused_when_it_is_read(payload: bytes, error: type[NncError]) -> None:
    bitstream = topology_unit(2, 1, payload)
    with pytest.raises(error):
        _ = bitstream.topology


@pytest.mark.parametrize(("storage", "compression"), [(7, 0), (127, 0), (2, 2)])
def test_an_unknown_topology_format_is_named_when_it_is_read(storage: int, compression: int) -> None:
    bitstream = topology_unit(storage, compression, b"x")
    with pytest.raises(UnsupportedError, match=r"topology_.*_format"):
        _ = bitstream.topology


def test_a_pruning_container_is_listed_beside_the_topology() -> None:
    bitstream = Bitstream(STR + MPS + TPL + unit(NnrUnitType.NNR_TPL, b"\5\0", b"\x10"))
    assert bitstream.topology is not None
    assert bitstream.trace(bitstream.units[3])[-1].name == "nnr_reserved_zero_3bits"


def test_two_topologies_are_not_mixed_up() -> None:
    bitstream = Bitstream(STR + MPS + TPL + TPL)
    with pytest.raises(UnsupportedError, match="several"):
        _ = bitstream.topology


def quantization_unit(storage: int, compression: int, payload: bytes) -> bytes:
    return unit(NnrUnitType.NNR_QNT, bytes([storage, compression]), payload)


@pytest.mark.parametrize("data", [b"\0\0", b"quant\0\0", b"\0x", b"", bytes(range(256)) * 40])
@pytest.mark.parametrize("compression", [0, 1])
@pytest.mark.parametrize("first", [False, True])
def test_quantization_data_come_back_byte_for_byte_beside_the_topology(
    data: bytes, compression: int, first: bool
) -> None:
    qnt = quantization_unit(2, compression, zlib.compress(data) if compression else data)
    tpl = unit(NnrUnitType.NNR_TPL, b"\2\0", b"graph")
    topology = Bitstream(STR + MPS + (qnt + tpl if first else tpl + qnt)).topology
    assert topology == Topology(TopologyStorageFormat.NNR_TPL_ONNX, b"graph", data)


def test_a_lone_zero_byte_is_an_empty_quantization_description() -> None:
    topology = Bitstream(STR + MPS + TPL + quantization_unit(0, 0, b"\0")).topology
    assert topology is not None
    assert topology.quantization == b""


def test_a_quantization_unit_alone_makes_no_topology() -> None:
    assert Bitstream(STR + MPS + quantization_unit(1, 0, b"x")).topology is None


def test_quantization_that_inflates_beyond_the_limit_is_refused() -> None:
    data = STR + MPS + TPL + quantization_unit(0, 1, zlib.compress(bytes(100_000)))
    assert Bitstream(data, Limits(topology_bytes=100_000)).topology is not None
    with pytest.raises(LimitError, match=r"quantization_data.*topology_bytes"):
        _ = Bitstream(data, Limits(topology_bytes=99_999)).topology


@pytest.mark.parametrize(
    ("units", "error", "message"),
    [
        (quantization_unit(0, 1, b"no zlib stream"), ElementValueError, "quantization_data"),
        (quantization_unit(0, 1, zlib.compress(b"quant" * 30)[:-1]), TruncatedError, "quantization_data"),
        (quantization_unit(0, 1, zlib.compress(b"quant") + b"\0"), UnitSizeError, "quantization_data"),
        (quantization_unit(0, 2, b"x"), UnsupportedError, "quantization_compression_format 2"),
        (quantization_unit(1, 0, b"x"), UnsupportedError, "quantization_storage_format 1 beside .* 0"),
        (quantization_unit(0, 0, b"x") * 2, UnsupportedError, "several"),
    ],
)
def test_damaged_or_unknown_quantization_is_refused_when_it_is_read(
    units: bytes, error: type[NncError], message: str
) -> None:
    bitstream = Bitstream(STR + MPS + TPL + units)
    with pytest.raises(error, match=message):
        _ = bitstream.topology


@pytest.mark.parametrize("size", [0, 1])
def test_a_quantization_unit_that_ends_inside_its_header_is_refused(size: int) -> None:
    with pytest.raises(TruncatedError, match="quantization_"):
        Bitstream(STR + MPS + unit(NnrUnitType.NNR_QNT, bytes(size)))


def test_a_quantization_unit_is_traced_with_its_data_where_they_are_not_compressed() -> None:
    bitstream = Bitstream(STR + MPS + quantization_unit(1, 0, b"data") + quantization_unit(1, 1, b"data"))
    assert [e.name for e in bitstream.trace(bitstream.units[2])][-3:] == [
        "quantization_storage_format",
        "quantization_compression_format",
        "quantization_data",
    ]
    assert bitstream.trace(bitstream.units[3])[-1].name == "quantization_compression_format"


def test_private_topology_units_are_passed_over_but_for_our_own() -> None:
    foreign = unit(NnrUnitType.NNR_TPL, b"\xc8\0", b"foreign")
    own = unit(NnrUnitType.NNR_TPL, bytes([PRIVATE_TOPOLOGY, 0]), b"own")
    topology = Topology(TopologyStorageFormat.NNR_TPL_UNREC, b"")
    assert Bitstream(STR + MPS + TPL + foreign * 2).topology == topology
    assert Bitstream(STR + MPS + own + TPL + foreign).topology == replace(topology, private=b"own")
    with pytest.raises(UnsupportedError, match="several"):
        _ = Bitstream(STR + MPS + TPL + own + own).topology


def test_a_private_topology_alone_is_not_taken_for_a_description() -> None:
    with pytest.raises(UnsupportedError, match="topology_storage_format 128"):
        _ = Bitstream(STR + MPS + unit(NnrUnitType.NNR_TPL, bytes([PRIVATE_TOPOLOGY, 0]), b"own")).topology


def test_the_format_of_an_application_counts_where_there_is_no_other_description() -> None:
    foreign = unit(NnrUnitType.NNR_TPL, b"\xc8\0", b"foreign")
    own = unit(NnrUnitType.NNR_TPL, bytes([PRIVATE_TOPOLOGY, 0]), b"own")
    assert Bitstream(STR + MPS + own + foreign).topology == Topology(200, b"foreign", private=b"own")
    with pytest.raises(UnsupportedError, match="several"):
        _ = Bitstream(STR + MPS + foreign * 2).topology


def written(**fields: bool) -> tuple[io.BytesIO, BitstreamWriter]:
    stream = io.BytesIO()
    mps = ModelParameterSet(
        topology_carriage_flag=True, mps_quantization_method_flags=1, mps_qp_density=2, mps_quantization_parameter=0
    )
    return stream, BitstreamWriter(stream, mps)


@pytest.mark.parametrize("data", [b"", b"x", b"a long description " * 100, b"ends in zero\0"])
def test_a_written_topology_comes_back_and_is_never_larger_than_its_data(data: bytes) -> None:
    stream, writer = written()
    writer.topology(Topology(TopologyStorageFormat.NNR_TPL_NNEF, data))
    bitstream = Bitstream(stream.getvalue())
    assert bitstream.topology == Topology(TopologyStorageFormat.NNR_TPL_NNEF, data)
    assert bitstream.units[2].payload_size <= max(1, len(data))


@pytest.mark.parametrize("data", [None, b"", b"x", b"a long description " * 100])
def test_what_comes_with_a_topology_is_written_and_read_back(data: bytes | None) -> None:
    stream, writer = written()
    topology = Topology(TopologyStorageFormat.NNR_TPL_NNEF, b"graph", data, data)
    writer.topology(topology)
    bitstream = Bitstream(stream.getvalue())
    assert bitstream.topology == topology
    assert len(stream.getvalue()) == writer.size
    types = [NnrUnitType.NNR_STR, NnrUnitType.NNR_MPS, NnrUnitType.NNR_TPL]
    types += [] if data is None else [NnrUnitType.NNR_QNT, NnrUnitType.NNR_TPL]
    assert [found.type for found in bitstream.units] == types
    assert all(found.payload_size <= max(1, len(data or b"")) for found in bitstream.units[3:])


def test_a_writer_refuses_quantization_in_terms_of_a_format_without_code_point() -> None:
    _, writer = written()
    with pytest.raises(UnsupportedError, match="quantization_storage_format 5"):
        writer.topology(Topology(TopologyStorageFormat.NNR_TPL_PRUN, b"", b"data"))


def test_a_writer_refuses_to_write_a_tensor_twice() -> None:
    _, writer = written()
    writer.data_unit(tensor(), b"\x12")
    with pytest.raises(UnitOrderError, match="'w'"):
        writer.data_unit(tensor(), b"\x12")


def test_factors_in_units_of_their_own_are_told_apart_when_written_and_when_read() -> None:
    def factor(name: str, entries: int) -> CompressedDataUnitHeader:
        return CompressedDataUnitHeader(
            topology_elem_id=name,
            compressed_parameter_types=CompressedParameterTypes.NNR_CPT_DC,
            decomposition_rank=9,
            g_number_of_rows=20,
            tensor_dimensions=(20, 9),
            scan_order=1,
            entry_points=tuple(EntryPoint(7 + j, j, 0) for j in range(entries)),
        )

    stream, writer = written()
    headers = [factor("u_G", 2), factor("u_H", 1), factor("v_G", 2), factor("v_H", 1)]
    for header in headers:
        writer.data_unit(header, b"\x12")
    read = Bitstream(stream.getvalue()).tensors
    assert [found.header for found in read.values()] == headers


def test_a_large_unit_has_the_long_size_field() -> None:
    stream, writer = written()
    writer.data_unit(tensor(), bytes(40_000))
    found = Bitstream(stream.getvalue()).units[2]
    assert found.payload_size == 40_000
    assert stream.getvalue()[found.offset] == 0x80


def test_the_size_field_is_long_exactly_where_the_short_one_is_too_small() -> None:
    assert unit_prefix(NnrUnitType.NNR_TPL, b"", 32764) == b"\x7f\xff\x0e"
    assert unit_prefix(NnrUnitType.NNR_TPL, b"", 32765) == b"\x80\x00\x80\x02\x0e"
    assert unit_prefix(NnrUnitType.NNR_TPL, b"", 2**31 - 6)[:4] == b"\xff\xff\xff\xff"
    with pytest.raises(LimitError, match="nnr_unit_size"):
        unit_prefix(NnrUnitType.NNR_TPL, b"", 2**31 - 5)


def test_only_a_data_unit_has_a_data_header() -> None:
    with pytest.raises(TypeError, match="not a data unit"):
        _ = Bitstream(STR + MPS).units[1].data_header
