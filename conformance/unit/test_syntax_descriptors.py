"""The descriptors: what each one looks like in bits, and what a driver refuses."""

from __future__ import annotations

import numpy as np
import pytest

from nnc_core.errors import AlignmentError, ElementValueError, LimitError, TruncatedError, UnitSizeError
from nnc_core.syntax import Reader, Sizer, Tracer, Writer
from nnc_core.tables.code_points import PayloadType

UE = {
    (0, 0): "1",
    (1, 0): "01 0",
    (2, 0): "01 1",
    (6, 0): "001 11",
    (12, 0): "0001 101",
    (0, 1): "1 0",
    (3, 1): "01 01",
    (12, 1): "001 110",
    (4, 2): "01 000",
    (12, 2): "001 0000",
    (8, 3): "01 0000",
    (12, 7): "1 0001100",
    (128, 7): "01 00000000",
    (384, 7): "001 000000000",
}
IE = {(0, 1): "1 0", (-1, 1): "01 00", (-2, 1): "01 10", (1, 2): "1 01", (-2, 2): "01 000", (3, 2): "01 001",
      (64, 7): "1 1111111", (-64, 7): "01 00000000"}  # fmt: skip


def from_bits(bits: str) -> bytes:
    bits = bits.replace(" ", "")
    return int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")


@pytest.mark.parametrize(("value", "k"), UE)
def test_an_unsigned_golomb_value_has_the_bits_of_the_specification(value: int, k: int) -> None:
    bits = UE[value, k]
    assert Reader(from_bits(bits)).ue(k, "x") == value
    assert written(lambda w: w.ue(k, "x", value)) == from_bits(bits + "1")


@pytest.mark.parametrize(("value", "k"), IE)
def test_a_signed_golomb_value_has_the_bits_of_the_specification(value: int, k: int) -> None:
    bits = IE[value, k]
    assert Reader(from_bits(bits)).ie(k, "x") == value
    assert written(lambda w: w.ie(k, "x", value)) == from_bits(bits + "1")


def written(write) -> bytes:
    writer = Writer()
    write(writer)
    writer.byte_alignment()
    return writer.data()


def test_a_float_is_stored_with_its_least_significant_byte_first_at_any_bit() -> None:
    def table(s, value: float = 0.0) -> float:
        s.u(2, "x", 1)
        return s.flt("validation_set_performance", value)

    data = written(lambda w: table(w, 0.7))
    assert data == from_bits("01 00110011 00110011 00110011 00111111 100000")
    assert table(Reader(data)) == float(np.float32(0.7))


def test_a_float_beyond_binary32_is_refused() -> None:
    with pytest.raises(ElementValueError, match="does not fit"):
        Writer().flt("x", 1e40)


def test_a_signed_field_is_twos_complement() -> None:
    data = written(lambda w: w.i(13, "mps_quantization_parameter", -60))
    assert data == from_bits("1111111000100 100")
    assert Reader(data).i(13, "mps_quantization_parameter") == -60


@pytest.mark.parametrize("value", [-1, 8])
def test_a_value_that_does_not_fit_its_field_is_refused_by_name(value: int) -> None:
    with pytest.raises(ElementValueError, match=r"mps_qp_density.*expected 0\.\.7"):
        Writer().u(3, "mps_qp_density", value)
    with pytest.raises(ElementValueError):
        Sizer().u(3, "mps_qp_density", value)


@pytest.mark.parametrize("value", [-4097, 4096])
def test_a_signed_value_that_does_not_fit_its_field_is_refused(value: int) -> None:
    with pytest.raises(ElementValueError, match=r"-4096\.\.4095"):
        Writer().i(13, "mps_quantization_parameter", value)


def test_numpy_integers_and_enumerations_are_written_like_integers() -> None:
    data = written(lambda w: (w.u(5, "x", PayloadType.NNR_PT_BLOCK), w.ue(7, "y", np.int64(300)), w.u(1, "z", True)))
    reader = Reader(data)
    assert (reader.u(5, "x"), reader.ue(7, "y"), reader.u(1, "z")) == (3, 300, 1)


def test_a_value_outside_its_legal_range_is_refused_with_its_place() -> None:
    reader = Reader(b"\x00\xf8", unit=7)
    reader.u(8, "before")
    with pytest.raises(ElementValueError) as caught:
        reader.u(5, "nnr_compressed_data_unit_payload_type", valid=range(4))
    error = caught.value
    assert (error.unit, error.bit_offset, error.element) == (7, 8, "nnr_compressed_data_unit_payload_type")
    assert error.expected == "0..3"


def test_a_field_that_runs_past_the_end_is_refused() -> None:
    with pytest.raises(TruncatedError, match="scan_order"):
        Reader(b"\xff").u(9, "scan_order")


@pytest.mark.parametrize("size", [0, 1, 2, 4])
def test_a_golomb_value_without_an_end_is_refused(size: int) -> None:
    with pytest.raises(TruncatedError):
        Reader(bytes(size)).ue(0, "x")


def test_a_golomb_value_whose_suffix_is_cut_is_refused() -> None:
    with pytest.raises(TruncatedError):
        Reader(b"\x01").ue(7, "x")


def test_a_golomb_prefix_of_more_than_32_zeros_is_refused() -> None:
    with pytest.raises(ElementValueError, match="too large"):
        Reader(bytes(20)).ue(0, "x")
    with pytest.raises(ElementValueError, match="not allowed"):
        Reader(from_bits("0" * 32 + "1" + "0" * 31 + "1")).ue(0, "x")


def test_the_largest_golomb_value_survives() -> None:
    for k in range(16):
        data = written(lambda w, k=k: w.ue(k, "x", 2**32 - 1))
        assert Reader(data).ue(k, "x") == 2**32 - 1


@pytest.mark.parametrize("bits", ["0", "10000001", "11", "00000000"])
def test_alignment_bits_other_than_a_one_and_zeros_are_refused(bits: str) -> None:
    with pytest.raises(AlignmentError):
        Reader(from_bits(bits)).byte_alignment()


def test_alignment_at_a_byte_boundary_is_a_whole_byte() -> None:
    assert written(lambda w: w.u(8, "x", 3)) == b"\x03\x80"


def test_text_without_a_terminator_is_refused() -> None:
    with pytest.raises(TruncatedError, match="no end"):
        Reader(b"conv1.weight").st("topology_elem_id")


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(ElementValueError, match="UTF-8"):
        Reader(b"\xc3\x28\0").st("topology_elem_id")
    with pytest.raises(ElementValueError, match="UTF-8"):
        Writer().st("topology_elem_id", "\ud800")


def test_text_longer_than_the_limit_is_refused() -> None:
    assert Reader(b"abc\0").st("x", longest=3) == "abc"
    with pytest.raises(LimitError, match="name_length"):
        Reader(b"abcd\0").st("x", longest=3)
    with pytest.raises(LimitError, match="name_length"):
        Writer().st("x", "abcd", longest=3)


def test_text_with_a_zero_byte_cannot_be_written() -> None:
    with pytest.raises(ElementValueError, match="zero byte"):
        Writer().st("topology_elem_id", "a\0b")


def test_text_in_the_middle_of_a_byte_is_refused() -> None:
    reader, writer = Reader(b"\0\0"), Writer()
    reader.u(1, "x")
    writer.u(1, "x", 0)
    with pytest.raises(AlignmentError):
        reader.st("topology_elem_id")
    with pytest.raises(ElementValueError):
        writer.st("topology_elem_id", "a")


def test_a_count_that_the_rest_cannot_hold_is_refused_before_anything_is_read() -> None:
    reader = Reader(bytes(4))
    reader.expect(4, 8, "x")
    with pytest.raises(TruncatedError, match="5 elements"):
        reader.expect(5, 8, "x")


def test_a_reader_stays_inside_its_unit() -> None:
    reader = Reader(b"\x01\x02\x03\x04", 1, 3)
    assert reader.u(16, "x") == 0x0203
    with pytest.raises(TruncatedError):
        reader.u(1, "x")


def test_a_unit_smaller_than_what_is_read_or_larger_than_the_data_is_refused() -> None:
    reader = Reader(bytes(8))
    reader.u(16, "nnr_unit_size")
    for size in (0, 2):
        with pytest.raises(UnitSizeError):
            reader.narrow(size)
    with pytest.raises(TruncatedError):
        reader.narrow(9)
    reader.narrow(3)
    with pytest.raises(TruncatedError):
        reader.u(9, "x")


def test_a_tracer_notes_name_descriptor_place_bits_and_value() -> None:
    tracer = Tracer(b"\x4aa\0\x80rest")
    tracer.u(3, "a")
    tracer.ue(1, "b")
    tracer.flag("c")
    tracer.st("d")
    tracer.byte_alignment()
    tracer.bs("e")
    assert tracer.elements == [
        ("a", "u(3)", 0, "010", 2),
        ("b", "ue(1)", 3, "0101", 3),
        ("c", "u(1)", 7, "0", 0),
        ("d", "st(v)", 8, "0110000100000000", "a"),
        ("byte_alignment()", "f(n)", 24, "10000000", None),
        ("e", "bs(v)", 32, "", b"rest"),
    ]
