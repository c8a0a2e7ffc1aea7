"""Tensors under other names: every bit pattern returns, no name is mistaken, and damaged parts are refused by name."""

from __future__ import annotations

import io
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import nnc_core
from nnc_core import CodingParameters, Method, ModelPlan, NnrFile, SourceModel, TensorPlan
from nnc_core.bitstream import Bitstream, BitstreamWriter, marks
from nnc_core.bitstream.marks import Mark, mark_of, marked
from nnc_core.errors import PayloadError

FLOATS: dict[str, Any] = {
    "float16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "float32": np.float32,
    "float64": np.float64,
}
SPECIAL = {
    16: [
        0x0000,
        0x8000,
        0x0001,
        0x8001,
        0x7C00,
        0xFC00,
        0x7C01,
        0x7E01,
        0xFFFF,
        0x7FFF,
        0x7F80,
        0xFF80,
        0x7F81,
        0x3C00,
    ],
    32: [0, 1 << 31, 1, 0x7F800000, 0xFF800000, 0x7F800001, 0x7FC12345, 0xFFFFFFFF, 0x7F7FFFFF, 0x00800000, 0x3F800000],
    64: [0, 1 << 63, 1, 0x7FF << 52, 0xFFF << 52, (0x7FF << 52) + 1, 0xFFFFFFFFFFFFFFFF, 0x3FF << 52, 1 << 52],
}


def bits(array: NDArray[Any]) -> NDArray[Any]:
    return array.view(f"u{array.dtype.itemsize}")


def exactly(array: NDArray[Any], method: Method, profile: int = 1) -> NDArray[Any]:
    """Through a bitstream and back, by the given method, as the type it had."""
    plan = ModelPlan(2, profile, {"w": TensorPlan(method, exact=True)})
    decoded = nnc_core.decode(nnc_core.encode({"w": array}, plan=plan))
    assert list(decoded) == ["w"]
    found = decoded["w"]
    if array.dtype == ml_dtypes.bfloat16:
        assert found.dtype == np.float32
        assert not (bits(found) & 0xFFFF).any()
        return (bits(found) >> 16).astype(np.uint16).view(ml_dtypes.bfloat16)
    assert found.dtype == array.dtype
    return found


# --- every pattern ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", [0, 1])
@pytest.mark.parametrize("method", [Method.PATTERNS, Method.PALETTE, Method.PLANES])
@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_every_pattern_of_16_bits_returns(name: str, method: Method, profile: int) -> None:
    array = np.arange(1 << 16, dtype=np.uint16).view(FLOATS[name]).reshape(256, 256)
    assert bits(exactly(array, method, profile)).tobytes() == bits(array).tobytes()


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("method", [Method.PALETTE, Method.PLANES])
def test_every_special_pattern_returns(name: str, method: Method) -> None:
    size = 8 * np.dtype(FLOATS[name]).itemsize
    array = np.array(SPECIAL[size], f"u{size // 8}").view(FLOATS[name])
    assert bits(exactly(array, method)).tobytes() == bits(array).tobytes()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FLOATS)), st.binary(min_size=8, max_size=400))
def test_any_bits_return_from_planes(name: str, data: bytes) -> None:
    dtype = np.dtype(FLOATS[name])
    array = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
    assert bits(exactly(array, Method.PLANES)).tobytes() == bits(array).tobytes()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FLOATS)), st.binary(min_size=8, max_size=400), st.integers(0, 1))
def test_any_bits_return_where_the_adapter_says_that_they_are_exact(name: str, data: bytes, profile: int) -> None:
    dtype = np.dtype(FLOATS[name])
    array = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype)
    p = CodingParameters(general_profile_idc=profile)
    plan = nnc_core.plan(SourceModel({"w": array}, exact={"w": "said to be"}), p)
    assert (plan.tensors["w"].exact, plan.tensors["w"].reason) == (True, "said to be")
    found = nnc_core.decode(nnc_core.encode({"w": array}, plan=plan))["w"]
    if array.dtype == found.dtype:
        assert bits(found).tobytes() == bits(array).tobytes()
    else:
        with np.errstate(invalid="ignore"):
            after, before = found.astype(np.float64), array.astype(np.float64)
        np.testing.assert_array_equal(after, before)
        np.testing.assert_array_equal(np.signbit(after), np.signbit(before))


def test_mapped_patterns_grow_with_the_values() -> None:
    array = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = array[np.isfinite(array)]
    order = np.argsort(marks.mapped(bits(finite)), kind="stable")
    assert (np.diff(finite[order].astype(np.float64)) >= 0).all()
    assert len(np.unique(marks.mapped(bits(array)))) == 1 << 16


# --- exceptions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLOATS)
def test_a_few_values_that_are_not_numbers_return_with_their_bits_and_the_rest_is_coded(name: str) -> None:
    array = np.random.default_rng(3).normal(0, 0.1, (64, 64)).astype(FLOATS[name])
    size = 8 * array.dtype.itemsize
    strange = np.array(SPECIAL[size], f"u{size // 8}").view(array.dtype)
    with np.errstate(invalid="ignore"):
        strange = strange[~np.isfinite(strange.astype(np.float64))]
    places = np.linspace(0, array.size - 1, strange.size, dtype=int)
    array.reshape(-1)[places] = strange
    data = nnc_core.encode({"w": array})
    assert len(data) < array.size * 1.2
    found = nnc_core.decode(data)["w"]
    if found.dtype != array.dtype:
        found = (bits(found) >> 16).astype(np.uint16).view(array.dtype)
    assert bits(found).reshape(-1)[places].tolist() == bits(strange).tolist()
    rest = np.setdiff1d(np.arange(array.size), places)
    error = (found.reshape(-1)[rest].astype(np.float64) - array.reshape(-1)[rest].astype(np.float64)).std()
    assert error < 0.1 * 10 ** (-30 / 20)


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mark"),
    [
        ("w", Mark("w")),
        ("w@plain", Mark("w")),
        ("a@b@plain", Mark("a@b")),
        ("w@uint8.value-128", Mark("w", "value", "uint8", 128)),
        ("w@int64.value+3", Mark("w", "value", "int64", -3)),
        ("w@bfloat16.none", Mark("w", "none", "bfloat16")),
        ("w@float32.exponent-118", Mark("w", "exponent", "float32", 118)),
        ("w@float32.exponent+1-236", Mark("w", "exponent", "float32", 236, 1)),
        ("w@float32.exponent+7t-3", Mark("w", "exponent", "float32", 3, 7, True)),
        ("w@float32.exponent+8-3", Mark("w@float32.exponent+8-3")),
        ("w@float32.rest", Mark("w", "rest", "float32")),
        ("w@float32.places", Mark("w", "places", "float32")),
        ("w@uint8.none", Mark("w@uint8.none")),
        ("w@float32.exponent", Mark("w@float32.exponent")),
        ("w@float32", Mark("w@float32")),
        ("line\nbreak@float16.values", Mark("line\nbreak", "values", "float16")),
    ],
)
def test_the_name_of_a_unit_says_what_it_carries(name: str, mark: Mark) -> None:
    assert mark_of(name) == mark
    if name != "w@plain" and name != "a@b@plain":
        assert marked(mark) == name


@settings(max_examples=300, deadline=None)
@given(st.text() | st.from_regex(r".*@(plain|uint8\.value-1|float16\.(rest|none|exponent-3))", fullmatch=True))
def test_no_tensor_is_mistaken_for_a_part_of_another(name: str) -> None:
    assert mark_of(marked(Mark(name))) == Mark(name)
    for part in ("none", "rest", "index", "palette", "places", "values"):
        assert mark_of(marked(Mark(name, part, "float64"))) == Mark(name, part, "float64")


def test_tensors_with_such_names_survive_beside_the_tensors_that_the_names_speak_of() -> None:
    names = ["w", "w@plain", "w@float32.rest", "w@float16.none", "w@uint8.value-5", "w@plain@plain"]
    tensors = {name: np.full((4, 5), n + 0.25, np.float32) for n, name in enumerate(names)}
    tensors["q@uint8.value-7"] = np.full(300, 120, np.uint8)  # type: ignore[assignment]
    data = nnc_core.encode(tensors)
    decoded = nnc_core.decode(data)
    assert list(decoded) == list(tensors)
    for name, array in tensors.items():
        np.testing.assert_array_equal(decoded[name], array)
    assert {info.name for info in NnrFile(data).tensors.values()} == set(tensors)


def test_parts_of_a_tensor_stay_together_when_a_bitstream_is_taken_apart() -> None:
    rng = np.random.default_rng(1)
    arrays = {name: rng.normal(0, 1, 500).astype(np.float16) for name in ("a", "b")}
    plan = ModelPlan(2, 1, dict.fromkeys(arrays, TensorPlan(Method.PLANES, exact=True)))
    parts = nnc_core.split(nnc_core.encode(arrays, plan=plan))
    assert list(parts) == ["a", "b"]
    for name, part in parts.items():
        np.testing.assert_array_equal(nnc_core.decode(part)[name], arrays[name])
    assert nnc_core.decode(nnc_core.join(parts)).keys() == arrays.keys()


# --- integers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "centre"),
    [
        ("uint8", 128),
        ("int8", -90),
        ("uint16", 40000),
        ("int64", 10**15),
        ("uint64", (1 << 64) - 500),
        ("int32", 2**31 - 500),
    ],
)
def test_integers_around_a_point_take_no_more_than_around_zero(dtype: str, centre: int) -> None:
    around = np.clip(np.random.default_rng(1).normal(0, 5, (90, 100)).round(), -30, 30).astype(np.int64)
    array = (around.astype(object) + centre).astype(dtype)
    data = nnc_core.encode({"w": array})
    decoded = nnc_core.decode(data)["w"]
    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array)
    assert len(data) <= len(nnc_core.encode({"w": around})) + 40


# --- what no encoder writes ------------------------------------------------------------------------------------------


def damaged(units: dict[str, NDArray[Any]]) -> bytes:
    """A bitstream with units of these names, which are not escaped."""
    names = {f"{n}": name for n, name in enumerate(units)}
    data = nnc_core.encode(
        {n: units[name] for n, name in names.items()},
        plan=ModelPlan(2, 1, {n: _plan(units[name]) for n, name in names.items()}),
    )
    return renamed(data, names)


def _plan(array: NDArray[Any]) -> TensorPlan:
    return TensorPlan(Method.INTEGERS if array.dtype.kind == "i" else Method.RAW)


def renamed(data: bytes, names: dict[str, str]) -> bytes:
    stream, read = io.BytesIO(), Bitstream(data)
    assert read.mps is not None
    writer = BitstreamWriter(stream, read.mps)
    for unit in read.data_units:
        header = unit.header
        header.topology_elem_id = names[unit.names[0]]
        writer.data_unit(header, unit.payload)
    return stream.getvalue()


INTS, RAW = np.arange(6, dtype=np.int32), np.ones(3, np.float32)


@pytest.mark.parametrize(
    "units",
    [
        {"w@float16.rest": RAW},
        {"w@float16.exponent-3": INTS},
        {"w@float16.exponent-3": INTS, "w@float16.exponent-4": INTS},
        {"w@float16.exponent-3": INTS, "w@float32.rest": RAW},
        {"w@float16.exponent-3": INTS, "w@float16.rest": np.ones(30, np.float32)},
        {"w@float16.exponent-3": INTS, "w@float16.rest": INTS},
        {"w@float16.exponent-300": INTS, "w@float16.rest": np.ones(3, np.float32)},
        {"w@float16.none": RAW},
        {"w@float16.none": INTS + 40000},
        {"w@uint8.value-255": INTS},
        {"w@uint8.value-0": RAW},
        {"w": INTS, "w@plain": INTS},
        {"w@float16.index": INTS},
        {"w@float16.index": INTS, "w@float16.palette": np.ones(2, np.float32)},
        {"w@float16.index": INTS - 1, "w@float16.palette": RAW},
        {"w": RAW, "w@float32.places": INTS},
        {"w": RAW, "w@float32.places": INTS, "w@float32.values": np.ones(6, np.float32)},
        {"w": RAW, "w@float32.places": INTS[:1] - 1, "w@float32.values": RAW[:1]},
        {"w": RAW, "w@float16.places": INTS[:1], "w@float16.values": RAW[:1]},
        {"w": RAW, "w@float32.places": RAW[:1], "w@float32.values": RAW[:1]},
        {"w": RAW, "w@float32.places": INTS[:1], "w@float32.values": INTS[:1]},
    ],
    ids=" ".join,
)
def test_parts_that_do_not_fit_together_are_refused_by_name(units: dict[str, NDArray[Any]]) -> None:
    with pytest.raises(PayloadError) as caught:
        nnc_core.decode(damaged(units))
    assert caught.value.tensor == "w"


@pytest.mark.parametrize("shape", [(4000,), (50, 80), (20, 10, 3, 4), (80, 50)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_exponents_come_back_in_whichever_order_they_were_coded(shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(5)
    rows = 2.0 ** rng.integers(-9, 9, (shape[0], *[1] * (len(shape) - 1)))
    columns = 2.0 ** rng.integers(-5, 5, shape[-1])
    for name, scales in ("rows", rows), ("columns", columns), ("none", np.ones(1)):
        array = (rng.normal(size=shape) * scales).astype(dtype)
        data = nnc_core.encode({"w": array}, lossless=True)
        file = nnc_core.NnrFile(data)
        assert file.tensors["w"].shape == shape
        assert file["w"].tobytes() == array.tobytes(), name
        turned = any("t-" in unit.names[0] for unit in file.bitstream.data_units)
        assert turned or name != "columns" or len(shape) != 2
        assert not turned or name != "rows"


def test_parts_that_fit_are_put_together_in_any_order_and_apart() -> None:
    array = np.linspace(-1, 1, 6).astype(np.float16)
    exponents, rest = marks.planes(bits(array), "float16")
    units = {"w@float16.rest": marks.packed(rest), "v": INTS, "w@float16.exponent-0": exponents}
    decoded = nnc_core.decode(damaged(units))
    np.testing.assert_array_equal(decoded["w"], array)
    assert list(decoded) == ["w", "v"]
