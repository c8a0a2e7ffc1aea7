"""Small annotated bitstreams, byte for byte: their meaning, their damage, and the same bytes written again."""

from __future__ import annotations

import io
from random import Random

import pytest

from nnc_core.bitstream import Bitstream, BitstreamWriter
from nnc_core.errors import BitstreamError, NncError
from nnc_core.nnr_model import Topology
from nnc_core.syntax import CompressedDataUnitHeader, ModelParameterSet, Reader, SyntaxContext
from nnc_core.syntax.model_parameter_set import nnr_model_parameter_set_payload
from nnc_core.tables.code_points import CompressedParameterTypes, PayloadType, TopologyStorageFormat
from nnc_core.tables.entry_point import EntryPoint

START = "00 04 02 00  00 08 06 81 00 40 00 80  00 06 0e 00 00 00"
STREAMS = {
    name: bytes.fromhex(text)
    for name, text in {
        "two tensors": f"""{START}
            00 13 16 09 77 00 30 48 28 30 90 80 eb a1 00 46 08 bf f8
            00 13 16 09 62 00 30 e0 82 60 e7 a5 00 15 80 86 30 36 1c""",
        "codebook": f"{START} 00 16 16 09 77 00 8f 90 1b 30 48 28 40 90 80 ef c7 c0 01 16 fb bc",
        "entry points": f"""{START}
            00 28 16 09 77 00 70 49 48 30 91 3c b0 5c 6c 20
            60 ef 9d 3c 56 3c 80 7b f9 de 8b 6b 10 f0 a7 d1 45 1d cc 84 01 8d 2e f0""",
        "block": f"""{START}
            00 4c 16 1d 84 80 63 2e 77 00 62 6e 2e 62 00 62 6e 2e 67 00 62 6e 2e 6d 00 62 6e 2e 76 00 63 2e 62 00
            3c 48 28 20 90 80
            ef 9d 00 15 a9 9f 1c c0 1c a8 db 70 00 56 07 fd 07 87 08 00 01 85 69 50 00 e5 14 ed 19 38 25 00 0f 58 6d c0
            """,
        "update": """00 04 02 01  00 08 06 81 08 40 00 80  00 06 0e 00 00 00
            00 16 16 09 77 00 bc 12 97 30 48 28 30 98 20 eb 8e 28 00 67 ff 30
            00 14 16 09 62 00 bc 31 87 30 e0 82 60 e7 a5 00 44 18 d8 70""",
        "texts": "00 04 02 01  00 12 06 01 60 4d 00 61 63 63 00 40 00 00 00 40 3f 80",
        "raw floats": """00 04 02 00  00 08 06 81 00 40 00 80
            00 1a 16 11 72 00 81 20 a0 82 00 00 80 3f 00 00 00 c0 00 00 00 3f 00 00 40 40""",
        "long unit size": "80 00 00 06 02 00  80 00 00 0a 06 81 00 40 00 80",
    }.items()
}


def header(stream: str, name: str) -> CompressedDataUnitHeader:
    return Bitstream(STREAMS[stream]).tensors[name].header


@pytest.mark.parametrize("name", STREAMS)
def test_an_annotated_bitstream_is_indexed_without_gaps(name: str) -> None:
    bitstream = Bitstream(STREAMS[name])
    ends = [unit.offset + unit.size for unit in bitstream.units]
    assert [unit.offset for unit in bitstream.units] == [0, *ends[:-1]]
    assert ends[-1] == len(STREAMS[name])


def test_a_plain_tensor_has_the_header_of_the_annotation() -> None:
    bitstream = Bitstream(STREAMS["two tensors"])
    assert list(bitstream.tensors) == ["w", "b"]
    w = bitstream.tensors["w"]
    assert bytes(w.payload) == bytes.fromhex("eb a1 00 46 08 bf f8")
    assert w.header == CompressedDataUnitHeader(topology_elem_id="w", tensor_dimensions=(2, 3))
    assert bitstream.tensors["b"].header.tensor_dimensions == (2,)
    assert (w.qp_density, w.quantization_parameter) == (2, 0)
    assert bitstream.topology == Topology(TopologyStorageFormat.NNR_TPL_UNREC, b"")


def test_a_codebook_has_the_values_of_the_annotation() -> None:
    codebook = header("codebook", "w").integer_codebook
    assert codebook is not None
    assert (codebook.values().tolist(), codebook.zero_offset, codebook.codebook_egk) == ([-2, 0, 5], 1, 1)


def test_entry_points_have_the_values_of_the_annotation() -> None:
    w = header("entry points", "w")
    assert (w.dq_flag, w.scan_order) == (True, 1)
    assert w.entry_points == (EntryPoint(46, 60, 5), EntryPoint(47, 54, 0))


def test_a_block_is_listed_apart_from_single_tensors() -> None:
    bitstream = Bitstream(STREAMS["block"])
    (block,) = bitstream.data_units
    assert block.names == ("c.w", "bn.b", "bn.g", "bn.m", "bn.v", "c.b")
    assert block.header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_BLOCK
    assert block.header.compressed_parameter_types == (
        CompressedParameterTypes.NNR_CPT_BN | CompressedParameterTypes.NNR_CPT_BI
    )
    assert len(block.payload) == 36


def test_an_update_names_its_node_and_its_parent() -> None:
    w, b = header("update", "w"), header("update", "b")
    assert (w.device_id, w.parameter_id, w.put_node_depth, w.parent_device_id) == (5, 0, 2, 5)
    assert (b.device_id, b.parameter_id, b.put_node_depth, b.parent_device_id) == (5, 1, 1, 5)
    assert (w.temporal_context_modeling_flag, b.temporal_context_modeling_flag) == (True, False)


def test_a_model_parameter_set_has_the_texts_of_the_annotation() -> None:
    mps = Bitstream(STREAMS["texts"]).mps
    assert mps is not None
    assert (mps.base_model_id, mps.performance_metric_type) == ("M", "acc")
    assert (mps.mps_qp_density, mps.mps_quantization_parameter) == (2, 0)
    assert mps.validation_set_performance == 0.75


def test_raw_floats_follow_their_header() -> None:
    bitstream = Bitstream(STREAMS["raw floats"])
    payload = bitstream.tensors["r"].payload
    assert memoryview(payload).cast("f").tolist() == [1.0, -2.0, 0.5, 3.0]


@pytest.mark.parametrize("name", sorted(STREAMS.keys() - {"long unit size"}))
def test_an_annotated_bitstream_is_written_again_byte_for_byte(name: str) -> None:
    bitstream = Bitstream(STREAMS[name])
    assert bitstream.mps is not None
    stream = io.BytesIO()
    writer = BitstreamWriter(stream, bitstream.mps, bitstream.general_profile_idc)
    if bitstream.topology is not None:
        writer.topology(bitstream.topology)
    for unit in bitstream.data_units:
        writer.data_unit(unit.header, unit.payload)
    assert stream.getvalue() == STREAMS[name]
    assert writer.size == len(STREAMS[name])


@pytest.mark.parametrize("name", STREAMS)
def test_a_bitstream_that_is_cut_anywhere_but_between_units_is_refused(name: str) -> None:
    whole = STREAMS[name]
    between = {unit.offset for unit in Bitstream(whole).units[1:]}
    for size in range(len(whole)):
        if size in between:
            assert len(Bitstream(whole[:size]).units) < len(Bitstream(whole).units)
        else:
            with pytest.raises(BitstreamError):
                Bitstream(whole[:size])


@pytest.mark.parametrize("name", STREAMS)
def test_a_damaged_bitstream_is_read_or_refused_with_a_typed_error(name: str) -> None:
    source = Random(name)
    refused = 0
    for _ in range(300):
        data = bytearray(STREAMS[name])
        for _ in range(source.randint(1, 3)):
            data[source.randrange(len(data))] = source.randrange(256)
        try:
            look_at_everything(Bitstream(data))
        except NncError:
            refused += 1
    assert refused > 0


def look_at_everything(bitstream: Bitstream) -> None:
    for unit in bitstream.units:
        bitstream.trace(unit)
        bitstream.payload(unit)
    for unit in bitstream.data_units:  # type: ignore[assignment]
        codebook = unit.header.integer_codebook
        assert codebook is None or len(codebook.values()) == codebook.codebook_size
    assert bitstream.topology is None or isinstance(bitstream.topology.data, bytes)


def test_the_trace_of_a_data_unit_is_the_annotation() -> None:
    bitstream = Bitstream(STREAMS["entry points"])
    traced = {element.name: (element.bits, element.value) for element in bitstream.trace(bitstream.units[3])}
    assert traced["nnr_unit_size"] == ("000000000101000", 40)
    assert traced["scan_order"] == ("0001", 1)
    assert traced["bit_offset_delta1"] == ("100000101110", 46)
    assert traced["cabac_offset[1]"] == ("00110110", 54)
    assert traced["bit_offset_delta2[1]"] == ("10000001", 1)


def test_a_parameter_set_with_a_wrong_alignment_is_refused_at_its_bit() -> None:
    with pytest.raises(BitstreamError, match="bit 32"):
        nnr_model_parameter_set_payload(
            Reader(bytes.fromhex("8100400081")), ModelParameterSet(), SyntaxContext(general_profile_idc=0)
        )
