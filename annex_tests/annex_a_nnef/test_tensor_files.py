"""Tensor files: every item type and width, judged by the package nnef where it knows them."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nnc_adapters.nnef import dat
from nnc_adapters.nnef.dat import Header, ItemType
from nnc_core.errors import ModelError, UnsupportedError

nnef = pytest.importorskip("nnef", reason="the package nnef is not installed")

KINDS = [(kind, bits) for kind, widths in dat._WIDTHS.items() for bits in widths]
OFFICIAL = [(kind, bits) for kind, bits in KINDS if (bits >= 8) != (kind == ItemType.BOOL)]


def values(header: Header, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if header.item_type == ItemType.FLOAT:
        return rng.normal(0, 1, header.shape).astype(header.dtype)
    width = 1 if header.item_type == ItemType.BOOL else header.bits_per_item
    least, most = (-(2 ** (width - 1)), 2 ** (width - 1) - 1) if header.signed else (0, 2**width - 1)
    array = rng.integers(least, most, header.shape, header.dtype, endpoint=True)
    array.reshape(-1)[:2] = (least, most)
    return array


def write(header: Header, array: np.ndarray) -> bytes:
    return header.pack() + bytes(dat.dump(header, array))


def read(data: bytes) -> tuple[Header, np.ndarray]:
    header = Header.parse(data, len(data))
    return header, dat.load(header, memoryview(data)[dat.HEADER_SIZE :])


@pytest.mark.parametrize(("kind", "bits"), KINDS)
@pytest.mark.parametrize("shape", [(2,), (3, 7), (1, 2, 3, 1, 2, 1, 1, 2)])
def test_items_of_every_type_and_width_come_back(kind, bits, shape):
    header = Header(shape, kind, bits)
    array = values(header)
    data = write(header, array)
    assert len(data) == 128 + -(-array.size * bits // 8)
    back = read(data)
    assert back[0] == header
    np.testing.assert_array_equal(back[1], array, strict=True)


@pytest.mark.parametrize(("kind", "bits"), OFFICIAL)
def test_the_package_nnef_reads_what_is_written(kind, bits, tmp_path):
    array = values(Header((4, 5), kind, bits))
    path = tmp_path / "t.dat"
    path.write_bytes(write(Header((4, 5), kind, bits), array))
    with path.open("rb") as stream:
        found, quantized = nnef.read_tensor(stream, return_quantization=True)
    np.testing.assert_array_equal(found, array)
    assert quantized == (kind in (ItemType.QINT, ItemType.QUINT))


@pytest.mark.parametrize(("kind", "bits"), OFFICIAL)
def test_what_the_package_nnef_writes_is_written_alike(kind, bits, tmp_path):
    array = values(Header((4, 5), kind, bits))
    path = tmp_path / "t.dat"
    with path.open("wb") as stream:
        quantized = kind in (ItemType.QINT, ItemType.QUINT)
        nnef.write_tensor(stream, array.astype(bool) if kind == ItemType.BOOL else array, quantized=quantized)
    data = path.read_bytes()
    header, found = read(data)
    assert (header.item_type, header.bits_per_item) == (kind, bits)
    np.testing.assert_array_equal(found, array)
    assert write(header, found) == data


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_header_and_array_come_back(data):
    kind, bits = data.draw(st.sampled_from(KINDS))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=8, min_side=0, max_side=4))
    reserved = data.draw(st.lists(st.integers(0, 2**32 - 1), max_size=18).map(lambda words: (*words, 1)))
    header = Header(tuple(shape), kind, bits, reserved)
    size = header.data_length
    content = bytearray(data.draw(st.binary(min_size=size, max_size=size)))
    if unused := 8 * size - header.elements * bits:
        content[-1] &= 0xFF << unused & 0xFF
    raw = header.pack() + bytes(content)
    found, array = read(raw)
    assert found == header
    assert write(found, array) == raw


def test_packed_items_begin_with_the_most_significant_bit():
    header = Header((3,), ItemType.UINT, 3)
    assert bytes(dat.dump(header, np.array([0b101, 0b010, 0b111]))) == bytes([0b10101011, 0b10000000])


def test_old_files_mark_signed_integers_in_the_reserved_part(tmp_path):
    header = Header((3,), ItemType.UINT, 16, (1,))
    path = tmp_path / "t.dat"
    path.write_bytes(write(header, np.array([-5, 0, 5])))
    assert read(path.read_bytes())[1].tolist() == [-5, 0, 5]
    with path.open("rb") as stream:
        assert nnef.read_tensor(stream).tolist() == [-5, 0, 5]


def test_decoded_floats_are_rounded_to_the_width_of_the_file():
    header = Header((3,), ItemType.FLOAT, 16)
    data = dat.dump(header, np.array([0.1, 1e9, -1e9], np.float32))
    assert np.frombuffer(data, "<f2").tolist() == [np.float16(0.1), 65504, -65504]


@pytest.mark.parametrize(
    ("header", "array", "message"),
    [
        (Header((1,), ItemType.UINT, 8), np.array([256]), "do not fit 8 bits"),
        (Header((1,), ItemType.UINT, 8), np.array([-1]), "do not fit 8 bits"),
        (Header((1,), ItemType.QINT, 4), np.array([8]), "do not fit 4 bits"),
        (Header((1,), ItemType.BOOL, 1), np.array([2]), "do not fit 1 bits"),
        (Header((1,), ItemType.INT, 32), np.array([1.0]), "float64.*INT"),
        (Header((1,), ItemType.FLOAT, 32), np.array([1]), "int64.*float32"),
    ],
)
def test_values_that_the_items_cannot_hold_are_refused(header, array, message):
    with pytest.raises(ModelError, match=message):
        dat.dump(header, array)


@pytest.mark.parametrize(
    ("item_type", "bits"), [(ItemType.FLOAT, 8), (ItemType.INT, 0), (ItemType.UINT, 9), (ItemType.BOOL, 2)]
)
def test_widths_that_the_standard_does_not_have_are_named(item_type, bits):
    with pytest.raises(UnsupportedError, match=f"{item_type.name} with {bits} bits"):
        Header((1,), item_type, bits)


def test_an_array_of_another_kind_has_no_header():
    with pytest.raises(ModelError, match="complex64"):
        dat.default((1,), np.dtype("complex64"))


def test_a_tensor_file_can_be_read_from_any_stream():
    header = Header((2, 2))
    data = write(header, values(header))
    assert Header.parse(io.BytesIO(data).read(128), len(data)) == header
