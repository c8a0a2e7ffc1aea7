"""Archives: what is read is written again, byte for byte, in any container."""

from __future__ import annotations

import sys
import tarfile
import zipfile

import numpy as np
import pytest

import nnc_adapters
from nnc_adapters import registry
from nnc_adapters.api import write_into
from nnc_adapters.nnef import NnefAdapter
from nnc_adapters.nnef.dat import Header, ItemType
from nnc_core.errors import ModelError
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

nnef = pytest.importorskip("nnef", reason="the package nnef is not installed")

CONTAINERS = ["m2", "m2.nnef", "m2.nnef.tgz", "m2.tar.gz", "m2.tar", "m2.ZIP"]


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_read_is_written_again_byte_for_byte(adapter, everything, tree, tmp_path, container):
    first = adapter.read(everything)
    adapter.write(first.tensors, first.topology, tmp_path / container)
    assert isinstance(registry.find(tmp_path / container), NnefAdapter)
    second = adapter.read(tmp_path / container)
    assert second.topology == first.topology
    assert list(second.tensors) == list(first.tensors)
    adapter.write(second.tensors, second.topology, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(everything)


def test_the_same_model_makes_the_same_archive(adapter, everything, tmp_path):
    model = adapter.read(everything)
    for suffix in (".tgz", ".tar", ".zip"):
        for name in ("a", "b"):
            adapter.write(model.tensors, model.topology, tmp_path / (name + suffix))
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


@pytest.mark.parametrize("container", ["m2.tgz", "m2.tar", "m2.zip"])
def test_other_tools_read_the_archives(adapter, everything, tree, tmp_path, container):
    model = adapter.read(everything)
    adapter.write(model.tensors, model.topology, tmp_path / container)
    if container.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / container) as archive:
            archive.extractall(tmp_path / "out")
    else:
        with tarfile.open(tmp_path / container) as archive:
            archive.extractall(tmp_path / "out", filter="data")
    assert tree(tmp_path / "out") == tree(everything)


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("compression", ["", "gz"])
@pytest.mark.parametrize("top", ["", "./", "model/"])
def test_archives_of_other_tools_are_read(adapter, make, floats, tree, tmp_path, kind, compression, top):
    label = "/".join(["a" * 60] * 3)  # too long for the oldest form of a header
    folder = make({label: floats(4, 5), "é" if kind != tarfile.USTAR_FORMAT else "e": floats(20)})
    path = tmp_path / "m.archive"
    with tarfile.open(path, f"w:{compression}", format=kind) as archive:
        archive.add(folder, arcname=top or ".")
    assert adapter.sniff(path)
    model = adapter.read(path)
    adapter.write(model.tensors, model.topology, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(folder)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_zip_archives_of_other_tools_are_read(adapter, everything, tree, tmp_path, method):
    with zipfile.ZipFile(tmp_path / "m.archive", "w", method) as archive:
        archive.writestr("notes/", b"")
        for name, data in tree(everything).items():
            archive.writestr(name, data)
    model = adapter.read(tmp_path / "m.archive")
    adapter.write(model.tensors, model.topology, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(everything)


def test_a_model_that_the_package_nnef_saved_comes_back(adapter, tree, tmp_path):
    text = """version 1.0;
    graph g(x) -> (y) {
        x = external<scalar>(shape = [1, 4]);
        w = variable<scalar>(shape = [30, 4], label = 'dense/w'); # the weights
        b = variable<scalar>(label = "dense/b", shape = [1, 30]);
        y = linear(x, w, b);
    }"""
    graph = nnef.parse_string(text)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (30, 4)), ("b", (1, 30))):
        array = rng.normal(size=shape).astype(np.float32)
        graph.tensors[name] = nnef.Tensor(name, "scalar", list(shape), array, {})
    nnef.save_graph(graph, str(tmp_path / "saved"))
    model = adapter.read(tmp_path / "saved")
    adapter.write(model.tensors, model.topology, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(tmp_path / "saved")
    loaded = nnef.load_graph(str(tmp_path / "back"))
    np.testing.assert_array_equal(loaded.tensors["w"].data, graph.tensors["w"].data)


def test_tensors_are_read_when_they_are_asked_for(adapter, make, floats):
    folder = make({"a": floats(4, 5), "b": floats(4, 5)})
    model = adapter.read(folder)
    (folder / "a.dat").write_bytes(b"")
    assert model.tensors["b"].shape == (4, 5)
    with pytest.raises(ModelError, match=r"a\.dat.*0 bytes"):
        model.tensors["a"]


def test_two_variables_with_one_label_are_one_tensor(adapter, make, floats, tmp_path, tree):
    folder = make({"w": floats(4, 8)}, body="u = variable<scalar>(shape = [4, 8], label = 'w'); y = copy(x);")
    model = adapter.read(folder)
    assert list(model.tensors) == ["w"]
    adapter.write(model.tensors, model.topology, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(folder)


def test_into_an_existing_archive_its_types_and_its_other_tensors_stay(adapter, make, floats, tmp_path):
    folder = make({"half": floats(20, 3, bits=16), "other": floats(20, 3)})
    new = np.full((20, 3), 0.25, np.float32)
    write_into(adapter, {"half": new}, folder, tmp_path / "out")
    before, after = adapter.read(folder), adapter.read(tmp_path / "out")
    np.testing.assert_array_equal(after.tensors["half"], new.astype(np.float16), strict=True)
    np.testing.assert_array_equal(after.tensors["other"], before.tensors["other"], strict=True)
    with pytest.raises(ModelError, match="no such tensor"):
        write_into(adapter, {"new": new}, folder, tmp_path / "out2")


def test_into_an_existing_archive_a_tensor_may_replace_one_that_nnr_cannot_carry(adapter, make, tmp_path):
    folder = make({"u": (Header((2,), ItemType.UINT, 64), np.array([2**63, 1], np.uint64))})
    write_into(adapter, {"u": np.array([1, 2], np.int32)}, folder, tmp_path / "out")
    np.testing.assert_array_equal(adapter.read(tmp_path / "out").tensors["u"], np.array([1, 2], np.uint64), strict=True)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({}, "'w'.*not given"),
        ({"w": np.zeros((4, 5)), "v": np.zeros(3)}, "'v'.*no place"),
        ({"w": np.zeros((5, 4), np.float32)}, r"'w'.*\(5, 4\).*\(4, 5\)"),
        ({"w": np.zeros((4, 5), np.complex64)}, "'w'.*complex64"),
    ],
)
def test_tensors_that_do_not_fit_the_graph_are_refused(adapter, make, floats, tmp_path, tensors, message):
    topology = adapter.read(make({"w": floats(4, 5)})).topology
    with pytest.raises(ModelError, match=message):
        adapter.write(tensors, topology, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("container", ["out", "out.tgz"])
def test_an_existing_target_is_replaced_only_when_asked(adapter, make, floats, tmp_path, container):
    model = adapter.read(make({"w": floats(4, 5)}))
    adapter.write(model.tensors, model.topology, tmp_path / container)
    with pytest.raises(FileExistsError):
        adapter.write(model.tensors, model.topology, tmp_path / container)
    adapter.write(model.tensors, model.topology, tmp_path / container, force=True)
    assert adapter.sniff(tmp_path / container)
    assert not list(tmp_path.glob(".nnc*"))


def test_another_topology_is_refused(adapter, tmp_path):
    with pytest.raises(ModelError, match="the topology is of storage format"):
        adapter.write({}, Topology(TopologyStorageFormat.NNR_TPL_ONNX, b""), tmp_path / "out")


def test_items_of_a_vendors_type_are_carried_as_they_are(adapter, vendor_archive, tree, tmp_path):
    assert adapter.sniff(vendor_archive)
    assert list(adapter.read(vendor_archive).tensors) == ["bias"]
    with tarfile.open(vendor_archive) as archive:
        archive.extractall(tmp_path / "before", filter="data")
    nnc_adapters.compress(vendor_archive, tmp_path / "m.nnr")
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "after")
    before, after = tree(tmp_path / "before"), tree(tmp_path / "after")
    assert {**after, "bias.dat": b""} == {**before, "bias.dat": b""}


def test_no_package_is_needed(adapter, everything, tree, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nnef", None)
    nnc_adapters.compress(everything, tmp_path / "m.nnr")
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out")
    assert tree(tmp_path / "out").keys() == tree(everything).keys()


@pytest.mark.parametrize("content", [b"", b"version 1.0;", b"\x1f\x8b", b"PK\3\4", bytes(1024)])
def test_what_is_not_an_archive_is_not_taken_for_one(adapter, tmp_path, content):
    path = tmp_path / "m.nnef"
    path.write_bytes(content)
    assert not adapter.sniff(path)
    assert not adapter.sniff(tmp_path)
    assert not adapter.sniff(tmp_path / "absent")
    with pytest.raises(ModelError, match=r"archive|gzip"):
        adapter.read(path)
