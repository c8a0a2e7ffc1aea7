"""Hostile Keras archives and HDF5 files: refused with an error that says why."""

from __future__ import annotations

import io
import random
import struct
import time
import zipfile

import numpy as np
import pytest

from annex_tests.support.handmade_tensorflow import WEIGHT, keras_weights
from annex_tests.support.handmade_tensorflow import keras_archive as archive
from nnc_adapters.base import Options
from nnc_adapters.tensorflow import TensorflowAdapter
from nnc_adapters.tensorflow.content import Content
from nnc_adapters.tensorflow.hdf5 import check_heaps
from nnc_core.errors import LimitError, ModelError, UnsupportedError
from nnc_core.limits import Limits


@pytest.fixture
def adapter():
    return TensorflowAdapter()


@pytest.fixture
def weights():
    """An HDF5 file as Keras makes them."""
    pytest.importorskip("h5py", reason="h5py is not installed")
    return keras_weights()


@pytest.fixture
def read_file(adapter, tmp_path):
    def call(name, data):
        (tmp_path / name).write_bytes(data)
        return adapter.read(tmp_path / name)

    return call


def test_an_honest_archive_is_read(read_file, weights):
    model = read_file("m.keras", archive({"config.json": "{}", "model.weights.h5": weights}))
    np.testing.assert_array_equal(model.tensors["layers/dense/vars/0"], WEIGHT)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "C:/x", "a\\..\\x", "a//b", "./a", ".."])
def test_members_outside_the_archive_are_refused(read_file, weights, name):
    with pytest.raises(ModelError, match="path of a file"):
        read_file("m.keras", archive({"config.json": "{}", "model.weights.h5": weights, name: b"x"}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_the_same_name_are_refused(read_file, weights):
    stream = io.BytesIO(archive({"config.json": "{}", "model.weights.h5": weights}))
    with zipfile.ZipFile(stream, "a") as target:
        target.writestr(zipfile.ZipInfo("config.json"), "{}")
    with pytest.raises(ModelError, match="same name"):
        read_file("m.keras", stream.getvalue())


def test_a_member_inside_another_is_refused_before_anything_is_coded(read_file, weights):
    members = {"config.json": "{}", "metadata.json": "{}", "model.weights.h5": weights, "model.weights.h5/x": b"x"}
    with pytest.raises(ModelError, match="inside the other"):
        read_file("m.keras", archive(members))


def test_an_archive_that_explodes_is_refused(tmp_path, weights):
    members = {"config.json": "{}", "model.weights.h5": weights, "zeros": bytes(1 << 22)}
    (tmp_path / "m.keras").write_bytes(archive(members, zipfile.ZIP_DEFLATED))
    with pytest.raises(LimitError, match="decoded_bytes"):
        TensorflowAdapter().read(tmp_path / "m.keras", Options(Limits(decoded_bytes=1 << 20)))


def test_an_archive_with_a_wrong_checksum_is_refused(read_file, weights):
    data = archive({"config.json": "{}", "model.weights.h5": weights})
    with pytest.raises(ModelError, match="checksum"):
        read_file("m.keras", data.replace(WEIGHT.tobytes(), WEIGHT[::-1].tobytes()))


def test_an_encrypted_archive_is_not_supported(read_file, weights):
    data = bytearray(archive({"config.json": "{}", "model.weights.h5": weights}))
    data[data.index(b"PK\1\2") + 8] |= 1
    with pytest.raises(UnsupportedError, match="encrypted"):
        read_file("m.keras", bytes(data))


def test_a_member_that_is_elsewhere_is_refused(read_file, weights):
    data = bytearray(archive({"config.json": "{}", "model.weights.h5": weights}))
    at = data.index(b"PK\1\2", data.index(b"PK\1\2") + 1) + 42
    data[at : at + 4] = struct.pack("<I", 7)
    with pytest.raises(ModelError, match="archive is damaged"):
        read_file("m.keras", bytes(data))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_cut_hdf5_file_is_refused(read_file, weights, part):
    whole = b"".join([weights[: int(len(weights) * part)]])
    with pytest.raises(ModelError):
        read_file("m.h5", whole)


def test_links_of_an_hdf5_file_are_not_followed(read_file, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["w"] = WEIGHT
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["keras_version"] = "3"
        file["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/w")
        file.create_dataset("raw", (8, 8), "f4", external=[(str(tmp_path / "secret"), 0, 256)])
        layout = h5py.VirtualLayout((8, 8), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "w", shape=(8, 8))
        file.create_virtual_dataset("virtual", layout)
        group = file.create_group("group")
        group["circle"] = file["/"]
    model = TensorflowAdapter().read(tmp_path / "m.h5")
    assert not model.tensors
    assert WEIGHT.tobytes() not in model.topology.data


def test_a_million_chunks_of_which_few_are_there_are_not_gone_through(adapter, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["keras_version"] = "3"
        sparse = file.create_dataset("sparse", (1_000_000,), "f4", chunks=(1,))
        for place in range(1000):
            sparse[place] = 1
    start = time.process_time()
    assert not adapter.read(tmp_path / "m.h5").tensors
    assert time.process_time() - start < 5


def test_groups_inside_each_other_without_end_are_refused(adapter, tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["keras_version"] = "3"
        group = file
        for _ in range(3000):
            group = group.create_group("g")
        group["w"] = WEIGHT
    start = time.process_time()
    with pytest.raises(ModelError, match="deep inside each other"):
        adapter.read(tmp_path / "m.h5")
    assert time.process_time() - start < 5


@pytest.mark.parametrize("size", [0, 8])
def test_free_space_of_no_size_in_a_heap_is_refused(adapter, tmp_path, size):
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = "3"
        file["w"] = np.ones(64, np.float32)
    data = path.read_bytes()
    free = data.index(b"GCOL") + 16 + 24  # behind the only object, of one byte
    assert data[free : free + 8] == bytes(8)
    assert adapter.read(path).tensors
    path.write_bytes(data[: free + 8] + struct.pack("<Q", size) + data[free + 16 :])
    with pytest.raises(ModelError, match="free space"):
        check_heaps(Content(path, 0, len(data)))
    with pytest.raises(ModelError):
        adapter.read(path)


@pytest.mark.parametrize("name", ["m.h5", "m.keras"])
def test_damaged_keras_files_are_read_or_refused(read_file, weights, name, damaged, survives):
    generator = random.Random(22)
    whole = weights if name == "m.h5" else archive({"config.json": "{}", "model.weights.h5": weights})
    for _ in range(400):
        survives(read_file, name, damaged(whole, generator))
