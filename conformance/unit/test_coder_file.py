"""An NNR file as a mapping: opened without decoding, read tensor by tensor, and closed again."""

from __future__ import annotations

import io
import mmap
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import nnc_core
from conformance.support import handmade
from nnc_core import (
    BitstreamError,
    CodingParameters,
    InputParameters,
    ModelError,
    NnrFile,
    SourceModel,
    Topology,
)
from nnc_core.bitstream import Bitstream
from nnc_core.errors import ElementValueError, PayloadError, TruncatedError, UnitOrderError, UnitSizeError
from nnc_core.tables.code_points import CompressedParameterTypes, NnrUnitType, PayloadType, TopologyStorageFormat

ONNX = TopologyStorageFormat.NNR_TPL_ONNX


def tensors() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(7)
    return {
        "conv.weight": rng.normal(0, 0.1, (16, 3, 3, 3)).astype(np.float32),
        "conv.bias": rng.normal(0, 0.1, 16).astype(np.float16),
        "steps": np.arange(-5, 7).reshape(3, 4),
        "odd": np.array([1.0, np.nan], np.float32),
        "fc.weight": rng.normal(0, 0.1, (30, 40)),
    }


@pytest.fixture(scope="module")
def data() -> bytes:
    return nnc_core.encode(tensors(), parameters=CodingParameters(-38), topology=Topology(ONNX, b"graph"))


@pytest.fixture
def path(data: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "model.nnr"
    path.write_bytes(data)
    return path


# --- opening and closing ---------------------------------------------------------------------------------------------


def test_an_opened_file_decodes_to_the_same_as_its_bytes(path: Path, data: bytes) -> None:
    expected = nnc_core.decode(data)
    with nnc_core.open(path) as file:
        found = dict(file)
    assert list(found) == list(expected)
    assert all(found[name].tobytes() == expected[name].tobytes() for name in found)


def test_the_name_of_a_file_may_be_text(path: Path) -> None:
    with nnc_core.open(str(path)) as file:
        assert "steps" in file


def open_files() -> list[str]:
    """The numbers of the files that this process has open."""
    return os.listdir("/dev/fd")


def test_leaving_the_context_closes_the_file(path: Path) -> None:
    before = len(open_files())
    with nnc_core.open(path) as file:
        array = file["fc.weight"]
        assert len(open_files()) == before + 1
    assert len(open_files()) == before
    assert array.shape == (30, 40)
    with pytest.raises(ValueError, match="released"):
        file.decode("fc.weight")


def test_closing_twice_does_no_harm(path: Path) -> None:
    file = nnc_core.open(path)
    file.close()
    file.close()


def test_an_error_inside_the_context_closes_the_file_too(path: Path) -> None:
    before = len(open_files())
    file = nnc_core.open(path)
    with pytest.raises(KeyError), file:
        file.decode("absent")
    assert len(open_files()) == before


def test_arrays_do_not_hold_on_to_the_file(path: Path) -> None:
    with nnc_core.open(path) as file:
        arrays = dict(file)
        assert file.topology is not None
    path.unlink()
    assert arrays["odd"][0] == 1.0


def test_a_missing_file_is_the_error_of_the_operating_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        nnc_core.open(tmp_path / "absent.nnr")
    with pytest.raises(IsADirectoryError):
        nnc_core.open(tmp_path)


def test_an_empty_file_is_not_a_bitstream(tmp_path: Path) -> None:
    path = tmp_path / "empty.nnr"
    path.touch()
    with pytest.raises(BitstreamError):
        nnc_core.open(path)
    with pytest.raises(BitstreamError):
        nnc_core.decode(b"")


@pytest.mark.parametrize("content", [b"\0", b"not an NNR file", b"PK\x03\x04" + bytes(100), bytes(4096)])
def test_a_file_of_another_kind_is_not_a_bitstream(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.nnr"
    path.write_bytes(content)
    with pytest.raises(BitstreamError):
        nnc_core.open(path)


def test_any_buffer_of_bytes_can_be_decoded(data: bytes) -> None:
    expected = nnc_core.decode(data)
    for buffer in (bytearray(data), memoryview(data)):
        decoded = nnc_core.decode(buffer)
        assert all(decoded[name].tobytes() == expected[name].tobytes() for name in expected)


# --- as a mapping ----------------------------------------------------------------------------------------------------


def test_a_file_is_a_mapping_in_bitstream_order(path: Path) -> None:
    with nnc_core.open(path) as file:
        assert isinstance(file, Mapping)
        assert list(file) == list(file.keys()) == list(tensors())
        assert len(file) == 5
        assert "steps" in file
        assert "absent" not in file
        assert 3 not in file
        assert file.get("absent") is None
        np.testing.assert_array_equal(file["steps"], tensors()["steps"])
        with pytest.raises(KeyError, match="absent"):
            file["absent"]
        with pytest.raises(KeyError, match="absent"):
            file.decode("absent")


def test_what_is_said_of_the_tensors_is_true(data: bytes) -> None:
    file = NnrFile(data)
    infos = file.tensors
    assert list(infos) == list(file)
    weight, bias, steps, odd, fc = infos.values()
    assert (weight.name, weight.shape, weight.dtype, weight.payload_type) == (
        "conv.weight",
        (16, 3, 3, 3),
        "float32",
        "NNR_PT_FLOAT",
    )
    assert (weight.qp, weight.dq_flag, weight.scan_order) == (-38, True, 0)
    assert (bias.dtype, bias.qp) == ("float16", -75)
    assert (steps.dtype, steps.payload_type, steps.qp, steps.dq_flag) == ("int64", "NNR_PT_INT", None, False)
    assert (odd.dtype, odd.payload_type, odd.qp) == ("float32", "NNR_PT_RAW_FLOAT", None)
    assert fc.dtype == "float64"
    assert [tensor.unit for tensor in infos.values()] == [3, 4, 5, 6, 7]
    assert [tensor.size for tensor in infos.values()] == [unit.size for unit in file.units[3:]]
    for name, tensor in infos.items():
        assert (file[name].dtype.name, file[name].shape) == (tensor.dtype, tensor.shape)


def test_the_units_are_listed_in_order(data: bytes) -> None:
    kinds = [NnrUnitType(unit.type).name for unit in NnrFile(data).units]
    assert kinds == ["NNR_STR", "NNR_MPS", "NNR_TPL"] + 5 * ["NNR_NDU"]
    assert sum(unit.size for unit in NnrFile(data).units) == len(data)


# --- one tensor at a time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(tensors()))
def test_decoding_a_tensor_touches_its_unit_only(name: str, data: bytes) -> None:
    damaged = NnrFile(handmade.with_garbage(data, spared=name))
    assert damaged[name].tobytes() == NnrFile(data)[name].tobytes()
    for other in damaged:
        if other not in (name, "odd"):  # any four bytes are a float
            with pytest.raises(BitstreamError) as caught:
                damaged[other]
            assert (caught.value.tensor, caught.value.unit) == (other, damaged.tensors[other].unit)


def test_indexing_a_file_reads_no_payload(path: Path, data: bytes) -> None:
    with path.open("r+b") as stream:
        writable = mmap.mmap(stream.fileno(), 0)
        file = NnrFile(writable)
        for unit in filter(lambda unit: unit.names, file.units):
            writable[unit.payload_offset : unit.payload_offset + unit.payload_size] = bytes(unit.payload_size)
        unit = file.bitstream.tensors["steps"].units[0]
        end = unit.payload_offset + unit.payload_size
        writable[unit.payload_offset : end] = data[unit.payload_offset : end]
        np.testing.assert_array_equal(file["steps"], tensors()["steps"])
        file.close()


@pytest.mark.parametrize("threads", [1, 2, 5, None])
@pytest.mark.parametrize(
    "order",
    [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 2, 2], [0, 4, 0, 4, 1, 1, 3], [3]],
    ids=["forwards", "backwards", "repeated", "mixed", "one"],
)
def test_decoding_ahead_gives_the_same_tensors_in_any_order(data: bytes, threads: int | None, order: list[int]) -> None:
    expected = nnc_core.decode(data)
    names = list(expected)
    file = NnrFile(data)
    with file.decoding_ahead(threads) as ahead:
        assert list(ahead) == names
        assert len(ahead) == len(names)
        for place in order:
            array = ahead[names[place]]
            assert array.tobytes() == expected[names[place]].tobytes()
            array.fill(0)  # it is the caller's now
        with pytest.raises(KeyError):
            ahead["absent"]


def test_decoding_ahead_reports_a_damaged_tensor_when_it_is_asked_for(data: bytes) -> None:
    file = NnrFile(handmade.with_garbage(data, spared="conv.weight"))
    with file.decoding_ahead(3) as ahead:
        assert ahead["conv.weight"].shape == (16, 3, 3, 3)
        with pytest.raises(BitstreamError, match=r"tensor 'fc\.weight'"):
            ahead["fc.weight"]


def test_a_file_can_be_closed_after_decoding_ahead_was_left_early(path: Path) -> None:
    with nnc_core.open(path) as file, file.decoding_ahead(2) as ahead:
        assert ahead["conv.weight"].shape == (16, 3, 3, 3)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_damaged_tensor_stops_the_decoding_of_all(data: bytes, threads: int) -> None:
    with pytest.raises(BitstreamError):
        nnc_core.decode(handmade.with_garbage(data, spared="odd"), threads=threads)


# --- the topology ----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300) | st.binary(min_size=1, max_size=4).map(lambda part: 200 * part))
@example(b"\0")
def test_any_description_survives(description: bytes) -> None:
    for storage_format in (ONNX, TopologyStorageFormat.NNR_TPL_UNREC, TopologyStorageFormat.NNR_TPL_TEF):
        data = nnc_core.encode({"w": np.ones(3)}, topology=Topology(storage_format, description))
        assert NnrFile(data).topology == Topology(storage_format, description)
        assert list(nnc_core.decode(data)) == ["w"]


def test_a_description_is_deflated_where_that_makes_it_smaller() -> None:
    def unit_size(description: bytes) -> int:
        return NnrFile(nnc_core.encode({}, topology=Topology(ONNX, description))).units[2].payload_size

    noise = np.random.default_rng(0).bytes(1000)
    assert unit_size(noise) == 1000
    assert unit_size(1000 * b"a") == len(zlib.compress(1000 * b"a", 9)) < 30


def test_a_bitstream_without_a_description_has_none() -> None:
    data = nnc_core.encode({"w": np.ones(3)})
    assert NnrFile(data).topology is None
    assert Bitstream(data).mps is not None
    assert not Bitstream(data).mps.topology_carriage_flag  # type: ignore[union-attr]


# --- streaming -------------------------------------------------------------------------------------------------------


class Lazy(Mapping[str, NDArray[Any]]):
    """Counts how often each array is fetched."""

    def __init__(self, arrays: dict[str, NDArray[Any]]) -> None:
        self.arrays = arrays
        self.fetched: list[str] = []

    def __getitem__(self, name: str) -> NDArray[Any]:
        self.fetched.append(name)
        return self.arrays[name]

    def __iter__(self) -> Any:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


@pytest.mark.parametrize("threads", [1, 3])
def test_writing_streams_the_bytes_that_encoding_returns(data: bytes, threads: int) -> None:
    stream, lazy = io.BytesIO(), Lazy(tensors())
    steps: list[tuple[int, int]] = []
    model = SourceModel(lazy, Topology(ONNX, b"graph"))
    size = nnc_core.write(
        stream,
        model,
        parameters=CodingParameters(-38),
        threads=threads,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert stream.getvalue() == data
    assert size == len(data)
    assert lazy.fetched == 2 * list(tensors())  # once to plan, once to code
    assert steps == [(done, 5) for done in range(1, 6)]


def test_writing_stops_at_the_tensor_that_cannot_be_coded() -> None:
    stream = io.BytesIO()
    model = SourceModel({"fine": np.ones(3), "odd": np.zeros(0), "never": np.ones(3)})
    with pytest.raises(ModelError, match="odd"):
        nnc_core.write(stream, model, threads=1)
    assert list(nnc_core.decode(stream.getvalue())) == ["fine"]


def test_what_is_said_to_be_exact_is_sent_as_it_is() -> None:
    values = np.random.default_rng(0).normal(0, 1, (40, 30))
    arrays = {
        "single": values.astype(np.float32),
        "half": values.astype(np.float16),
        "double": values.astype(np.float32).astype(np.float64),
        "coded": values.astype(np.float32),
        "integers": np.arange(10),
        "odd": np.array([np.nan, -0.0, np.inf], np.float64),
    }
    stream = io.BytesIO()
    exact = dict.fromkeys(arrays.keys() - {"coded"}, "said to be")
    nnc_core.write(stream, SourceModel(arrays, exact=exact))
    decoded = nnc_core.decode(stream.getvalue())
    for name in exact:
        np.testing.assert_array_equal(decoded[name], arrays[name], strict=True)
        assert np.array_equal(np.signbit(decoded[name]), np.signbit(arrays[name]))
    assert not np.array_equal(decoded["coded"], arrays["coded"])


def test_what_must_be_exact_and_is_in_a_type_that_nothing_carries_is_refused() -> None:
    model = SourceModel({"w": np.array([1, 3], np.longdouble) / 10}, exact={"w": "said to be"})
    with pytest.raises(ModelError, match=r"'w'.*exact"):
        nnc_core.write(io.BytesIO(), model)


# --- what no encoder would write -------------------------------------------------------------------------------------

LEVELS = np.arange(12, dtype=np.int32).reshape(4, 3)


def test_bytes_after_the_codeword_are_refused() -> None:
    payload = handmade.payload_of(LEVELS)
    assert nnc_core.decode(handmade.one_unit(payload, (4, 3)))["w"].tolist() == LEVELS.tolist()
    with pytest.raises(PayloadError, match="1 bytes follow the codeword") as caught:
        nnc_core.decode(handmade.one_unit(payload + b"\0", (4, 3)))
    assert (caught.value.unit, caught.value.tensor) == (2, "w")


@pytest.mark.parametrize("kept", range(4))
def test_a_truncated_payload_is_refused_with_unit_and_tensor(kept: int) -> None:
    payload = handmade.payload_of(LEVELS)
    with pytest.raises(TruncatedError, match=r"unit 2, bit \d+, nnr_compressed_data_unit_payload, tensor 'w'"):
        nnc_core.decode(handmade.one_unit(payload[:kept], (4, 3)))


def test_a_bitstream_cut_anywhere_is_refused_or_has_fewer_units(data: bytes) -> None:
    ends = {unit.offset + unit.size for unit in Bitstream(data).units}
    for size in range(len(data)):
        if size in ends:
            assert len(NnrFile(data[:size])) < 5
        else:
            with pytest.raises(BitstreamError):
                NnrFile(data[:size])


def test_integers_beyond_the_asked_for_type_are_refused() -> None:
    header = {
        "nnr_compressed_data_unit_payload_type": PayloadType.NNR_PT_INT,
        "nnr_decompressed_data_format_present_flag": True,
        "nnr_decompressed_data_format": 5,  # int8
    }
    for value, fits in ((127, True), (128, False), (-128, True), (-129, False)):
        payload = handmade.payload_of(np.array([[value]], np.int32), qp=None)
        data = handmade.one_unit(payload, (1,), **header)
        if fits:
            assert nnc_core.decode(data)["w"].dtype == np.int8
        else:
            with pytest.raises(ElementValueError, match="nnr_decompressed_data_format, tensor 'w'"):
                nnc_core.decode(data)


def test_dimensions_from_outside_the_bitstream_are_taken_from_the_input_parameters(tmp_path: Path) -> None:
    data = handmade.one_unit(handmade.payload_of(LEVELS), (4, 3), tensor_dimensions_flag=False)
    path = tmp_path / "model.nnr"
    path.write_bytes(data)
    known = {"w": InputParameters(tensor_dimensions=(4, 3))}
    np.testing.assert_array_equal(nnc_core.decode(data, input_parameters=known)["w"], LEVELS)
    with nnc_core.open(path, input_parameters=known) as file:
        np.testing.assert_array_equal(file["w"], LEVELS)
    for unknown in (None, {}, {"other": known["w"]}):
        with pytest.raises(ElementValueError, match="tensor_dimensions"):
            nnc_core.open(path, input_parameters=unknown)


def test_a_shifted_first_dimension_is_put_back() -> None:
    data = handmade.one_unit(handmade.payload_of(LEVELS), (3, 4), first_tensor_dimension_shift=1)
    np.testing.assert_array_equal(nnc_core.decode(data)["w"], LEVELS.T)
    assert NnrFile(data).tensors["w"].shape == (3, 4)


FACTOR = {"compressed_parameter_types": CompressedParameterTypes.NNR_CPT_DC, "decomposition_rank": 3}


def test_a_factor_in_a_unit_of_its_own_has_the_shape_of_the_factor() -> None:
    header = {**FACTOR, "g_number_of_rows": 4, "first_tensor_dimension_shift": 3}
    data = handmade.one_unit(handmade.payload_of(LEVELS), (2, 2, 2, 2), **header)
    assert NnrFile(data).tensors["w"].shape == (4, 3)
    np.testing.assert_array_equal(nnc_core.decode(data)["w"], LEVELS)


def test_a_factor_that_is_not_quantized_has_as_many_bytes_as_the_factor() -> None:
    header = {**FACTOR, "g_number_of_rows": 4, "nnr_compressed_data_unit_payload_type": PayloadType.NNR_PT_RAW_FLOAT}
    values = np.arange(12, dtype="<f4").tobytes()
    assert nnc_core.decode(handmade.one_unit(values, (2, 2, 2, 2), **header))["w"].shape == (4, 3)
    with pytest.raises(UnitSizeError, match="64 payload bytes"):
        nnc_core.decode(handmade.one_unit(bytes(64), (2, 2, 2, 2), **header))


def test_a_tensor_that_is_coded_twice_is_refused(data: bytes) -> None:
    last = Bitstream(data).units[-1]
    with pytest.raises(UnitOrderError, match="coded twice"):
        NnrFile(data + data[last.offset :])


def test_a_layer_parameter_set_changes_the_step_of_the_tensors_after_it() -> None:
    data = nnc_core.encode({"w": np.ones(30)}, parameters=CodingParameters(general_profile_idc=0, qp_density=2))
    at = Bitstream(data).units[2].offset
    for base in (4, 8):  # each step of 4 doubles it
        layer_parameter_set = bytes([0, 8, NnrUnitType.NNR_LPS << 2 | 2, 0, 2, 0x40, base, 0x80])
        decoded = NnrFile(data[:at] + layer_parameter_set + data[at:])["w"]
        assert (decoded == NnrFile(data)["w"] * np.float32(2 ** (base // 4))).all()
