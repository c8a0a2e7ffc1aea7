"""Hostile topologies of PyTorch models: refused with a typed error, and nothing is written."""

from __future__ import annotations

import json
import os
import pickle
import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annex_tests.support.handmade_pytorch import (
    WEIGHT,
    Runs,
    Tensor,
    archive,
)
from annex_tests.support.hostile_pytorch import FILES, QUICK
from nnc_adapters.shared import packing
from nnc_core.errors import LimitError, ModelError, NncError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat


@pytest.fixture
def write(adapter, tmp_path):
    """Writes a model from a hostile topology; gives the path."""

    def call(content, tensors=None):
        data = content if isinstance(content, bytes) else packing.pack(content)
        topology = Topology(TopologyStorageFormat.NNR_TPL_PYT, data)
        adapter.write({"w": WEIGHT} if tensors is None else tensors, topology, tmp_path / "out.pt")
        return tmp_path / "out.pt"

    return call


@pytest.fixture
def honest(read, tmp_path):
    """The parts of a topology, its description as an object."""
    content = packing.unpack(read(archive({"w": Tensor()})).topology.data, Limits())
    (tmp_path / "m.pt").unlink()
    return json.loads(content["description.json"]), content["file/0"]


def test_an_honest_topology_is_written(write, honest):
    description, rest = honest
    path = write({"description.json": json.dumps(description).encode(), "file/0": rest})
    assert path.read_bytes() == archive({"w": Tensor()})


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.clear(),
        lambda d: d.update(kind="sharded"),
        lambda d: d.update(files=[]),
        lambda d: d.update(files=d["files"] * 2),
        lambda d: d.update(files=5),
        lambda d: d.update(root=5),
        lambda d: d.update(tensors=[]),
        lambda d: d.update(tensors=d["tensors"] * 2 + [{"name": "v", "dtype": "float32", "shape": [20]}]),
        lambda d: d["files"][0].update(name="../out"),
        lambda d: d["files"][0].update(holes=[]),
        lambda d: d["files"][0].update(holes=d["files"][0]["holes"] * 2),
        lambda d: d["files"][0].update(holes=[[1 << 40, "w"]]),
        lambda d: d["files"][0].update(holes=[[-1, "w"]]),
        lambda d: d["files"][0].update(holes=[["0", "w"]]),
        lambda d: d["files"][0].update(holes=[[0, []]]),
        lambda d: d["files"][0].update(holes=5),
        lambda d: d["files"][0].update(holes=[[0, "w"]]),
        lambda d: d["files"][0].update(zeros=[[1 << 40, 80]]),
        lambda d: d["files"][0].update(zeros=[[*d["files"][0]["holes"][0][:1], 80]]),
        lambda d: d["files"][0].update(zeros=[[0, -80]]),
        lambda d: d["files"][0].update(zeros=[["0", 80]]),
        lambda d: d["files"][0].update(zeros=[[0]]),
        lambda d: d["files"][0].update(checksums=[[0, 80, [1 << 40]]]),
        lambda d: d["files"][0].update(checksums=[[0, 80, [0]]]),
        lambda d: d["files"][0].update(checksums=[[0]]),
        lambda d: d["tensors"][0].update(shape=[21]),
        lambda d: d["tensors"][0].update(shape=[-20]),
        lambda d: d["tensors"][0].update(shape="20"),
        lambda d: d["tensors"][0].update(order=[1]),
        lambda d: d["tensors"][0].update(order=[0, 0]),
        lambda d: d["tensors"][0].update(dtype="complex64"),
        lambda d: d["tensors"][0].update(dtype="int32"),
        lambda d: d["tensors"][0].update(dtype="float16"),
        lambda d: d["tensors"][0].update(dtype=[]),
        lambda d: d["tensors"][0].update(name="v"),
    ],
)
def test_a_topology_that_lies_is_refused_and_nothing_is_written(write, honest, tmp_path, change):
    description, rest = honest
    change(description)
    with pytest.raises(ModelError):
        write({"description.json": json.dumps(description).encode(), "file/0": rest})
    assert not list(tmp_path.iterdir())


def test_a_topology_of_endless_zeros_is_refused(write, honest, tmp_path):
    description, rest = honest
    description["files"][0]["zeros"] = [[0, 1 << 60]]
    with pytest.raises(LimitError, match="decoded_bytes"):
        write({"description.json": json.dumps(description).encode(), "file/0": rest})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"garbage", {}, {"description.json": b"{}"}, {"description.json": b"\xff"}])
def test_a_topology_that_is_not_one_is_refused(write, content):
    with pytest.raises(ModelError):
        write(content)


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "a/b", "..", ".", "", "a\\b", "c:evil", "a\0b", "é" * 128, "\ud800"]
)
def test_files_of_a_topology_stay_in_their_folder(write, tmp_path, name):
    description = {
        "kind": "sharded",
        "root": [],
        "tensors": [],
        "files": [{"name": name, "holes": [], "checksums": []}],
    }
    with pytest.raises(ModelError, match=r"(name|path) of a file|surrogates not allowed"):
        write({"description.json": json.dumps(description).encode(), "file/0": b"evil"}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["zip", "sharded"])
def test_a_topology_cannot_bring_a_pickle_that_runs_code(write, canary, tmp_path, kind):
    name = "" if kind == "zip" else "model.bin"
    names = [name] if kind == "zip" else [name, "model.bin.index.json"]
    files = [{"name": name, "holes": [], "checksums": []} for name in names]
    description = {"kind": kind, "root": [], "tensors": [], "files": files}
    evil = archive(pickle.dumps(Runs(os.system, f"touch {canary}")))
    content = {"file/0": evil, "file/1": b'{"weight_map": {}}'}
    with pytest.raises(ModelError, match="could run code"):
        write({"description.json": json.dumps(description).encode(), **content}, {})
    assert not list(tmp_path.iterdir())


@QUICK
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 4))
def test_a_damaged_description_is_followed_or_refused(adapter, tmp_path, seed, changes):
    (tmp_path / "m.pt").write_bytes(FILES["archive"])
    content = packing.unpack(adapter.read(tmp_path / "m.pt").topology.data, Limits())
    text, rng = bytearray(content["description.json"]), random.Random(seed)
    for _ in range(changes):
        text[rng.randrange(len(text))] = rng.choice(b'0123456789"[]{},:-ewv')
    data = packing.pack({**content, "description.json": bytes(text)})
    tensors = {"w": WEIGHT, "v.0": WEIGHT.reshape(4, 5)}
    with suppress(NncError):
        adapter.write(tensors, Topology(TopologyStorageFormat.NNR_TPL_PYT, data), tmp_path / "out.pt", force=True)
    assert {p.name for p in tmp_path.iterdir()} <= {"m.pt", "out.pt"}
