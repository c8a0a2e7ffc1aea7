"""What a bitstream may ask for: every limit is enforced, and before any memory is taken."""

from __future__ import annotations

import io
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import nnc_core
from conformance.support import handmade
from nnc_core import CodingParameters, LimitError, Limits, NnrFile, Topology
from nnc_core import limits as limits_module
from nnc_core.bitstream import Bitstream
from nnc_core.coder.payload import Shape, _check_plausible
from nnc_core.entropy.native import Decoder, Encoder
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.errors import TruncatedError, UnitSizeError
from nnc_core.syntax.codebook import IntegerCodebook
from nnc_core.tables.code_points import NnrUnitType, PayloadType, TopologyStorageFormat

HUGE = 1 << 26  # elements: just within the limits of small files
DATA = nnc_core.encode(
    {"first": np.ones((4, 5), np.float32), "second": np.arange(7)},
    topology=Topology(TopologyStorageFormat.NNR_TPL_ONNX, 300 * b"graph "),
)


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """Fail if more than ``size`` bytes are allocated at a time (arrays count even before they are touched)."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size


# --- each limit ------------------------------------------------------------------------------------------------------

JUST_ENOUGH = {
    "tensor_elements": 20,
    "decoded_bytes": 4 * 20 + 8 * 7,
    "units": 5,
    "name_length": 6,
    "dimensions": 2,
    "topology_bytes": 1800,
}


def read_everything(limits: Limits) -> None:
    file = NnrFile(DATA, limits)
    assert file.topology is not None
    assert len(dict(file.decode_all())) == 2


@pytest.mark.parametrize("name", JUST_ENOUGH)
def test_a_limit_lets_pass_what_it_names_and_nothing_more(name: str) -> None:
    limits = replace(Limits(), **{name: JUST_ENOUGH[name]})
    read_everything(limits)
    with pytest.raises(LimitError) as caught:
        read_everything(replace(limits, **{name: JUST_ENOUGH[name] - 1}))
    assert (caught.value.limit, caught.value.maximum) == (name, JUST_ENOUGH[name] - 1)
    assert name in str(caught.value)


def test_every_limit_on_bitstreams_is_tested_here() -> None:
    # of graphs, in descriptions of models; the others where amplification is tested
    elsewhere = {"nesting", "name_bytes", "codebook_size", "entry_points", "list_entries"}
    assert {field.name for field in fields(Limits)} == JUST_ENOUGH.keys() | elsewhere


@pytest.mark.parametrize("name", ["decoded_bytes", "tensor_elements", "units"])
def test_the_functions_of_the_package_pass_limits_on(name: str, tmp_path: Path) -> None:
    limits = replace(Limits(), **{name: JUST_ENOUGH[name] - 1})
    with pytest.raises(LimitError):
        nnc_core.decode(DATA, limits=limits)
    path = tmp_path / "model.nnr"
    path.write_bytes(DATA)
    with pytest.raises(LimitError), nnc_core.open(path, limits=limits) as file, file.decoding_ahead() as ahead:
        ahead["first"]


def test_a_single_tensor_is_held_against_the_limit_alone() -> None:
    file = NnrFile(DATA, replace(Limits(), decoded_bytes=4 * 20))
    assert file["first"].nbytes == 80
    assert file["second"].nbytes == 56
    with pytest.raises(LimitError, match="decoded_bytes"):
        dict(file.decode_all())
    with pytest.raises(LimitError, match="tensor 'first' exceeds the limit decoded_bytes = 79"):
        NnrFile(DATA, replace(Limits(), decoded_bytes=79))["first"]


def test_a_longer_name_than_the_limit_is_not_written_either() -> None:
    with pytest.raises(LimitError, match="name_length"):
        nnc_core.encode({4097 * "x": np.ones(3)})


# --- little data that promise much -----------------------------------------------------------------------------------

SHAPES = [(HUGE,), (HUGE, 1), (1, HUGE), (HUGE // 2, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("profile", [0, 1])
@pytest.mark.parametrize("payload", [b"", b"\0" * 10, b"\xff" * 5000], ids=len)
def test_a_small_file_with_huge_dimensions_is_refused_without_memory_for_them(
    shape: tuple[int, ...], profile: int, payload: bytes
) -> None:
    data = handmade.one_unit(payload, shape, profile)
    with at_most(1 << 20), pytest.raises(TruncatedError, match="elements in") as caught:
        nnc_core.decode(data)
    assert (caught.value.unit, caught.value.tensor) == (2, "w")


@pytest.mark.parametrize("payload_type", [PayloadType.NNR_PT_INT, PayloadType.NNR_PT_RAW_FLOAT])
def test_the_same_holds_for_the_other_payload_types(payload_type: PayloadType) -> None:
    data = handmade.one_unit(bytes(100), (HUGE,), nnr_compressed_data_unit_payload_type=payload_type)
    with at_most(1 << 20), pytest.raises((TruncatedError, UnitSizeError)):
        nnc_core.decode(data)


def test_more_elements_than_the_limit_are_refused_when_the_file_is_opened() -> None:
    for shape in ((HUGE + 1,), (1 << 31, 1 << 31), ((1 << 32) - 1,) * 4):
        data = handmade.one_unit(b"", shape)
        with at_most(1 << 20), pytest.raises(LimitError, match="tensor_elements = 67108864"):
            NnrFile(data)


def test_skipped_rows_cannot_make_more_than_the_limit() -> None:
    """Two skipped rows take a byte, however long they are: here only a limit helps."""
    data = handmade.one_unit(bytes(10), (2, HUGE // 2))
    with at_most(1 << 20), pytest.raises(LimitError, match="decoded_bytes"):
        nnc_core.decode(data, limits=replace(Limits(), decoded_bytes=1 << 27))


def test_a_codebook_with_one_entry_cannot_make_more_than_the_limit() -> None:
    book = {"codebook_present_flag": True, "integer_codebook": IntegerCodebook(codebook_zero_value=3)}
    encoder = Encoder()
    encoder.iae(0, handmade.QP_BITS)
    parameters = TensorParameters(cabac_unary_length_minus1=9, codebook_size=1)
    encoder.tensor(np.zeros((300, 7), np.int32), parameters, TensorChoices())
    payload = encoder.finish()
    assert (nnc_core.decode(handmade.one_unit(payload, (300, 7), **book))["w"] == 3).all()
    with at_most(1 << 20), pytest.raises(LimitError, match="decoded_bytes"):
        nnc_core.decode(handmade.one_unit(payload, (HUGE,), **book), limits=Limits(decoded_bytes=1 << 27))


def test_entry_points_that_a_header_promises_but_does_not_have_take_no_memory() -> None:
    data = bytearray(handmade.one_unit(bytes(40), (HUGE // 2, 2), scan_order=0))
    end = Bitstream(bytes(data)).units[2].payload_offset
    # The header ends with scan_order and the alignment bit; scan_order 1 asks for 2**22 - 1 entry points.
    bits = int.from_bytes(data[end - 2 : end], "big")
    alignment_bit = bits & -bits
    data[end - 2 : end] = (bits | alignment_bit << 1).to_bytes(2, "big")
    with at_most(1 << 20), pytest.raises(TruncatedError, match="cabac_offset"):
        Bitstream(bytes(data), Limits(entry_points=HUGE))


def test_a_description_that_inflates_without_end_is_stopped_at_the_limit() -> None:
    topology = Topology(TopologyStorageFormat.NNR_TPL_ONNX, bytes(50_000_000))
    bomb = nnc_core.encode({}, topology=topology, limits=Limits(topology_bytes=50_000_000))
    assert len(bomb) < 60_000
    with at_most(3 << 20), pytest.raises(LimitError, match="topology_bytes"):
        _ = NnrFile(bomb, Limits(topology_bytes=1 << 20)).topology


def test_too_many_units_are_refused_by_their_number() -> None:
    start = DATA[: Bitstream(DATA).units[2].offset]
    unit = bytes([0, 5, (NnrUnitType.NNR_QNT << 2) | 2, 0, 0])
    with pytest.raises(LimitError, match="units"):
        NnrFile(start + 2000 * unit, Limits(units=1000))
    assert len(NnrFile(start + 900 * unit, Limits(units=1000)).units) == 902


# --- what is dense but true must not be taken for a lie --------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1 << 21,), (1, 1 << 21), (1 << 10, 1 << 11), (1 << 20, 2)])
@pytest.mark.parametrize("profile", [0, 1])
@pytest.mark.parametrize("param_opt_flag", [False, True])
def test_nothing_but_zeros_decodes_however_few_bytes_they_take(
    shape: tuple[int, ...], profile: int, param_opt_flag: bool
) -> None:
    p = CodingParameters(general_profile_idc=profile, param_opt_flag=param_opt_flag)
    data = nnc_core.encode({"zeros": np.zeros(shape, np.float32)}, parameters=p)
    assert len(data) < 20_000
    decoded = nnc_core.decode(data)["zeros"]
    assert decoded.shape == shape
    assert not decoded.any()


@pytest.mark.parametrize("unary", [0, 255])
def test_the_densest_payload_is_plausible_by_a_margin(unary: int) -> None:
    """A tensor of equal integers, with the fastest adaptation everywhere, costs the fewest bits that are possible."""
    parameters = TensorParameters(general_profile_idc=0, cabac_unary_length_minus1=unary)
    size = 1 << 19
    for level in (0, 1):
        levels = np.full((1, size), level, np.int32)
        best = min(len(coded(levels, parameters, index)) for index in range(9))
        _check_plausible([Shape(1, size, parameters)], best)
        with pytest.raises(TruncatedError):
            _check_plausible([Shape(1, size, parameters)], best // 20)


def coded(levels: NDArray[np.int32], parameters: TensorParameters, index: int) -> bytes:
    contexts = 53 + 4 * (parameters.cabac_unary_length_minus1 + 1) + 31
    encoder = Encoder()
    encoder.tensor(levels, parameters, TensorChoices(shift_indices=(index,) * contexts))
    payload = encoder.finish()
    np.testing.assert_array_equal(Decoder(payload).tensor(*levels.shape, parameters).levels, levels)  # type: ignore[call-arg]
    return payload


def test_the_compression_of_a_description_is_undone() -> None:
    unit = Bitstream(DATA).units[2]
    assert zlib.decompress(Bitstream(DATA).payload(unit)) == 300 * b"graph "


def test_limits_that_were_not_asked_for_follow_the_size_of_the_file() -> None:
    large = Limits().following(30 << 30)
    assert large.decoded_bytes == 32 * (30 << 30)  # 7 billion weights take 28 GB
    assert large.tensor_elements == 8 * (30 << 30)
    assert large.units == 30 << 20
    assert large.topology_bytes == Limits().topology_bytes
    assert Limits().following(32 << 20) == Limits()
    small = Limits().following(34)
    assert (small.decoded_bytes, small.tensor_elements) == (1 << 28, 1 << 26)
    assert small.topology_bytes == 1 << 28
    assert small.following(1 << 30).decoded_bytes == 1 << 28
    asked = Limits(decoded_bytes=1 << 20, tensor_elements=1 << 40)
    assert asked.following(30 << 30).decoded_bytes == 1 << 20
    assert asked.following(30 << 30).tensor_elements == 1 << 40
    assert large.following(1 << 20) == replace(large, topology_bytes=1 << 28)


def test_what_is_written_is_held_against_the_size_that_the_file_has_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "_DEFAULTS", Limits(decoded_bytes=4000))
    zeros = np.zeros((50, 50), np.float32)
    with pytest.raises(LimitError, match="decoded_bytes"):
        nnc_core.encode({"w": zeros}, limits=Limits(decoded_bytes=4000))
    noise = np.random.default_rng(0).normal(0, 1, (50, 50)).astype(np.float32)
    data = nnc_core.encode({"w": noise}, limits=Limits(decoded_bytes=4000))
    assert nnc_core.decode(data, limits=Limits(decoded_bytes=4000))["w"].shape == (50, 50)


def test_no_more_units_are_written_than_are_read() -> None:
    tensors = {f"{number}": np.ones(2, np.float32) for number in range(20)}
    data = nnc_core.encode(tensors)
    written = len(nnc_core.open(io.BytesIO(data)).units)
    assert nnc_core.encode(tensors, limits=Limits(units=written)) == data
    assert list(nnc_core.decode(data, limits=Limits(units=written))) == list(tensors)
    with pytest.raises(LimitError, match="units"):
        nnc_core.encode(tensors, limits=Limits(units=written - 1))


# --- limits that follow the file -------------------------------------------------------------------------------------


def test_a_description_may_inflate_to_what_those_of_models_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits_module, "HARMLESS", 1 << 12)
    topology = Topology(TopologyStorageFormat.NNR_TPL_ONNX, bytes(1 << 18))
    with pytest.raises(LimitError, match="topology_bytes"):
        nnc_core.encode({"w": np.ones(4)}, topology=topology)
    data = nnc_core.encode({"w": np.ones(4)}, topology=topology, limits=Limits(topology_bytes=1 << 18))
    with pytest.raises(LimitError, match=f"topology_bytes = {64 * len(data)}"):
        NnrFile(data).topology  # noqa: B018
    assert NnrFile(data, Limits(topology_bytes=1 << 18)).topology == topology


def test_a_tiny_network_with_large_masks_needs_no_limit() -> None:
    topology = Topology(TopologyStorageFormat.NNR_TPL_ONNX, bytes(1 << 25))
    data = nnc_core.encode({"w": np.ones(4)}, topology=topology)
    assert NnrFile(data).topology == topology
