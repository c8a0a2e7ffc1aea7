from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nnc_core.errors import ModelError

IDENTITY = [helper.make_node("Identity", ["x"], ["y"])]
FLOATS = [np.float32, np.float16, ml_dtypes.bfloat16, np.float64]
INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64]


def holding(make_model, *tensors):
    return make_model(IDENTITY, tensors, inputs={"x": [1]})


def typed(array, name):
    """The tensor with its values in the field of their type instead of raw_data."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor(name, kind, array.shape, array.reshape(-1), raw=False)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("store", [numpy_helper.from_array, typed])
def test_floating_point_of_every_width_is_coded_in_its_own_type(make_model, round_trip, random_weights, dtype, store):
    array = random_weights(20, 30, dtype=dtype)
    read = round_trip(holding(make_model, store(array, "w")))
    np.testing.assert_array_equal(read.tensors["w"], array, strict=True)


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("store", [numpy_helper.from_array, typed])
def test_integers_are_coded_in_their_own_type(make_model, round_trip, dtype, store):
    bounds = np.iinfo(dtype)
    low, high = max(bounds.min, 1 - 2**31), min(bounds.max, 2**31 - 1)
    array = np.linspace(low, high, 600).astype(dtype).reshape(20, 30)
    read = round_trip(holding(make_model, store(array, "w")))
    np.testing.assert_array_equal(read.tensors["w"], array, strict=True)


@pytest.mark.parametrize(("dtype", "value"), [(np.int64, 2**31), (np.uint32, 2**31), (np.int32, -(2**31))])
def test_integers_that_the_codec_cannot_express_stay_in_the_topology(make_model, round_trip, dtype, value):
    array = np.full(300, value, dtype)
    assert not round_trip(holding(make_model, numpy_helper.from_array(array, "w"))).tensors


@pytest.mark.parametrize("value", [1e39, np.inf, np.nan])
def test_float64_beyond_finite_float32_stays_in_the_topology(make_model, round_trip, value):
    array = np.full(300, value, np.float64)
    assert not round_trip(holding(make_model, numpy_helper.from_array(array, "w"))).tensors


def test_float32_that_is_not_finite_is_offered_bit_for_bit(make_model, round_trip, random_weights):
    array = random_weights(128)
    array[:4] = np.array([0x7FC00001, 0xFF800000, 0x7F800000, 0x80000000], np.uint32).view(np.float32)
    read = round_trip(holding(make_model, numpy_helper.from_array(array, "w")))
    assert read.tensors["w"].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.float32(3.5),
        np.ones(15, np.float32),
        np.ones(0, np.float32),
        np.ones((0, 1 << 40, 3), np.float32),
        np.ones(255, np.int64),
        np.ones(300, np.uint64),
        np.ones(300, np.bool_),
        np.ones(300, np.complex64),
        np.ones(300, np.complex128),
        np.ones(3000, ml_dtypes.float8_e4m3fn),
        np.ones(3001, ml_dtypes.int4),
        np.ones(3001, ml_dtypes.uint4),
        np.ones(3001, ml_dtypes.float4_e2m1fn),
    ],
    ids=lambda array: f"{array.dtype}-{array.size}",
)
def test_what_is_small_or_no_number_of_the_codec_stays_in_the_topology(make_model, round_trip, array):
    model = holding(make_model, numpy_helper.from_array(np.asarray(array), "w"))
    model.ir_version = 12
    assert not round_trip(model).tensors


def test_integers_that_are_smaller_deflated_stay_in_the_topology(make_model, round_trip):
    assert not round_trip(holding(make_model, numpy_helper.from_array(np.arange(100_000), "w"))).tensors
    assert not round_trip(holding(make_model, numpy_helper.from_array(np.full(5000, 7, np.uint8), "w"))).tensors


def test_strings_stay_in_the_topology(make_model, round_trip):
    words = helper.make_tensor("w", TensorProto.STRING, [300], [b"word"] * 300)
    assert not round_trip(holding(make_model, words)).tensors


def test_complex_and_packed_values_in_typed_fields_are_accepted(make_model, round_trip):
    complex_values = helper.make_tensor("c", TensorProto.COMPLEX64, [300], [1 + 2j] * 300)
    packed = helper.make_tensor("p", TensorProto.INT4, [301], [3] * 301)
    assert not round_trip(holding(make_model, complex_values, packed)).tensors


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(shape=st.lists(st.integers(0, 9), max_size=5), dtype=st.sampled_from(FLOATS + INTEGERS), raw=st.booleans())
def test_any_shape_survives_in_any_type(make_model, round_trip, shape, dtype, raw):
    array = (np.arange(np.prod(shape, dtype=int)) % 100).astype(dtype).reshape(shape)
    tensor = numpy_helper.from_array(array, "w") if raw else typed(array, "w")
    read = round_trip(holding(make_model, tensor))
    if dtype in FLOATS:
        assert list(read.tensors) == (["w"] if array.size >= 16 else [])


@pytest.mark.parametrize("dtype", FLOATS)
def test_decoded_float32_is_rounded_to_the_nearest_even_value(adapter, make_model, tmp_path, random_weights, dtype):
    onnx.save(holding(make_model, numpy_helper.from_array(random_weights(64, dtype=dtype), "w")), tmp_path / "m.onnx")
    decoded = random_weights(64)
    adapter.write({"w": decoded}, adapter.read(tmp_path / "m.onnx").topology, tmp_path / "out.onnx")
    written = adapter.read(tmp_path / "out.onnx").tensors["w"]
    np.testing.assert_array_equal(written, decoded.astype(dtype), strict=True)


def test_a_finite_value_is_never_written_as_infinity(adapter, make_model, tmp_path, random_weights):
    onnx.save(holding(make_model, numpy_helper.from_array(np.ones(16, np.float16), "w")), tmp_path / "m.onnx")
    decoded = np.array([65504, 65519, 65520, 1e30, -1e30, np.inf, -np.inf, 0] * 2, np.float32)
    adapter.write({"w": decoded}, adapter.read(tmp_path / "m.onnx").topology, tmp_path / "out.onnx")
    written = adapter.read(tmp_path / "out.onnx").tensors["w"]
    assert written[:8].tolist() == [65504, 65504, 65504, 65504, -65504, np.inf, -np.inf, 0]


def test_decoded_int32_becomes_the_declared_integer_type(adapter, make_model, tmp_path):
    stored = np.random.default_rng(1).integers(-5, 5, 512)
    onnx.save(holding(make_model, numpy_helper.from_array(stored, "w")), tmp_path / "m.onnx")
    decoded = np.random.default_rng(2).integers(-5, 5, 512, dtype=np.int32)
    adapter.write({"w": decoded}, adapter.read(tmp_path / "m.onnx").topology, tmp_path / "out.onnx")
    written = adapter.read(tmp_path / "out.onnx").tensors["w"]
    np.testing.assert_array_equal(written, decoded.astype(np.int64), strict=True)


@pytest.mark.parametrize(
    ("declared", "given_values"),
    [
        (np.int8, np.full(256, 128, np.int32)),
        (np.uint8, np.full(256, -1, np.int32)),
        (np.int32, np.ones(256, np.float32)),
        (np.float32, np.ones(256, np.int32)),
        (np.float32, np.ones(256, np.complex64)),
    ],
)
def test_values_that_the_declared_type_cannot_hold_are_refused(adapter, make_model, tmp_path, declared, given_values):
    onnx.save(holding(make_model, numpy_helper.from_array(np.ones(256, declared), "w")), tmp_path / "m.onnx")
    topology = adapter.read(tmp_path / "m.onnx").topology
    with pytest.raises(ModelError, match="'w'"):
        adapter.write({"w": given_values}, topology, tmp_path / "out.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
