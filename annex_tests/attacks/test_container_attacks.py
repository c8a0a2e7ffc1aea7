"""Hostile containers: refused with an error that says why, whatever they claim."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import warnings
import zipfile

import numpy as np
import pytest

import nnc_core
from nnc_adapters import containers
from nnc_adapters.containers import CONTAINERS
from nnc_core.bitstream.parts import join, split
from nnc_core.errors import LimitError, ModelError, NncError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

CONTAINER = {container.name: container for container in CONTAINERS}
FILES = [name for name in CONTAINER if name not in ("folder", "hdf5")]
TENSORS = {"a": np.arange(20, dtype=np.float32), "b/c": np.zeros((4, 5), np.float32), "d": np.arange(9)}
CODED = nnc_core.encode(TENSORS, topology=Topology(TopologyStorageFormat.NNR_TPL_UNREC, b"graph"))
NNR = split(CODED)["a"]
SIZE = len(NNR)
BIG = 1 << 62


def read_all(name, path, limits=None):
    with CONTAINER[name].open(path, limits) as items:
        return {key: bytes(items[key]) for key in items}


@pytest.fixture
def refused(tmp_path):
    """Asserts that a file is refused with an error that matches, and is not recognized as a container."""

    def check(name, data, match, error=ModelError):
        path = tmp_path / "hostile"
        path.write_bytes(data)
        with pytest.raises(error, match=match):
            read_all(name, path)
        CONTAINER[name].sniff(path)  # whatever it says, it says it without an error

    return check


def written(name, tmp_path, per_tensor=True):
    """An honest container."""
    (tmp_path / "coded.nnr").write_bytes(CODED)
    containers.embed(tmp_path / "coded.nnr", tmp_path / "honest", container=name, per_tensor=per_tensor, force=True)
    return tmp_path / "honest"


# safetensors


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
def test_members_of_an_npz_that_are_no_vectors_are_refused(refused, member):
    refused("npz", archive(("a.npy", member)), "damaged")


def test_pickles_in_an_npz_are_not_loaded(refused):
    stream = io.BytesIO()
    np.savez(stream, a=np.array([{"an": "object"}], object))
    refused("npz", stream.getvalue(), "damaged")


# ISO base media files


def b(kind, *content):
    data = b"".join(content)
    return struct.pack(">I", 8 + len(data)) + kind + data


FTYP = b(b"ftyp", b"isom", bytes(8))
INFE = b(b"infe", b"\2\0\0\0\0\1\0\0nnr1a\0")
IINF = b(b"iinf", bytes(4), b"\0\1", INFE)
PLACE = struct.pack(">HHHHII", 1, 1, 0, 1, 0, len(NNR))
IDAT = b(b"idat", NNR)


def iloc(*entries, version=1, widths=b"\x44\0", count=None):
    number = len(entries) if count is None else count
    return b(b"iloc", bytes([version, 0, 0, 0]), widths, number.to_bytes(4 if version == 2 else 2, "big"), *entries)


def mp4(*boxes):
    return FTYP + b(b"meta", bytes(4), *boxes)


def place(item=1, method=1, reference=0, start=0, size=SIZE):
    return struct.pack(">HHHHII", item, method, reference, 1, start, size)


def test_an_honest_item_is_read(tmp_path):
    (tmp_path / "x").write_bytes(mp4(IINF, iloc(PLACE), IDAT))
    assert read_all("isobmff", tmp_path / "x") == {"a": NNR}


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "empty"),
        (b"\0" * 8, "'ftyp'|ftyp"),
        (b"RIFF" * 10, "box"),
        (FTYP + b"\0\0\0", "not a box"),
        (FTYP + b"\0\0\0\4meta", "of 4 bytes"),
        (FTYP + b"\0\0\0\1meta", "of 1 bytes"),
        (FTYP + b"\0\0\0\1meta" + bytes(8), "of 0 bytes"),
        (FTYP + b"\0\0\0\1meta" + b"\xff" * 8, "where 16 are left"),
        (FTYP + b"\xff\xff\xff\xffmeta", "where 8 are left"),
        (FTYP, "carries no NNR"),
        (mp4(), "carries no NNR"),
        (mp4(IINF), "no place"),
        (mp4(iloc(PLACE)), "carries no NNR"),
        (FTYP + b(b"meta"), "version"),
        (FTYP + b(b"meta", b"\1\0\0\0"), "version"),
        (mp4() + mp4()[len(FTYP) :], "'meta' occurs twice"),
        (mp4(IINF, IINF, iloc(PLACE), IDAT), "occurs twice"),
        (mp4(IINF, iloc(PLACE), iloc(PLACE), IDAT), "occurs twice"),
        (mp4(IINF, iloc(PLACE), IDAT, IDAT), "occurs twice"),
        (mp4(IINF, iloc(PLACE), IDAT, b"\0\0\0\0free"), "of 0 bytes"),
        (mp4(b(b"iinf", bytes(4), b"\0\2", INFE)), "1 entries, expected 2"),
        (mp4(b(b"iinf", b"\1\0\0\0", b"\xff\xff\xff\xff", INFE)), "expected 4294967295"),
        (mp4(b(b"iinf", bytes(4), b"\0\2", INFE, INFE)), "twice"),
        (mp4(b(b"iinf", bytes(4), b"\0\1", INFE[:-1])), "left"),
        (mp4(b(b"iinf", bytes(4), b"\0\1", b(b"infe", b"\2\0\0\0\0\1\0\0nnr1a"))), "no end"),
        (mp4(b(b"iinf", bytes(4), b"\0\1", b(b"infe", b"\2\0\0\0\0\1\0\0nnr1\xff\0"))), "UTF-8"),
        (mp4(b(b"iinf", bytes(4), b"\0\1", b(b"infe", b"\2\0\0\0"))), "too short"),
        (mp4(IINF, iloc(PLACE, PLACE), IDAT), "twice"),
        (mp4(IINF, iloc(PLACE, count=2), IDAT), "too short"),
        (mp4(IINF, iloc(PLACE, count=0), IDAT), "bytes follow"),
        (mp4(IINF, iloc(PLACE, version=3), IDAT), "version 3"),
        (mp4(IINF, iloc(PLACE, widths=b"\x54\0"), IDAT), "numbers of"),
        (mp4(IINF, iloc(PLACE[:6] + b"\xff\xff"), IDAT), "too short"),
        (mp4(IINF, iloc(PLACE[:6] + b"\0\0"), IDAT), "not in the file"),
        (mp4(IINF, iloc(place(size=0)), IDAT), "not in the file"),
        (mp4(IINF, iloc(place(size=len(NNR) + 1)), IDAT), "not in the file"),
        (mp4(IINF, iloc(place(start=0xFFFFFFFF)), IDAT), "not in the file"),
        (mp4(IINF, iloc(place(method=0, start=1000)), IDAT), "not in the file"),
        (mp4(IINF, iloc(place())), "not in the file"),
        (mp4(IINF, iloc(PLACE), IDAT, b(b"pitm")), "too short"),
    ],
)
def test_boxes_that_lie_are_refused(refused, data, match):
    refused("isobmff", data, match)


@pytest.mark.parametrize(
    "data",
    [
        mp4(IINF, iloc(place(method=2)), IDAT),
        mp4(IINF, iloc(place(method=15)), IDAT),
        mp4(IINF, iloc(place(reference=1)), IDAT),
        mp4(b(b"iinf", bytes(4), b"\0\1", b(b"infe", b"\2\0\0\0\0\1\0\1nnr1a\0")), iloc(PLACE), IDAT),
        mp4(IINF, iloc(struct.pack(">HHHH", 1, 1, 0, 0xFFFF), widths=b"\0\0"), IDAT),
    ],
)
def test_items_that_are_elsewhere_are_not_followed(refused, data):
    refused("isobmff", data, "not supported", UnsupportedError)


def test_overlapping_extents_do_not_multiply_the_file(refused):
    large = b(b"idat", bytes(100_000))
    for count in (2, 0xFFFF):
        extents = struct.pack(">II", 0, 90_000) * count
        refused("isobmff", mp4(IINF, iloc(PLACE[:6] + count.to_bytes(2, "big") + extents), large), "not in the file")


def test_boxes_inside_boxes_are_no_recursion(tmp_path, refused):
    nested = b""
    for _ in range(20_000):
        nested = struct.pack(">I", 8 + len(nested)) + b"meta" + nested
    refused("isobmff", FTYP + nested, "version")
    refused("isobmff", mp4(nested), "carries no NNR")


def test_many_small_boxes_are_limited(tmp_path):
    (tmp_path / "x").write_bytes(FTYP + b(b"free") * 200)
    with pytest.raises(LimitError, match="boxes"):
        read_all("isobmff", tmp_path / "x", Limits(units=100))
    (tmp_path / "x").write_bytes(mp4(*[b(b"free")] * 200))
    with pytest.raises(LimitError, match="boxes in 'meta'"):
        read_all("isobmff", tmp_path / "x", Limits(units=100))
    (tmp_path / "x").write_bytes(mp4(b(b"iinf", bytes(4), b"\0\xc8", INFE * 200)))
    with pytest.raises(LimitError, match="iinf"):
        read_all("isobmff", tmp_path / "x", Limits(units=100))
    with pytest.raises(LimitError, match="meta"):
        read_all("isobmff", tmp_path / "x", Limits(topology_bytes=100))


@pytest.mark.parametrize("properties", [b(b"ipma"), b(b"ipma", bytes(4), b"\xff\xff\xff\xff"), b"\0\0\0\1"])
def test_damaged_properties_are_not_extended(tmp_path, properties):
    (tmp_path / "x").write_bytes(mp4(IINF, iloc(PLACE), b(b"iprp", properties), IDAT))
    with pytest.raises(ModelError):
        CONTAINER["isobmff"].write_into(tmp_path / "x", tmp_path / "y", {"a": NNR, "b": NNR})  # type: ignore[attr-defined]
    assert not (tmp_path / "y").exists()


# HDF5


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


def test_a_folder_of_other_things_is_none_of_ours(tmp_path):
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


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files_are_not_extended_with_other_errors(tmp_path, seed):
    rng = random.Random(seed)
    whole = mp4(IINF, iloc(PLACE), b(b"iprp", b(b"ipco"), b(b"ipma", bytes(4), b"\0\0\0\1\0\1\1\1")), IDAT)
    for _ in range(50):
        (tmp_path / "x").write_bytes(mutated(whole, rng))
        (tmp_path / "y").unlink(missing_ok=True)
        try:
            CONTAINER["isobmff"].write_into(tmp_path / "x", tmp_path / "y", {"b": NNR, "c": NNR})  # type: ignore[attr-defined]
            found = read_all("isobmff", tmp_path / "y")
        except NncError:
            assert not (tmp_path / "y").exists()
        else:
            assert found == {"b": NNR, "c": NNR}


def mutated(data, rng):
    """Bytes flipped, set to extremes, removed, doubled, or moved."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, kind = rng.randrange(len(result)), rng.randrange(6)
        if kind < 2:
            result[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            result[at : at + 4] = rng.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\0\0\0\1"))
        elif kind == 3:
            del result[at : at + rng.choice((1, 4, 16))]
        elif kind == 4:
            result[at:at] = result[at : at + rng.choice((1, 8, 40))]
        else:
            result[at] = rng.randrange(256)
        result = result or bytearray(b"\0")
    return bytes(result)
