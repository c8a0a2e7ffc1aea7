"""Abuse that was thought of, one test each: what it costs, and that it is refused as what it is."""

from __future__ import annotations

import io
import sys
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import nnc_core
from conformance.fuzz.seeds import bitstream_of, written
from nnc_core import _native
from nnc_core.approximator import native, reference
from nnc_core.approximator.approximation import Approximation
from nnc_core.approximator.codebook import reconstruct_codebook
from nnc_core.approximator.decomposition import recompose
from nnc_core.bitstream import Bitstream, BitstreamWriter
from nnc_core.entropy.native import Decoder, Encoder
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.errors import BitstreamError, LimitError, TruncatedError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.syntax import CompressedDataUnitHeader, SyntaxContext, Writer
from nnc_core.syntax.codebook import IntegerCodebook
from nnc_core.syntax.data_unit import nnr_compressed_data_unit_header
from nnc_core.syntax.layer_parameter_set import LayerParameterSet
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.syntax.units import unit
from nnc_core.tables.blocks import Member
from nnc_core.tables.code_points import CompressedParameterTypes, NnrUnitType, PayloadType, TopologyStorageFormat
from nnc_core.tables.entry_point import EntryPoint

NOTHING = bitstream_of([])
WIDE = SyntaxContext(
    limits=Limits(dimensions=1000, tensor_elements=1 << 62, codebook_size=1 << 20, entry_points=1 << 26)
)


def data_unit(payload: bytes, **fields: object) -> bytes:
    header = CompressedDataUnitHeader(**{"topology_elem_id": "w", **fields})
    return unit(NnrUnitType.NNR_NDU, written(nnr_compressed_data_unit_header, header, WIDE), payload)


def payload(levels: np.ndarray, row_skip: bool = False, **fields: object) -> bytes:
    encoder = Encoder()
    encoder.iae(0, 8)
    encoder.tensor(levels, TensorParameters(cabac_unary_length_minus1=9, **fields), TensorChoices(row_skip))
    return encoder.finish()


def reference_list(names: int, padding: bytes = b"") -> bytes:
    writer = Writer()
    writer.ue(7, "count_topology_elements_minus2", names - 2)
    writer.byte_alignment()
    packed = zlib.compress(writer.data() + bytes(names) + padding, 9)
    return unit(NnrUnitType.NNR_TPL, bytes((TopologyStorageFormat.NNR_TPL_REFLIST, 1)), packed)


# Files ----------------------------------------------------------------------------------------------------------------


def damaged(tmp_path: Path) -> Path:
    """A file whose headers are sound, but not its payload."""
    data = bytearray(nnc_core.encode({"w": np.arange(64, dtype=np.float32).reshape(8, 8)}))
    data[-12:] = b"\xff" * 12
    path = tmp_path / "damaged.nnr"
    path.write_bytes(data)
    return path


def test_a_truncated_file_is_reported_although_the_error_keeps_it_mapped(tmp_path: Path) -> None:
    path = damaged(tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TruncatedError):
        nnc_core.open(path)


def test_an_error_while_a_file_is_open_is_not_hidden_by_closing_it(tmp_path: Path) -> None:
    with pytest.raises(BitstreamError), nnc_core.open(damaged(tmp_path)) as file:
        file.decode("w")


def test_the_place_of_an_error_counts_from_the_start_of_its_unit() -> None:
    with pytest.raises(TruncatedError) as error:
        Bitstream(NOTHING + b"\x00\x20\x16")
    assert (error.value.unit, error.value.bit_offset) == (2, 0)


def test_a_file_may_be_closed_while_others_decode_from_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tensors = {f"t{i}": rng.normal(size=(50, 40)).astype(np.float32) for i in range(20)}
    path = tmp_path / "model.nnr"
    path.write_bytes(nnc_core.encode(tensors))
    expected = nnc_core.decode(path.read_bytes())
    file = nnc_core.open(path)

    def decoded(name: str) -> bool:
        try:
            return np.array_equal(file.decode(name), expected[name])
        except ValueError as error:  # as for any file that is closed
            return "released" in str(error)

    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(decoded, name) for name in (*tensors, *tensors)]
        results[5].result()
        file.close()
        assert all(result.result() for result in results)


def test_threads_may_decode_the_same_tensor_of_the_same_file() -> None:
    array = np.random.default_rng(0).normal(size=(90, 40)).astype(np.float32)
    file = nnc_core.NnrFile(nnc_core.encode({"w": array}))
    with ThreadPoolExecutor(8) as pool:
        first, *others = pool.map(file.decode, ["w"] * 32)
    assert all(np.array_equal(first, other) for other in others)


# Amplification --------------------------------------------------------------------------------------------------------


def test_names_in_a_compressed_reference_list_are_limited() -> None:
    assert len(Bitstream(NOTHING + reference_list(1000), Limits(units=1000)).units) == 3
    with pytest.raises(LimitError, match="units = 1000"):
        Bitstream(NOTHING + reference_list(1001), Limits(units=1000))


def test_names_in_several_reference_lists_are_limited_together() -> None:
    with pytest.raises(LimitError, match="1200 in topology_elem_id_list"):
        Bitstream(NOTHING + 3 * reference_list(400), Limits(units=1000))


@pytest.mark.parametrize("padding", [1 << 24, 1 << 27])
def test_an_inflated_reference_list_is_limited(padding: int) -> None:
    with pytest.raises(LimitError, match="name_bytes"):
        Bitstream(NOTHING + reference_list(2, bytes(padding)), Limits(name_bytes=1 << 20))


def test_many_tiny_units_take_work_in_proportion() -> None:
    def calls(count: int) -> int:
        made = 0

        def note(*_: object) -> None:
            nonlocal made
            made += 1

        before = sys.getprofile()
        sys.setprofile(note)
        try:
            assert len(Bitstream(NOTHING + b"\x00\x03\x48" * count).units) == count + 2
        finally:
            sys.setprofile(before)
        return made

    assert calls(4_000) < 11 * calls(400)


def test_factors_count_with_their_own_size() -> None:
    fields = {
        "tensor_dimensions": (1, 1),
        "compressed_parameter_types": CompressedParameterTypes.NNR_CPT_DC,
        "decomposition_rank": 1 << 20,
        "g_number_of_rows": 1,
        "codebook_present_flag": True,
        "integer_codebook": IntegerCodebook(),
    }
    coded = payload(np.zeros((1, 1), np.int32), codebook_size=1)
    data = NOTHING + b"".join(data_unit(coded, topology_elem_id=f"w{i}", **fields) for i in range(3))
    assert len(nnc_core.decode(data)) == 3
    with pytest.raises(LimitError, match="decoded_bytes"):
        nnc_core.decode(data, limits=Limits(decoded_bytes=1 << 23))


def test_elements_that_cannot_be_in_the_payload_take_no_memory() -> None:
    data = NOTHING + data_unit(bytes(9), tensor_dimensions=(1 << 26,))
    with pytest.raises(TruncatedError, match="elements in 9 payload bytes"):
        nnc_core.decode(data)


def test_skipped_rows_that_exceed_the_limit_are_refused() -> None:
    coded = payload(np.zeros((2, 2), np.int32), row_skip=True)
    assert nnc_core.decode(NOTHING + data_unit(coded, tensor_dimensions=(2, 1 << 20)))["w"].shape == (2, 1 << 20)
    with pytest.raises(LimitError, match="tensor_elements"):
        nnc_core.decode(NOTHING + data_unit(coded, tensor_dimensions=(2, 1 << 31)))


def test_entry_points_that_cannot_follow_are_refused() -> None:
    class Careless(Writer):
        def u(self, bits: int, name: str, value: int = 0, valid: object = None) -> int:
            value = super().u(bits, name, value, valid)
            if name == "scan_order":
                raise StopIteration
            return value

    writer = Careless()
    header = CompressedDataUnitHeader(topology_elem_id="w", tensor_dimensions=(1 << 25, 2), scan_order=1)
    with pytest.raises(StopIteration):
        nnr_compressed_data_unit_header(writer, header, WIDE)
    writer.byte_alignment()
    data = NOTHING + unit(NnrUnitType.NNR_NDU, writer.data(), bytes(100))
    with pytest.raises(TruncatedError, match="4194303 elements cannot follow"):
        Bitstream(data, Limits(entry_points=1 << 22))


def test_more_dimensions_than_arrays_have_are_named() -> None:
    raw = PayloadType.NNR_PT_RAW_FLOAT
    data = NOTHING + data_unit(bytes(4), tensor_dimensions=(1,) * 65, nnr_compressed_data_unit_payload_type=raw)
    with pytest.raises(LimitError, match="dimensions"):
        nnc_core.decode(data)
    with pytest.raises(UnsupportedError, match="65 dimensions"):
        nnc_core.decode(data, limits=Limits(dimensions=1000))


# Arithmetic -----------------------------------------------------------------------------------------------------------


def test_a_codebook_beyond_binary32_becomes_infinite_without_a_warning() -> None:
    book = np.array([-(2**31), 0, 2**31 - 1], np.int32)
    values = reconstruct_codebook(np.array([[-1, 0, 1]], np.int32), book, 1, 2.0**127)
    assert values.tolist() == [[-np.inf, 0, np.inf]]


def test_factors_whose_product_is_beyond_binary32_make_infinite_weights_without_a_warning() -> None:
    factors = {"g": np.array([[1e30, 1.0]], np.float32), "h": np.array([[1e30, -1e30], [0.0, np.inf]], np.float32)}
    block = {Member.G: Approximation(factors["g"]), Member.H: Approximation(factors["h"])}
    weight = recompose(block, (1, 2))[Member.WEIGHT].values
    assert weight[0, 0] == np.inf


@pytest.mark.parametrize("module", [native, reference])
def test_dependent_quantization_leaves_room_for_the_multiples_around(module: object) -> None:
    step, value = 1.7294965982437134, np.float32(3714065664)  # 2**31 steps, but fewer in binary32
    assert np.float32(value * (np.float32(1) / np.float32(step))) < 2**31 <= float(value) / step
    with pytest.raises(ValueError, match="too large"):
        module.quantize_dependent(np.full((2, 2), value), step)  # type: ignore[attr-defined]
    assert module.quantize_dependent(np.full((2, 2), value * np.float32(0.999)), step).min() > 2**30  # type: ignore[attr-defined]


# The native coder, used wrongly ---------------------------------------------------------------------------------------


def test_a_decoder_refuses_to_go_on_after_the_end() -> None:
    levels, parameters = np.arange(12, dtype=np.int32).reshape(3, 4), TensorParameters(cabac_unary_length_minus1=9)
    decoder = Decoder(payload(levels))
    decoder.iae(8)
    assert np.array_equal(decoder.tensor(3, 4, parameters).levels, levels)
    decoder.finish()
    for misuse in (decoder.finish, lambda: decoder.iae(8), lambda: decoder.tensor(3, 4, parameters)):
        with pytest.raises(RuntimeError, match="finished"):
            misuse()


def test_a_decoder_can_be_asked_again_after_an_error() -> None:
    decoder = Decoder(b"\xff" * 6)
    for _ in range(50):
        with pytest.raises(BitstreamError):
            decoder.tensor(64, 64, TensorParameters(scan_order=1))


def test_one_coder_in_many_threads_gives_nonsense_but_no_crash() -> None:
    coded = payload(np.random.default_rng(0).integers(-9, 9, (64, 64)).astype(np.int32))
    decoder, encoder = Decoder(coded), Encoder()

    def use(_: int) -> None:
        levels = np.ones((16, 64), np.int32)
        encoder.tensor(levels, TensorParameters(), TensorChoices())
        try:
            decoder.tensor(16, 64, TensorParameters())
        except BitstreamError:
            decoder.iae(8)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(64)))
    assert len(encoder.finish()) > 0


@pytest.mark.parametrize("scan_order", [-1, 5, 62, 1 << 30])
def test_a_scan_order_that_does_not_exist_is_refused(scan_order: int) -> None:
    values, levels = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.int32)
    with pytest.raises(ValueError, match="scan_order"):
        _native.quantize_dependent(values, 1.0, scan_order, 1.0, 10, None, levels)


def test_a_tensor_of_another_shape_has_no_place_for_levels() -> None:
    values = np.zeros((4, 4), np.float32)
    for quantize in (_native.quantize_dependent, _native.quantize_uniform):
        with pytest.raises(ValueError, match="same shape"):
            quantize(values, 1.0, 0, 0.0, 10, None, np.zeros((2, 8), np.int32))
        with pytest.raises(ValueError, match="cabac_unary_length_minus1"):
            quantize(values, 1.0, 0, 1.0, 256, None, np.zeros((4, 4), np.int32))
        with pytest.raises(ValueError, match="shift index"):
            quantize(values, 1.0, 0, 1.0, 0, bytes([9] * 88), np.zeros((4, 4), np.int32))


# A small file cannot ask for much -------------------------------------------------------------------------------------


def test_a_few_bytes_do_not_decode_to_gigabytes() -> None:
    data = NOTHING + data_unit(bytes(4), tensor_dimensions=(1 << 14, 1 << 15))
    with pytest.raises(LimitError, match="tensor_elements"):
        nnc_core.decode(data)


def test_what_is_sparse_decodes_without_being_asked_for() -> None:
    """The emptiest content that there is, far beyond the harmless size."""
    zeros = np.zeros((1 << 13, 1 << 13), np.float32)
    data = nnc_core.encode({"w": zeros}, qp=0)
    bounds = Limits().following(len(data))
    assert bounds.decoded_bytes >= zeros.nbytes
    assert bounds.decoded_bytes < Limits().decoded_bytes


def test_many_small_tensors_do_not_add_up_to_gigabytes() -> None:
    one = data_unit(payload(np.zeros((1, 1), np.int32)), tensor_dimensions=(1 << 11, 1 << 14))
    with pytest.raises(LimitError, match="decoded_bytes"):
        nnc_core.decode(NOTHING + b"".join(one.replace(b"w\0", bytes((97 + i, 0))) for i in range(20)))


def test_long_names_of_a_list_are_bounded_before_they_are_inflated() -> None:
    writer = Writer()
    writer.ue(7, "count_topology_elements_minus2", 29_998)
    writer.byte_alignment()
    names = b"".join(f"{number:05}".encode() + 3000 * "\u6a21".encode() + b"\0" for number in range(20))
    packed = zlib.compress(writer.data() + names + bytes(270_000_000), 9)
    data = NOTHING + unit(NnrUnitType.NNR_TPL, bytes((TopologyStorageFormat.NNR_TPL_REFLIST, 1)), packed)
    del names
    tracemalloc.start()
    with pytest.raises(LimitError, match="name_bytes"):
        Bitstream(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 27


def test_a_codebook_of_millions_is_refused_before_it_is_read() -> None:
    book = IntegerCodebook(
        codebook_size=1 << 17, codebook_delta_right=((1 << 17) - 1) * (0,), codebook_centre_offset=-(1 << 16)
    )
    coded = data_unit(b"", tensor_dimensions=(2, 2), codebook_present_flag=True, integer_codebook=book)
    with pytest.raises(LimitError, match="codebook_size"):
        Bitstream(NOTHING + coded)
    Bitstream(NOTHING + coded, Limits(codebook_size=1 << 17))


def test_codebooks_of_many_units_are_limited_together() -> None:
    """A bit of each makes an entry: without a bound, 4 MB take half a minute."""
    size = 1 << 16
    book = IntegerCodebook(
        codebook_size=size, codebook_delta_right=(size - 1) * (0,), codebook_centre_offset=-size // 2
    )
    header = {"tensor_dimensions": (2, 2), "codebook_present_flag": True, "integer_codebook": book}
    one = data_unit(b"", topology_elem_id="w0", **header)
    data = NOTHING + b"".join(one.replace(b"w0\0", bytes((100, 100 + i, 0))) for i in range(6))
    assert len(Bitstream(data, Limits(list_entries=6 * size)).units) == 8
    with pytest.raises(LimitError, match="list_entries"):
        Bitstream(data, Limits(list_entries=6 * size - 1))
    assert Limits().following(1 << 22).list_entries == Limits().list_entries
    assert Limits().following(1 << 30).list_entries == 1 << 26


def test_places_of_units_in_aggregates_and_entry_points_count_as_entries_of_codebooks_do() -> None:
    points = {"tensor_dimensions": (24, 1), "scan_order": 1, "entry_points": 2 * (EntryPoint(0, 0, 0),)}
    with pytest.raises(LimitError, match="2 in unit 2 exceeds the limit list_entries = 1"):
        Bitstream(NOTHING + data_unit(bytes(9), **points), Limits(list_entries=1))
    stream = io.BytesIO()
    writer = BitstreamWriter(stream, ModelParameterSet())
    with writer.aggregate(entry_points=True):
        writer.layer_parameter_set(LayerParameterSet())
        writer.layer_parameter_set(LayerParameterSet())
    with pytest.raises(LimitError, match="2 in unit 2 exceeds the limit list_entries = 1"):
        Bitstream(stream.getvalue(), Limits(list_entries=1))


def test_hundreds_of_thousands_of_entry_points_are_refused_before_they_are_read() -> None:
    header = {"tensor_dimensions": (1 << 21, 1), "scan_order": 1}
    with pytest.raises(LimitError, match="entry_points"):
        Bitstream(NOTHING + data_unit(bytes(600_000), **header))
