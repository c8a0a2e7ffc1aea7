"""Encoding and decoding again: types, shapes, exact integers, bounded errors, and what is refused by name."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import nnc_core
from nnc_core import CodingParameters, ModelError, NnrFile
from nnc_core.approximator.step import step_size


def round_trip(array: Any, parameters: CodingParameters | None = None) -> NDArray[Any]:
    return nnc_core.decode(nnc_core.encode({"w": array}, parameters=parameters))["w"]


def payload_type(array: Any, parameters: CodingParameters | None = None) -> str:
    return NnrFile(nnc_core.encode({"w": array}, parameters=parameters)).tensors["w"].payload_type


def weights(*shape: int, seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


# --- types -----------------------------------------------------------------------------------------------------------

FLOATS = [
    (np.float16, np.float16),
    (np.float32, np.float32),
    (np.float64, np.float64),
    (np.longdouble, np.float32),
    (ml_dtypes.bfloat16, np.float32),
    (ml_dtypes.float8_e4m3fn, np.float32),
]
INTEGERS = [
    (np.int8, np.int8),
    (np.int16, np.int16),
    (np.int32, np.int32),
    (np.int64, np.int64),
    (np.uint8, np.int32),
    (np.uint16, np.int32),
    (np.uint32, np.int32),
    (np.uint64, np.int32),
    (ml_dtypes.int4, np.int8),
    (ml_dtypes.uint4, np.int8),
]


@pytest.mark.parametrize(("dtype", "returned"), FLOATS, ids=lambda dtype: np.dtype(dtype).name)
def test_floats_of_every_type_come_back_within_half_a_step(dtype: type, returned: type) -> None:
    array = weights(40, 50).astype(dtype)
    p = CodingParameters(qp=-38, dq_flag=False)
    decoded = round_trip(array, p)
    assert decoded.dtype == returned
    # A half has 11 significant bits of its own.
    slack = 2.0**-12 if returned == np.float16 else 0
    assert payload_type(array, p) == "NNR_PT_FLOAT"
    assert np.abs(decoded.astype(np.float64) - array.astype(np.float64)).max() <= step_size(-38, 2) / 2 + slack


@pytest.mark.parametrize("dtype", [dtype for dtype, _ in FLOATS], ids=lambda dtype: np.dtype(dtype).name)
def test_the_base_tool_set_returns_every_float_as_float32(dtype: type) -> None:
    decoded = round_trip(weights(20, 9).astype(dtype), CodingParameters(general_profile_idc=0))
    assert decoded.dtype == np.float32


@pytest.mark.parametrize(("dtype", "returned"), INTEGERS, ids=lambda dtype: np.dtype(dtype).name)
def test_integers_of_every_type_come_back_exactly(dtype: type, returned: type) -> None:
    array = np.random.default_rng(2).integers(0, 8, (30, 20)).astype(dtype)
    decoded = round_trip(array)
    assert decoded.dtype == returned
    np.testing.assert_array_equal(decoded, array.astype(returned))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint8, np.uint16])
def test_the_ends_of_an_integer_type_survive(dtype: type) -> None:
    bounds = np.iinfo(dtype)
    np.testing.assert_array_equal(round_trip(np.array([bounds.min, 0, bounds.max], dtype)), [bounds.min, 0, bounds.max])


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64])
def test_the_largest_integers_of_nnr_survive(dtype: type) -> None:
    array = np.array([2**31 - 1, 0, 5], dtype)
    np.testing.assert_array_equal(round_trip(array), array.astype(np.int64))
    if np.iinfo(dtype).min < 0:
        np.testing.assert_array_equal(round_trip(-array), -array)


@pytest.mark.parametrize("dq_flag", [False, True])
@settings(max_examples=60, deadline=None)
@given(integers=st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1, max_size=40), scan_order=st.integers(0, 4))
def test_integers_are_exact_whatever_the_parameters(dq_flag: bool, integers: list[int], scan_order: int) -> None:
    array = np.array(integers, np.int64).reshape(-1, 2 if len(integers) % 2 == 0 else 1)
    decoded = round_trip(array, CodingParameters(dq_flag=dq_flag, scan_order=scan_order))
    np.testing.assert_array_equal(decoded, array, strict=True)


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", ">i2", "<i2", ">i4", ">f2"])
def test_the_byte_order_of_an_array_does_not_matter(dtype: str) -> None:
    array = np.arange(-30, 30).reshape(6, 10).astype(dtype)
    assert nnc_core.encode({"w": array}) == nnc_core.encode({"w": array.astype(array.dtype.newbyteorder("="))})


def test_the_memory_layout_of_an_array_does_not_matter() -> None:
    array = weights(12, 10)
    expected = nnc_core.encode({"w": array})
    assert nnc_core.encode({"w": np.asfortranarray(array)}) == expected
    assert nnc_core.encode({"w": np.repeat(array, 2, axis=1)[:, ::2]}) == expected
    assert nnc_core.encode({"w": array.tolist()}, parameters=CodingParameters(general_profile_idc=0)) == (
        nnc_core.encode({"w": array}, parameters=CodingParameters(general_profile_idc=0))
    )


# --- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(1,), (7,), (1, 1), (1, 9), (9, 1), (3, 4, 5), (1, 1, 6, 1), (2, 3, 1, 2, 2), (1,) * 32, (8, 3, 3, 3)]
)
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_every_shape_survives(shape: tuple[int, ...], dtype: type) -> None:
    array = np.random.default_rng(3).integers(-4, 5, shape).astype(dtype)
    decoded = round_trip(array)
    assert decoded.shape == shape
    np.testing.assert_allclose(decoded, array, atol=step_size(-38, 2) * 2)


@pytest.mark.parametrize("scalar", [np.float32(1.5), np.int64(7), 2.5, 3])
def test_a_scalar_becomes_a_tensor_of_one_element(scalar: Any) -> None:
    decoded = round_trip(scalar)
    assert decoded.shape == (1,)
    assert decoded[0] == pytest.approx(scalar, abs=2 * step_size(-75, 2))


def test_a_decoded_array_can_be_written_to() -> None:
    for array in (weights(9, 9), np.array([np.nan], np.float32), np.arange(4)):
        decoded = round_trip(array)
        decoded[...] = 0
        assert not decoded.any()
        assert decoded.flags.c_contiguous


# --- the error of quantization ---------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(-60, 0), st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_uniform_quantization_errs_by_half_a_step_at_most(qp: int, seed: int, scan_order: int) -> None:
    array = weights(20, 30, seed=seed)
    p = CodingParameters(qp=qp, dq_flag=False, scan_order=scan_order)
    # The multiple of the step is rounded to binary32 before it is rounded to an integer.
    rounding = 2.0**-22 * np.abs(array).max()
    assert np.abs(round_trip(array, p).astype(np.float64) - array).max() <= step_size(qp, 2) / 2 + rounding


@settings(max_examples=60, deadline=None)
@given(st.integers(-50, 0), st.integers(0, 2**32 - 1), st.integers(0, 4))
def test_dependent_quantization_errs_by_two_steps_at_most_and_less_than_one_in_the_mean(
    qp: int, seed: int, scan_order: int
) -> None:
    array = weights(20, 30, seed=seed)
    error = round_trip(array, CodingParameters(qp=qp, scan_order=scan_order)).astype(np.float64) - array
    step = step_size(qp, 2)
    assert np.abs(error).max() <= step * (2 + 1e-4)
    assert np.sqrt((error**2).mean()) < step * 0.7


def test_dependent_quantization_is_closer_than_uniform_quantization_with_steps_twice_as_wide() -> None:
    array = weights(50, 60)
    step_doubled = 4  # qp_density 2: four steps to the doubling
    dependent = round_trip(array, CodingParameters(qp=-30)) - array
    uniform = round_trip(array, CodingParameters(qp=-30 + step_doubled, dq_flag=False)) - array
    assert (dependent.astype(np.float64) ** 2).mean() < 0.8 * (uniform.astype(np.float64) ** 2).mean()


def test_what_was_decoded_is_a_fixed_point_of_uniform_quantization() -> None:
    p = CodingParameters(qp=-20, dq_flag=False)
    decoded = round_trip(weights(30, 30), p)
    np.testing.assert_array_equal(round_trip(decoded, p), decoded)


# --- what is sent as it is -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -1e30])
@pytest.mark.parametrize("dq_flag", [False, True])
@pytest.mark.parametrize("qp", [None, -38])
def test_a_value_that_cannot_be_quantized_is_sent_bit_for_bit_beside_the_others(
    value: float, dq_flag: bool, qp: int | None
) -> None:
    array = weights(30, 30)
    array[3, 4], array[5, 6] = value, 0.0
    p = CodingParameters(qp=qp, dq_flag=dq_flag)
    data = nnc_core.encode({"w": array}, parameters=p)
    assert len(data) < array.nbytes / 2
    decoded = nnc_core.decode(data)["w"]
    assert (decoded[3, 4].tobytes(), decoded[5, 6]) == (array[3, 4].tobytes(), 0)
    ordinary = np.abs(array) < 1e9
    assert ordinary.sum() == array.size - 1
    assert np.abs(decoded[ordinary] - array[ordinary]).max() < 0.02


def test_the_bits_of_a_nan_survive() -> None:
    array = np.array([0x7FC12345, 0xFFC00001, 0x7F800001], np.uint32).view(np.float32)
    assert round_trip(array).view(np.uint32).tolist() == [0x7FC12345, 0xFFC00001, 0x7F800001]


@pytest.mark.parametrize(
    ("bits", "dtype"),
    [
        (np.uint16(0x7C01), np.float16),
        (np.uint32(0x7F800001), np.float32),
        (np.uint64(0x7FF0000000000001), np.float64),
        (np.uint16(0x7F81), ml_dtypes.bfloat16),
    ],
)
def test_a_signalling_nan_causes_no_warning(bits: Any, dtype: type) -> None:
    array = np.append(np.array([bits]).view(dtype), np.ones(30, dtype))
    decoded = round_trip(array)
    assert np.isnan(decoded[0])
    np.testing.assert_allclose(decoded[1:].astype(np.float64), 1, rtol=1e-3)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_types_with_nan_and_infinity_keep_them(dtype: type) -> None:
    array = np.array([1.0, np.nan, np.inf, -np.inf, -2.5], dtype)
    np.testing.assert_array_equal(round_trip(array).astype(np.float64), array.astype(np.float64))


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, np.complex64),
        np.array(["text"]),
        np.array([b"bytes"]),
        np.array([None, 1]),
        np.zeros(2, "V4"),
        np.zeros(2, [("a", "f4")]),
        np.zeros(2, "M8[s]"),
    ],
    ids=lambda array: array.dtype.kind,
)
def test_a_type_without_a_place_in_nnr_is_refused_by_name(array: NDArray[Any]) -> None:
    with pytest.raises(ModelError, match=r"tensor 'odd': has dtype .*, which NNR cannot express") as caught:
        nnc_core.encode({"fine": np.ones(3), "odd": array})
    assert caught.value.tensor == "odd"


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3), (2, 0, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_a_tensor_without_elements_is_refused_by_name(shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(ModelError, match=r"tensor 'w': has no elements"):
        nnc_core.encode({"w": np.zeros(shape, dtype)})


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(2**31, np.int64), (-(2**31), np.int32), (2**31, np.uint32), (2**63, np.uint64), (-(2**63), np.int64)],
)
def test_an_integer_beyond_31_bits_is_refused_by_name(value: int, dtype: type) -> None:
    with pytest.raises(ModelError, match=r"tensor 'w': has integers beyond"):
        nnc_core.encode({"w": np.array([0, value], dtype)})


def test_a_double_beyond_float32_is_exact_where_the_tool_set_has_doubles_and_refused_otherwise() -> None:
    array = np.append(weights(60).astype(np.float64), 1e300)
    decoded = round_trip(array, CodingParameters(qp=-38))
    assert decoded[-1] == 1e300
    np.testing.assert_allclose(decoded[:-1], array[:-1], atol=1e-3)
    with pytest.raises(ModelError, match=r"tensor 'w': has finite values beyond float32"):
        nnc_core.encode({"w": array}, parameters=CodingParameters(qp=-38, general_profile_idc=0))


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
def test_a_name_that_cannot_be_written_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="name"):
        nnc_core.encode({name: np.ones(3)})


# --- models ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(11)
    tensors: dict[str, NDArray[Any]] = {}
    for number in range(12):
        tensors[f"layer{number}.weight"] = rng.normal(0, 0.1, (8 + 5 * number, 30)).astype(np.float32)
        tensors[f"layer{number}.bias"] = rng.normal(0, 1, 8 + 5 * number).astype(np.float64)
        tensors[f"layer{number}.steps"] = rng.integers(0, 1000, (3, 2))
    return tensors


@pytest.mark.parametrize("threads", [2, 5, None])
def test_the_number_of_threads_does_not_show(model: dict[str, NDArray[Any]], threads: int | None) -> None:
    alone = nnc_core.encode(model, threads=1)
    assert nnc_core.encode(model, threads=threads) == alone
    expected, decoded = nnc_core.decode(alone, threads=1), nnc_core.decode(alone, threads=threads)
    assert list(decoded) == list(expected) == list(model)
    assert all(decoded[name].tobytes() == expected[name].tobytes() for name in model)


def test_less_than_one_thread_is_refused(model: dict[str, NDArray[Any]]) -> None:
    with pytest.raises(ValueError, match="threads is 0"):
        nnc_core.encode(model, threads=0)
    with pytest.raises(ValueError, match="threads is -1"):
        nnc_core.decode(nnc_core.encode(model), threads=-1)


def test_tensors_come_back_in_the_order_in_which_they_were_given(model: dict[str, NDArray[Any]]) -> None:
    backwards = dict(reversed(model.items()))
    assert list(nnc_core.decode(nnc_core.encode(backwards))) == list(backwards) != list(model)


def test_with_a_qp_each_tensor_is_coded_without_regard_to_the_others(model: dict[str, NDArray[Any]]) -> None:
    p = CodingParameters(qp=-38)
    together = nnc_core.decode(nnc_core.encode(model, parameters=p))
    for name in ("layer3.weight", "layer4.bias", "layer5.steps"):
        alone = nnc_core.decode(nnc_core.encode({name: model[name]}, parameters=p))
        assert alone[name].tobytes() == together[name].tobytes()


def test_a_model_without_tensors_survives() -> None:
    assert nnc_core.decode(nnc_core.encode({})) == {}


def test_encoding_leaves_the_arrays_alone(model: dict[str, NDArray[Any]]) -> None:
    before = {name: array.tobytes() for name, array in model.items()}
    nnc_core.encode(model)
    assert {name: array.tobytes() for name, array in model.items()} == before


def test_an_error_in_one_of_several_threads_reaches_the_caller(model: dict[str, NDArray[Any]]) -> None:
    with pytest.raises(ModelError, match="'odd'"):
        nnc_core.encode({**model, "odd": np.zeros(0), "after": np.ones(9)}, threads=3)


@pytest.mark.parametrize("general_profile_idc", [0, 1])
@pytest.mark.parametrize("scan_order", range(5))
@pytest.mark.parametrize("dq_flag", [False, True])
@pytest.mark.parametrize("shape", [(150, 9), (20, 70), (40, 3, 5)])
def test_every_scan_order_gives_the_same_uniform_values_and_close_dependent_ones(
    general_profile_idc: int, scan_order: int, dq_flag: bool, shape: tuple[int, ...]
) -> None:
    array = weights(*shape)
    p = CodingParameters(-38, general_profile_idc=general_profile_idc, scan_order=scan_order, dq_flag=dq_flag)
    data = nnc_core.encode({"w": array}, parameters=p)
    info = NnrFile(data).tensors["w"]
    assert (info.scan_order, info.dq_flag, NnrFile(data).bitstream.general_profile_idc) == (
        scan_order,
        dq_flag,
        general_profile_idc,
    )
    decoded = nnc_core.decode(data)["w"]
    if not dq_flag:
        np.testing.assert_array_equal(decoded, round_trip(array, CodingParameters(-38, dq_flag=False)))
    assert np.abs(decoded - array).max() <= 2 * step_size(-38, 2)


@pytest.mark.parametrize("shape", [(1, 300), (300, 1), (300, 1, 1), (300,), (1, 1)])
@pytest.mark.parametrize("dq_flag", [False, True])
def test_a_single_row_or_column_is_not_scanned_in_blocks(shape: tuple[int, ...], dq_flag: bool) -> None:
    p = CodingParameters(scan_order=1, dq_flag=dq_flag)
    for array in (weights(*shape), np.arange(np.prod(shape)).reshape(shape)):
        data = nnc_core.encode({"w": array}, parameters=p)
        assert NnrFile(data).tensors["w"].scan_order == 0
        assert data == nnc_core.encode({"w": array}, parameters=CodingParameters(dq_flag=dq_flag))
        np.testing.assert_allclose(nnc_core.decode(data)["w"], array, rtol=0, atol=2 * step_size(-38, 2))


@pytest.mark.parametrize("cabac_unary_length_minus1", [0, 1, 5, 255])
def test_every_length_of_the_unary_part_decodes_to_the_same(cabac_unary_length_minus1: int) -> None:
    array = weights(20, 20)
    p = CodingParameters(qp=-30, cabac_unary_length_minus1=cabac_unary_length_minus1)
    np.testing.assert_array_equal(round_trip(array, p), round_trip(array, CodingParameters(qp=-30)))
