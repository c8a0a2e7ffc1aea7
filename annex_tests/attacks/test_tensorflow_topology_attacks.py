"""Hostile topologies of TensorFlow models: refused, and nothing is left behind."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest

from nnc_adapters.shared import packing
from nnc_adapters.tensorflow import TensorflowAdapter, manifest
from nnc_core.errors import LimitError, ModelError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

WEIGHT = np.arange(64, dtype=np.float32).reshape(8, 8)


@pytest.fixture
def adapter():
    return TensorflowAdapter()


@pytest.fixture
def write(adapter, tmp_path):
    """Writes the model of a topology, given as its files.json; the target is in a folder of its own."""

    def call(files, exact=(b"",), kind="saved_model", folders=(), tensors=None):
        text = files if isinstance(files, bytes) else json.dumps({"files": files, "folders": folders}).encode()
        data = packing.pack({"kind": kind.encode(), "files.json": text, **{str(n): e for n, e in enumerate(exact)}})
        (tmp_path / "out").mkdir()
        topology = Topology(TopologyStorageFormat.NNR_TPL_TEF, data)
        adapter.write(tensors or {}, topology, tmp_path / "out" / "model")

    return call


def file_of(path="f", size=0, places=(), **attributes):
    return {"path": path, "size": size, "places": places, "attributes": attributes}


def test_an_honest_topology_is_written(write, tmp_path):
    places = [[1, "w", "float32", [8, 8]], [300, None, "uint8", [10]]]
    write([file_of("a/f", 320, places)], [b"(" + bytes(43) + b"0123456789"], tensors={"w": WEIGHT})
    written = (tmp_path / "out" / "model" / "a" / "f").read_bytes()
    assert written == b"(" + WEIGHT.tobytes() + bytes(43) + bytes(10) + b"0123456789"


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "/x",
        "a/../../x",
        "C:x",
        "a\\..\\..\\x",
        "",
        ".",
        "a\0b",
        "a//b",
        "\ud800",
        "é" * 128,
        "a/" * 1500 + "f",
        "/".join(["a" * 250] * 20),
    ],
)
def test_a_path_out_of_the_model_is_refused(write, tmp_path, path):
    with pytest.raises(ModelError, match="path of a file"):
        write([file_of(path)])
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("files", "folders"),
    [([file_of("a"), file_of("a")], ()), ([file_of("a"), file_of("a/b")], ()), ([file_of("a")], ["a"])],
)
def test_names_that_collide_are_refused(write, files, folders):
    with pytest.raises(ModelError, match="same name"):
        write(files, [b""] * 2, folders=folders)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([[0, "w", "float32", [8, 8]], [255, "v", "float32", [1]]], "shares byte"),
        ([[260, "w", "float32", [8, 8]], [0, "v", "float32", [1]]], "shares byte"),
        ([[400, "w", "float32", [8, 8]]], "which has 512"),
        ([[-4, "w", "float32", [8, 8]]], "shares byte"),
        ([[0, "w", "float32", [8, -8]]], "shape"),
        ([[0, "w", "float32", [1 << 60, 1 << 60]]], "which has 512"),
        ([[0, "w", "O", [8, 8]]], "data type"),
        ([[0, "w", "complex64", [8, 8]]], "data type"),
        ([[0, "w", ["float32"], [8, 8]]], "damaged"),
        ([[0, 5, "float32", [8, 8]]], "damaged"),
        ([[True, "w", "float32", [8, 8]]], "damaged"),
        ([[0, "w", "float32", [8.0, 8]]], "damaged"),
        ([[0, "w", "float32"]], "damaged"),
        (["wxyz"], "damaged"),
        ([[0, "w", "float32", [8, 8]]], "bytes are given"),
    ],
)
def test_places_that_cannot_be_are_refused(write, tmp_path, places, message):
    with pytest.raises(ModelError, match=message):
        write([file_of("f", 512, places)], [bytes(512)], tensors={"w": WEIGHT})
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "places", [[[0, None, "uint8", [1 << 40]]], [[n << 30, "w", "uint8", [1 << 30]] for n in range(40)]]
)
def test_a_topology_that_explodes_is_refused(write, places):
    size = sum(place[3][0] for place in places)
    with pytest.raises(LimitError, match="decoded_bytes"):
        write([file_of("f", size, places)])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"files": 5, "folders": []}',
        b'{"files": [5], "folders": []}',
        b"[" * 100_000,
        b"\xff",
        b'{"files": [], "folders": [5]}',
    ],
)
def test_a_description_that_is_not_one_is_refused(write, text):
    with pytest.raises(ModelError, match="topology is damaged"):
        write(text)


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("", [file_of()]),
        ("folder", [file_of()]),
        ("hdf5", []),
        ("tflite", [file_of("a"), file_of("b")]),
        ("checkpoint_files", [file_of(".data-00000-of-00001")]),
        ("checkpoint_files", []),
        ("checkpoint", [file_of("c.index")]),
        ("saved_model", [file_of("saved_model.pb"), file_of("variables/variables.index")]),
        ("keras", [file_of()]),
        ("keras", [file_of(date_time=[1979, 1, 1, 0, 0, 0], compress_type=0, create_system=3, external_attr=0)]),
        ("keras", [file_of(date_time=[2020, 1, 1, 0, 0, 0], compress_type=14, create_system=3, external_attr=0)]),
        ("keras", [file_of(date_time=[2020, 1, 1, 0, 0, 0], compress_type=0, create_system=-1, external_attr=0)]),
        ("keras", [file_of(date_time="2020-1", compress_type=0, create_system=3, external_attr=0)]),
    ],
)
def test_a_model_that_is_not_of_its_kind_is_refused(write, tmp_path, kind, files):
    with pytest.raises(ModelError, match=r"topology|index"):
        write(files, [b""] * 2, kind=kind)
    assert not list((tmp_path / "out").iterdir())


def test_damaged_topologies_are_read_or_refused(damaged, survives):
    generator = random.Random(21)
    places = (manifest.Place(4, "w", "float32", (8, 8)), manifest.Place(300, None, "uint8", (10,)))
    whole = manifest.pack(
        manifest.Manifest("saved_model", (manifest.File("a/f", 320, bytes(54), places),), ("assets",))
    )
    text = packing.unpack(whole, Limits())["files.json"]
    for _ in range(2000):
        survives(manifest.unpack, damaged(whole, generator), Limits())
        data = packing.pack({"kind": b"saved_model", "files.json": damaged(text, generator), "0": bytes(54)})
        survives(manifest.unpack, data, Limits())
