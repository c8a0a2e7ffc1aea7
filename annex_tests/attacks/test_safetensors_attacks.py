"""Hostile files of safetensors, and hostile indexes of shards."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annex_tests.support.handmade_pytorch import WEIGHT
from annex_tests.support.handmade_pytorch import safetensors as file
from nnc_adapters.pytorch import PytorchAdapter
from nnc_core.errors import ModelError, NncError

QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
ENTRY = {"dtype": "F32", "shape": [20], "data_offsets": [0, 80]}


@pytest.fixture
def adapter():
    return PytorchAdapter()


@pytest.fixture
def read(adapter, tmp_path):
    def call(data):
        (tmp_path / "m.safetensors").write_bytes(data)
        return adapter.read(tmp_path / "m.safetensors")

    return call


def test_an_honest_file_is_read(read):
    np.testing.assert_array_equal(read(file({"w": ENTRY})).tensors["w"], WEIGHT)
    np.testing.assert_array_equal(read(file(json.dumps({"w": ENTRY}).encode() + b"   ")).tensors["w"], WEIGHT)


@pytest.mark.parametrize("size", [1, 79, 81, 100_000_001, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
def test_a_header_of_another_size_is_refused(read, size):
    with pytest.raises(ModelError, match=r"m\.safetensors"):
        read(file({"w": ENTRY}, size=size))


@pytest.mark.parametrize("data", [b"", b"\0", bytes(7), bytes(8), bytes(100)])
def test_what_is_not_a_file_is_refused(read, data):
    with pytest.raises(ModelError):
        read(data)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"5",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"w": NaN}',
        b'{"w": 5}',
        b'{"w": []}',
        b'{"w": {}}',
        b'{"w": {"dtype": "F32", "shape": [20], "data_offsets": [0, 80], "shape": [20]}}',
        b'{"w": {"dtype": "F32", "shape": [20], "data_offsets": [0, 80]}, "w": {}}',
        b'{"__metadata__": {"a": 5}}',
        b'{"__metadata__": []}',
    ],
)
def test_a_header_that_is_not_one_is_refused(read, text):
    with pytest.raises(ModelError, match=r"m\.safetensors"):
        read(file(text))


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "F31"},
        {"dtype": 5},
        {"dtype": []},
        {"dtype": "F64"},
        {"shape": [21]},
        {"shape": [-20]},
        {"shape": [20.0]},
        {"shape": [True]},
        {"shape": 20},
        {"shape": "20"},
        {"shape": [1 << 62, 1 << 62]},
        {"shape": [1 << 62] * 100_000},
        {"shape": [1] * 65 + [20]},
        {"shape": [[20]]},
        {"data_offsets": [0, 79]},
        {"data_offsets": [0]},
        {"data_offsets": [0, 80, 80]},
        {"data_offsets": [80, 0]},
        {"data_offsets": [-80, 0]},
        {"data_offsets": ["0", "80"]},
        {"data_offsets": [1 << 62, (1 << 62) + 80]},
        {"data_offsets": [1, 81]},
        {"dtype": "F4", "shape": [161]},
    ],
)
def test_a_tensor_that_lies_is_refused(read, change):
    with pytest.raises(ModelError):
        read(file({"w": {**ENTRY, **change}}))


@pytest.mark.parametrize("offsets", [[0, 80], [40, 120], [79, 159], [81, 161], [160, 240]])
def test_tensors_with_gaps_or_overlaps_are_refused(read, offsets):
    with pytest.raises(ModelError, match="gap or overlap"):
        read(file({"w": ENTRY, "v": {**ENTRY, "data_offsets": offsets}}, bytes(240)))


@pytest.mark.parametrize("size", [79, 81, 1000])
def test_bytes_that_are_missing_or_left_over_are_refused(read, size):
    with pytest.raises(ModelError, match="end at byte"):
        read(file({"w": ENTRY}, bytes(size)))


@pytest.mark.parametrize(("kind", "shape"), [("F4", [160]), ("F6_E2M3", [8, 20]), ("F8_E8M0", [80]), ("C64", [10])])
def test_types_that_the_codec_does_not_know_are_kept(read, kind, shape):
    size = 120 if kind.startswith("F6") else 80
    assert not read(file({"w": {"dtype": kind, "shape": shape, "data_offsets": [0, size]}}, bytes(size))).tensors


@QUICK
@given(seed=st.integers(0, 2**32), changes=st.integers(0, 5), cut=st.booleans())
def test_a_damaged_file_is_read_or_refused_but_nothing_else_happens(adapter, tmp_path, seed, changes, cut):
    header = {"__metadata__": {"a": "b"}, "w": ENTRY, "v": {"dtype": "I8", "shape": [3, 0], "data_offsets": [80, 80]}}
    data, rng = bytearray(file(header)), random.Random(seed)
    for _ in range(changes):
        data[rng.randrange(len(data) - 80)] = rng.choice(b'0123456789"[]{},:-eF\0\xff')
    path = tmp_path / "m.safetensors"
    path.write_bytes(data[: rng.randrange(len(data))] if cut else data)
    assert adapter.sniff(path) in (True, False)
    try:
        model = adapter.read(path)
        adapter.write(dict(model.tensors), model.topology, tmp_path / "out", force=True)
    except NncError:
        pass
    else:
        assert (tmp_path / "out").read_bytes() == path.read_bytes()
    assert {p.name for p in tmp_path.iterdir()} <= {"m.safetensors", "out"}


@pytest.fixture
def shards(adapter, tmp_path):
    """Reads a folder with an index, and a shard ``a.safetensors`` with the tensor ``w``."""

    def call(index, **files):
        folder = tmp_path / "shards"
        folder.mkdir()
        (tmp_path / "outside.safetensors").write_bytes(file({"w": ENTRY}))
        (folder / "a.safetensors").write_bytes(file({"w": ENTRY}))
        text = index if isinstance(index, bytes) else json.dumps(index).encode()
        (folder / "model.safetensors.index.json").write_bytes(text)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        return adapter.read(folder / "model.safetensors.index.json")

    return call


def test_an_honest_index_is_read(shards):
    assert list(shards({"weight_map": {"w": "a.safetensors"}}).tensors) == ["w"]


@pytest.mark.parametrize(
    "place",
    [
        *("../outside.safetensors", "/etc/passwd", "", ".", "..", "a\\b", "c:a", "a\0b", "missing.safetensors"),
        *(5, None, ["a.safetensors"], {}, "model.safetensors.index.json", "é" * 128, "\ud800"),
    ],
)
def test_a_shard_that_is_elsewhere_or_missing_is_refused(shards, place):
    with pytest.raises(ModelError):
        shards({"weight_map": {"w": place}})


@pytest.mark.parametrize(
    "index",
    [b"", b"{", b"[]", b"5", b"\xff", b'{"weight_map": 5}', b'{"weight_map": []}', b'{"weight_map": null}', b"{}"],
)
def test_an_index_that_is_not_one_is_refused(shards, index):
    with pytest.raises(ModelError, match="not an index of shards"):
        shards(index)


def test_a_tensor_that_its_shard_lacks_is_refused(shards):
    with pytest.raises(ModelError, match=r"'v'.*not there"):
        shards({"weight_map": {"w": "a.safetensors", "v": "a.safetensors"}})


def test_a_damaged_shard_is_refused(shards):
    with pytest.raises(ModelError, match=r"b\.safetensors"):
        shards({"weight_map": {"w": "b.safetensors"}}, **{"b.safetensors": b"damaged"})


def test_tensors_of_the_same_name_in_two_shards_are_both_kept(shards):
    second = file({"w": ENTRY, "v": {"dtype": "U8", "shape": [0], "data_offsets": [80, 80]}})
    model = shards({"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}, **{"b.safetensors": second})
    assert list(model.tensors) == ["w", "w#2"]


@pytest.mark.parametrize(("listed", "lacking"), [(["a", "b"], "b"), (["a", "a"], "v")])
def test_a_folder_with_a_part_of_the_shards_is_refused(adapter, tmp_path, listed, lacking):
    (tmp_path / "a.safetensors").write_bytes(file({"w": ENTRY}))
    index = {"weight_map": {"w": f"{listed[0]}.safetensors", "v": f"{listed[1]}.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=f"{lacking}.*not there"):
        adapter.read(tmp_path)
