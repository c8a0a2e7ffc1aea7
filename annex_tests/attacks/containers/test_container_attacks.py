"""Hostile containers: refused with an error that says why, whatever they claim."""

from __future__ import annotations

import io
import json
import os
import random
import warnings
import zipfile

import numpy as np
import pytest

from annex_tests.support.hostile_containers import BIG, CONTAINER, FILES, NNR, SIZE, mutated, read_all, written
from nnc_adapters.containers import CONTAINERS
from nnc_core.bitstream.parts import join
from nnc_core.errors import LimitError, ModelError, NncError
from nnc_core.limits import Limits


def safetensors(header, data=NNR):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(start=0, end=SIZE, shape=None, dtype="U8"):
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


def test_an_honest_safetensors_file_is_read(tmp_path):
    (tmp_path / "x").write_bytes(safetensors({"a": entry()}))
    assert read_all("safetensors", tmp_path / "x") == {"a": NNR}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "8 bytes at 0"),
        (b"\xff" * 8, "a header of"),
        (BIG.to_bytes(8, "little") + b"{}", "a header of"),
        (safetensors(b"{"), "damaged"),
        (safetensors(b"\xff\xfe{}"), "damaged"),
        (safetensors(b"[" * 100_000), "damaged"),
        (safetensors(b'{"a":' * 50_000), "damaged"),
        (safetensors(b"[]", b""), "not a JSON object"),
        (safetensors(b"{}", b""), "carries no NNR"),
        (safetensors(b'{"a":{},"a":{}}'), "twice"),
        (safetensors(b'{"a":' + b"9" * 5000 + b"}"), "damaged"),
        (safetensors({"a": None}), "not a vector of bytes"),
        (safetensors({"a": entry(dtype="F32")}), "not a vector of bytes"),
        (safetensors({"a": entry(shape=[len(NNR), 1])}), "not a vector of bytes"),
        (safetensors({"a": entry(shape=[BIG])}), "not a vector of bytes"),
        (safetensors({"a": entry(0, BIG)}), "bytes of data, expected"),
        (safetensors({"a": entry(-1, 5)}), "not a vector of bytes"),
        (safetensors({"a": entry(5, 2)}), "not a vector of bytes"),
        (safetensors({"a": entry(1, len(NNR))}), "expected 0"),
        (safetensors({"a": entry(), "b": entry()}), "expected"),
        (safetensors({"a": entry()}, NNR[:-1]), "bytes of data, expected"),
        (safetensors({"a": entry()}, NNR + b"!"), "bytes of data, expected"),
        (safetensors({"a": {**entry(), "data_offsets": [True, True], "shape": [0]}}), "expected 0"),
        (safetensors({"a": {**entry(), "data_offsets": [0.0, 5.0]}}), "not a vector of bytes"),
    ],
)
def test_safetensors_headers_that_lie_are_refused(refused, data, match):
    refused("safetensors", data, match)


# zip and npz


def archive(*members, compression=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as file:
        warnings.simplefilter("ignore")
        for name, data in members:
            file.writestr(zipfile.ZipInfo(name), data, compression)  # a mere name would come with the time of day
    return stream.getvalue()


def test_the_same_member_twice_is_refused(refused):
    refused("zip", archive(("a.nnr", NNR), ("a.nnr", NNR)), "twice")
    refused("zip", archive(("a.nnr", NNR), ("%61.nnr", NNR)), "twice")


def test_a_bomb_is_refused_before_it_is_inflated(refused, tmp_path):
    bomb = archive(("a.nnr", bytes(1 << 24)), compression=zipfile.ZIP_DEFLATED)
    refused("zip", bomb, "claim to inflate")
    (tmp_path / "x").write_bytes(archive(("a.nnr", NNR), ("b.nnr", NNR)))
    with pytest.raises(LimitError, match="decoded_bytes"):
        read_all("zip", tmp_path / "x", Limits(decoded_bytes=len(NNR)))


def test_other_compressions_are_refused(refused):
    refused("zip", archive(("a.nnr", NNR), compression=zipfile.ZIP_LZMA), "compression method 14")


def test_wrong_sums_and_names_are_refused(refused):
    data = archive(("a.nnr", NNR))
    refused("zip", data.replace(NNR, NNR[:-1] + b"!"), "damaged")
    refused("zip", archive(("%ff.nnr", NNR)), "damaged")
    encrypted = bytearray(data)
    encrypted[6] |= 1
    encrypted[data.index(b"PK\1\2") + 8] |= 1
    refused("zip", bytes(encrypted), "damaged")


def test_central_directories_that_lie_are_refused(refused):
    data = archive(("a.nnr", NNR))
    central, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    for at, size in ((central + 20, 4), (central + 24, 4), (central + 42, 4), (end + 12, 4), (end + 16, 4)):
        for value in (0, 1, (1 << 31) - 1, (1 << 32) - 1):
            changed = bytearray(data)
            changed[at : at + size] = value.to_bytes(size, "little")
            if bytes(changed) != data:
                refused("zip", bytes(changed), "damaged|carries no NNR")


def test_a_zip_without_nnr_is_refused(refused):
    refused("zip", archive(("../../etc/passwd", b"x")), "carries no NNR")
    refused("zip", archive(), "carries no NNR")


@pytest.mark.parametrize(
    "member",
    [
        b"",
        NNR,
        b"\x93NUMPY\1\0",
        b"\x93NUMPY\2\0" + bytes(200),
        b"\x93NUMPY\1\0\x46\0{'descr': '|u1', 'fortran_order': False, 'shape': (4611686018427387904,), }\n",
        b"\x93NUMPY\1\0\x46\0{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n.",
        b"\x93NUMPY\1\0\x46\0{'descr': '|u1', 'fortran_order': False, 'shape': (" + b"(" * 1000 + b"1,), }\n.",
    ],
)
def test_members_of_an_npz_that_are_not_vectors_are_refused(refused, member):
    refused("npz", archive(("a.npy", member)), "damaged")


def test_pickles_in_an_npz_are_not_loaded(refused):
    stream = io.BytesIO()
    np.savez(stream, a=np.array([{"an": "object"}], object))
    refused("npz", stream.getvalue(), "damaged")


# ISO base media files


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py", reason="h5py is not installed")


def test_hdf5_links_and_data_elsewhere_are_refused(h5py, tmp_path):
    with h5py.File(tmp_path / "other", "w") as file:
        file["a"] = np.frombuffer(NNR, np.uint8)
    (tmp_path / "secret").write_bytes(NNR)
    vector = np.frombuffer(NNR, np.uint8)

    def linked(file):
        file["a"] = h5py.ExternalLink("other", "/a")

    def soft(file):
        file["b"] = vector
        file["a"] = h5py.SoftLink("/b")

    def external(file):
        place = [(str(tmp_path / "secret"), 0, len(NNR))]
        file.create_dataset("a", (len(NNR),), "u1", external=place)

    def virtual(file):
        layout = h5py.VirtualLayout((len(NNR),), "u1")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other"), "a", (len(NNR),))
        file.create_virtual_dataset("a", layout)

    for attack in (linked, soft, external, virtual):
        with h5py.File(tmp_path / "x", "w") as file:
            attack(file)
        with pytest.raises(ModelError, match=r"is a link|not stored as it is"):
            read_all("hdf5", tmp_path / "x")
        assert not CONTAINER["hdf5"].sniff(tmp_path / "x")


def test_hdf5_bombs_are_refused(h5py, tmp_path):
    for options in ({}, {"chunks": (1 << 20,), "compression": "gzip"}):
        with h5py.File(tmp_path / "x", "w") as file:
            file.create_dataset("a", (1 << 40,), "u1", **options)  # filled, when it is read, with nothing
        with pytest.raises(ModelError, match="not stored as it is"):
            read_all("hdf5", tmp_path / "x")


@pytest.mark.parametrize("dtype", ["i1", "f4", "S1", "u1,u1", "O"])
def test_hdf5_datasets_of_other_types_are_refused(h5py, tmp_path, dtype):
    with h5py.File(tmp_path / "x", "w") as file:
        file.create_dataset("a", (4,), h5py.string_dtype() if dtype == "O" else dtype)
    with pytest.raises(ModelError, match="not a vector of bytes"):
        read_all("hdf5", tmp_path / "x")


def test_a_cut_hdf5_file_is_refused(h5py, tmp_path):
    whole = written("hdf5", tmp_path).read_bytes()
    for size in (*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1):
        (tmp_path / "x").write_bytes(whole[:size])
        with pytest.raises(ModelError):
            read_all("hdf5", tmp_path / "x")


@pytest.mark.parametrize("seed", range(3))
def test_mutated_hdf5_files_raise_typed_errors_or_are_read(h5py, tmp_path, seed):
    rng = random.Random(seed)
    whole = written("hdf5", tmp_path).read_bytes()
    outcomes = set()
    for _ in range(150):
        (tmp_path / "x").write_bytes(mutated(whole, rng))
        CONTAINER["hdf5"].sniff(tmp_path / "x")
        try:
            join(read_all("hdf5", tmp_path / "x"))
            outcomes.add("read")
        except NncError as error:
            outcomes.add(type(error).__name__)
    assert outcomes - {"read"}


# folders


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need privileges elsewhere")
def test_links_in_a_folder_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(NNR)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "0-a.nnr").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="is a link"):
        read_all("folder", tmp_path / "x")


def test_file_names_that_mean_the_same_or_nothing_are_refused(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "0-a.nnr").write_bytes(NNR)
    (tmp_path / "x" / "1-a.nnr").write_bytes(NNR)
    with pytest.raises(ModelError, match="twice"):
        read_all("folder", tmp_path / "x")
    (tmp_path / "x" / "1-a.nnr").rename(tmp_path / "x" / "1-%ff.nnr")
    with pytest.raises(ModelError, match="not the name"):
        read_all("folder", tmp_path / "x")


def test_a_folder_of_other_things_is_not_one_of_ours(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(ModelError, match="carries no NNR"):
        read_all("folder", tmp_path / "x")
    (tmp_path / "x" / "a.nnr").mkdir()
    assert not CONTAINER["folder"].sniff(tmp_path / "x")


# all of them


@pytest.mark.parametrize("name", FILES)
def test_a_cut_container_is_refused(tmp_path, name):
    whole = written(name, tmp_path).read_bytes()
    for size in sorted({*range(0, len(whole), max(1, len(whole) // 150)), *range(len(whole) - 30, len(whole))}):
        (tmp_path / "x").write_bytes(whole[:size])
        try:
            found = read_all(name, tmp_path / "x")
        except NncError:
            continue
        assert name == "concatenation"  # whose end nothing tells
        assert b"".join(found.values()) == whole[:size]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("seed", range(6))
def test_mutated_containers_raise_typed_errors_or_are_read(tmp_path, name, seed):
    rng = random.Random(seed)
    whole = written(name, tmp_path, per_tensor=seed % 2 == 0).read_bytes()
    target = tmp_path / "x"
    outcomes = set()
    for _ in range(50):
        target.write_bytes(mutated(whole, rng))
        for each in CONTAINERS:
            each.sniff(target)
        try:
            join(read_all(name, target))
            outcomes.add("read")
        except NncError as error:
            outcomes.add(type(error).__name__)
    assert outcomes - {"read"}
