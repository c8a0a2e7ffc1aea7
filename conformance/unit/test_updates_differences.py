"""Exact differences: every bit pattern of every type comes back, and what the coder cannot hold is told apart."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnc_core.updates.differences import Literal, applied, difference, exponents, patterns_of
from nnc_core.updates.digest import fingerprint, fingerprints, model_digest
from nnc_core.updates.naming import read_name, unit_names

SMALL = ("bool", "int8", "uint8", "float8_e4m3fn", "float8_e5m2")
HALF = ("int16", "uint16", "float16", "bfloat16")
WIDE = ("int32", "uint32", "float32", "int64", "uint64", "float64", ">f4", ">i2")


def dtype_of(name: str) -> np.dtype:
    return np.dtype(getattr(ml_dtypes, name, name))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("name", SMALL + HALF)
def test_every_pattern_of_up_to_16_bits_returns_from_every_other(name: str) -> None:
    dtype = dtype_of(name)
    count = 2 if name == "bool" else 1 << (8 * dtype.itemsize)
    new = np.arange(count, dtype=f"u{dtype.itemsize}").view(dtype)
    for shift in (0, 1, count // 2, count - 1):
        base = np.roll(new.view(f"u{dtype.itemsize}"), shift).view(dtype)
        change = difference(new, base)
        assert same_bits(applied(base, change.parts, change.literals), new)


@pytest.mark.parametrize("name", WIDE)
@given(data=st.data())
def test_random_patterns_of_wide_types_return(name: str, data: st.DataObject) -> None:
    dtype = dtype_of(name)
    length = 8 * dtype.itemsize
    base, new = (np.frombuffer(data.draw(st.binary(min_size=length, max_size=length)), dtype) for _ in range(2))
    change = difference(new, base)
    assert all(part.dtype == np.int32 and part.min() > -(1 << 31) for part in change.parts)
    assert same_bits(applied(base, change.parts, change.literals), new)


def test_neighbouring_floats_differ_by_one_and_zeros_keep_their_sign() -> None:
    base = np.array([1.0, -1.0, 0.0, -0.0], np.float32)
    new = np.nextafter(base, np.array([2, -2, -1, 1], np.float32))
    new[2:] = -0.0, 0.0
    change = difference(new, base)
    assert change.parts[0].tolist() == [1, -1, -1, 1]


@pytest.mark.parametrize(("name", "bits"), [("int32", 1 << 31), ("int64", 1 << 63)])
def test_a_difference_that_the_coder_cannot_hold_becomes_a_literal(name: str, bits: int) -> None:
    base, new = np.zeros(3, name), np.array([1, np.iinfo(name).min, 2], name)
    change = difference(new, base)
    assert change.literals == (Literal(1, bits),)
    assert change.parts[-1].tolist() == [1, 1, 2]
    assert same_bits(applied(base, change.parts, change.literals), new)


def test_exponents_are_those_of_the_type() -> None:
    values = np.array([1.0, 2.0, 0.25, 0.0])
    assert exponents(values.astype(np.float32)).tolist() == [127, 128, 125, 0]
    assert exponents(values.astype(ml_dtypes.bfloat16)).tolist() == [127, 128, 125, 0]
    assert exponents(values.astype(np.float16)).tolist() == [15, 16, 13, 0]
    assert exponents(values).tolist() == [1023, 1024, 1021, 0]
    assert exponents(np.arange(4)).tolist() == [0, 0, 0, 0]


def test_patterns_of_a_strided_array_are_those_of_its_copy() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4).T
    assert np.array_equal(patterns_of(array), patterns_of(array.copy()))


def test_digests_depend_on_names_types_shapes_and_bits_but_not_on_order_or_byte_order() -> None:
    a, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.int64)
    digest = model_digest(fingerprints({"a": a, "b": b}))
    assert digest == model_digest(fingerprints({"b": b, "a": a.astype(">f4")}))
    changed = [
        {"a": a, "c": b},
        {"a": a.reshape(3, 2), "b": b},
        {"a": a, "b": b.astype(np.int32)},
        {"a": np.where(a == 0, np.float32(-0.0), a), "b": b},
    ]
    assert digest not in {model_digest(fingerprints(each)) for each in changed}


def test_a_fingerprint_of_many_elements_is_that_of_their_bytes() -> None:
    from hashlib import sha256

    array = np.arange((1 << 22) + 3, dtype=np.uint8)
    assert fingerprint(array).digest == sha256(array.tobytes()).digest()


@pytest.mark.parametrize("tensor", ["w", "a@b.c", "x@float32.difference-base"])
def test_names_of_units_lead_back_to_the_tensor(tensor: str) -> None:
    for parts in (1, 2):
        for name in unit_names(tensor, "bfloat16", "parent", parts):
            found = read_name(name)
            assert found is not None
            assert found[:3] == (tensor, "bfloat16", "parent")
    assert read_name("layer.0.weight") is None
