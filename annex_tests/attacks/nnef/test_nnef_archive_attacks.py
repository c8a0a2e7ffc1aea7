"""Hostile NNEF archives: refused with an error that says why, and nothing is read or left behind."""

from __future__ import annotations

import gzip
import os
import struct
import tarfile
import zipfile

import numpy as np
import pytest

from annex_tests.support.hostile_nnef import GOOD, NNEF, WEIGHT, tar_of, text_of, zip_of
from nnc_core.errors import LimitError, ModelError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology


def test_an_honest_archive_is_read(read):
    np.testing.assert_array_equal(read(tar_of(*GOOD))["w"], np.arange(20, dtype=np.float32).reshape(4, 5))


OUTSIDE = [
    "..",
    "../w",
    "a/../../w",
    "//etc/w",
    "/../w",
    "a//b",
    "a/",
    ".",
    "./w",
    "C:/w",
    "c:w",
    "a\\..\\w",
    "\\w",
    "",
]
LONG = ("a" * 300, "a/" * 1500 + "b", "/".join(["a" * 250] * 20))


@pytest.mark.parametrize("label", [*OUTSIDE, *LONG])
def test_labels_that_lead_out_of_the_archive_are_refused_in_reading(adapter, tmp_path, label):
    folder = tmp_path / "inner" / "m"
    folder.mkdir(parents=True)
    (folder / "graph.nnef").write_bytes(text_of(label))
    for place in (folder, folder.parent, tmp_path):
        (place / "w.dat").write_bytes(WEIGHT)
    with pytest.raises(ModelError, match="label leads out"):
        adapter.read(folder)


@pytest.mark.parametrize("label", [*OUTSIDE, *LONG])
@pytest.mark.parametrize("container", ["out", "out.tar"])
def test_labels_that_lead_out_of_the_archive_are_refused_in_writing(adapter, tmp_path, label, container):
    (tmp_path / "inner").mkdir()
    with pytest.raises(ModelError, match="label leads out"):
        adapter.write({label: np.ones((4, 5))}, Topology(NNEF, text_of(label)), tmp_path / "inner" / container)
    assert not list(tmp_path.rglob("*.dat"))
    assert not list((tmp_path / "inner").iterdir())


@pytest.mark.parametrize(
    "labels", [("w", "/w"), ("w", "w.dat/v"), ("a/b", "a"), ("graph.nnef/w",), ("x.dat/y", "x", "z")]
)
def test_labels_whose_files_would_overlap_are_refused_or_written_side_by_side(adapter, tmp_path, labels):
    tensors = {label: np.ones((4, 5), np.float32) for label in labels}
    try:
        adapter.write(tensors, Topology(NNEF, text_of(*labels)), tmp_path / "out")
    except ModelError:
        assert not (tmp_path / "out").exists()
    else:
        assert labels == ("a/b", "a")
        assert sorted(adapter.read(tmp_path / "out").tensors) == sorted(labels)


@pytest.mark.parametrize("name", ["../w.dat", "/etc/w.dat", "a/../../b", "C:\\w.dat", "c:w.dat", "a//b", ".."])
def test_members_outside_the_archive_are_refused(read, tmp_path, name):
    with pytest.raises(ModelError, match="inside its folder"):
        read(tar_of(*GOOD, (name, b"x")))
    with pytest.raises(ModelError, match="inside its folder"):
        read(zip_of(*GOOD, (name, b"x")))


def test_folders_without_end_are_refused(adapter, tmp_path):
    (tmp_path / "graph.nnef").write_bytes(text_of())
    tmp_path.joinpath(*["a"] * 100).mkdir(parents=True)
    with pytest.raises(ModelError, match="too deep a folder"):
        adapter.read(tmp_path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar_archives_are_refused(read, kind):
    with pytest.raises(ModelError, match="link or a device"):
        read(tar_of(*GOOD, w2=(kind, "/etc/passwd")))


def test_links_in_zip_archives_are_refused(read):
    link = zipfile.ZipInfo("w2.dat")
    link.external_attr = 0o120777 << 16
    with pytest.raises(ModelError, match="link or a device"):
        read(zip_of(*GOOD, (link, b"/etc/passwd")))


@pytest.mark.skipif(os.name != "posix", reason="links need privileges elsewhere")
@pytest.mark.parametrize("kind", ["file", "folder", "pipe", "dangling"])
def test_links_and_pipes_in_folders_are_refused(adapter, tmp_path, kind):
    folder = tmp_path / "m"
    folder.mkdir()
    for name, data in GOOD:
        (folder / name).write_bytes(data)
    if kind == "pipe":
        os.mkfifo(folder / "other")
    else:
        (folder / "other").symlink_to({"file": "/etc/passwd", "folder": "/etc", "dangling": "nowhere"}[kind])
    with pytest.raises(ModelError, match=r"other: is a link (out of the folder|to nothing or a device)"):
        adapter.read(folder)


def test_a_member_that_occurs_twice_is_refused(read):
    with pytest.raises(ModelError, match=r"two files are called 'w\.dat'"):
        read(tar_of(*GOOD, ("w.dat", WEIGHT)))
    with pytest.raises(ModelError, match=r"two files are called 'w\.dat'"):
        read(tar_of(*GOOD, ("./w.dat", WEIGHT)))


def test_a_compressed_archive_that_inflates_without_end_is_stopped_at_the_limit(read):
    bomb = gzip.compress(tar_of(*GOOD, ("zeros", bytes(20_000_000))), mtime=0)
    assert len(bomb) < 40_000
    with pytest.raises(LimitError, match="decoded_bytes"):
        read(bomb, Limits(decoded_bytes=1 << 20))


def test_a_zip_archive_that_inflates_without_end_is_stopped_at_the_limit(read):
    bomb = zip_of(*GOOD, ("zeros", bytes(20_000_000)), method=zipfile.ZIP_DEFLATED)
    with pytest.raises(LimitError, match="decoded_bytes"):
        read(bomb, Limits(decoded_bytes=1 << 20))


def test_files_that_would_not_fit_the_topology_are_refused(read):
    with pytest.raises(LimitError, match="topology_bytes"):
        read(tar_of(*GOOD, ("other", bytes(5000))), Limits(topology_bytes=4000))
    with pytest.raises(LimitError, match=r"graph\.nnef.*topology_bytes"):
        read(tar_of(*GOOD), Limits(topology_bytes=20))


def test_an_archive_of_too_many_files_is_refused(read):
    with pytest.raises(LimitError, match="units"):
        read(tar_of(*GOOD, *((f"f{i}", b"") for i in range(30))), Limits(units=20))


def patched(data: bytes, place: int, content: bytes) -> bytes:
    """A tar archive with another field in its first header, and a checksum that fits."""
    block = bytearray(data[:512])
    block[place : place + len(content)] = content
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + data[512:]


@pytest.mark.parametrize(
    ("place", "content", "message"),
    [
        (124, b"77777777777\0", "are left"),
        (124, b"\x80" + bytes(3) + b"\xff" * 8, "are left"),
        (124, b"\xff" * 12, "are left"),
        (124, b"12 34567890\0", "octal"),
        (124, b"-0000000001\0", "octal"),
        (126, "٣".encode(), "octal"),
        (0, b"\xff", "UTF-8"),
        (0, b"\0", "inside its folder"),
        (156, b"S", "link or a device"),
        (156, b"Z", "link or a device"),
        (156, b"L", r"two files|no graph\.nnef"),
    ],
)
def test_tar_headers_that_lie_are_refused(read, place, content, message):
    with pytest.raises(ModelError, match=message):
        read(patched(tar_of(*GOOD), place, content))


def extended(record: bytes, kind: bytes = b"x") -> bytes:
    header = tarfile.TarInfo("extension")
    header.type, header.size = kind, len(record)
    return header.tobuf() + record + bytes(-len(record) % 512) + tar_of(*GOOD)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"9999 path=x\n", "damaged"),
        (b"0 path=x\n", "damaged"),
        (b"-1 path=x\n", "number"),
        (b"10 path=xx", "damaged"),
        (b"path", "number"),
        (b"9 size=z\n", "number"),
        (b"26 size=99999999999999999\n", "are left"),
        (b"14 path=../x\xff\n", "UTF-8"),
        (b"13 path=../x\n", "inside"),
        (b"22 GNU.sparse.major=1\n", "sparse"),
        (b"\xff\xff 1=2\n", "number"),
    ],
)
def test_extended_tar_headers_that_lie_are_refused(read, record, message):
    with pytest.raises(ModelError, match=message):
        read(extended(record))


def test_an_extended_header_without_measure_is_refused(read):
    with pytest.raises(ModelError, match="extended header"):
        read(extended(b"x" * (2 << 20), b"L"))


def test_a_global_header_changes_nothing(read):
    assert "w" in read(extended(b"14 path=../x\xff\n", b"g"))


@pytest.mark.parametrize("size", [1, 511, 512, 700, 1024, 1030, 1600])
def test_a_tar_archive_cut_short_is_refused(read, size):
    with pytest.raises(ModelError):
        read(tar_of(*GOOD)[:size])


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_gzip_file_cut_short_is_refused(read, cut):
    data = gzip.compress(tar_of(*GOOD), mtime=0)
    with pytest.raises(ModelError):
        read(data[:-cut])


def test_an_encrypted_zip_archive_is_refused(read):
    data = bytearray(zip_of(*GOOD))
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            data[at + place] |= 1
    with pytest.raises(ModelError, match="damaged zip"):
        read(bytes(data))


@pytest.mark.parametrize(
    ("offset", "value", "error", "message"),
    [
        (0, 0x00010000, ModelError, "4E EF"),
        (4, 79, ModelError, "79 bytes"),
        (4, 0xFFFFFFFF, ModelError, "4294967295 bytes"),
        (8, 1, ModelError, "rank 1"),
        (8, 9, ModelError, "rank 9"),
        (8, 0xFFFFFFFF, ModelError, "rank"),
        (8, 3, ModelError, "80 bytes"),
        (12, 5, ModelError, "80 bytes"),
        (12, 0xFFFFFFFF, ModelError, "more than an NNEF tensor"),
        (20, 1, ModelError, "rank 2"),
        (44, 16, ModelError, "80 bytes"),
        (48, 1, None, ""),
    ],
)
def test_tensor_headers_that_lie_are_refused(read, offset, value, error, message):
    data = WEIGHT[:offset] + struct.pack("<I", value) + WEIGHT[offset + 4 :]
    archive = tar_of(GOOD[0], ("w.dat", data))
    if error is None:
        assert read(archive)["w"].dtype == np.uint32
        return
    with pytest.raises(error, match=message) as caught:
        read(archive)
    assert "'w'" in str(caught.value)


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        *((0, version) for version in (0x0002EF4E, 0x0101EF4E)),
        *((44, bits) for bits in (0, 0xFFFFFFFF)),
        *((48, item_type) for item_type in (5, 6, 0x10, 0x00010000, 0x54522040)),
    ],
)
def test_items_of_other_kinds_than_those_of_the_standard_are_not_tensors_of_nnr(read, offset, value):
    data = WEIGHT[:offset] + struct.pack("<I", value) + WEIGHT[offset + 4 :]
    assert not read(tar_of(GOOD[0], ("w.dat", data)))


@pytest.mark.parametrize("size", [0, 1, 127, 128, 207])
def test_a_tensor_file_cut_short_is_refused(read, size):
    with pytest.raises(ModelError, match="'w'"):
        read(tar_of(GOOD[0], ("w.dat", WEIGHT[:size])))


def test_a_tensor_file_that_is_too_long_is_refused(read):
    with pytest.raises(ModelError, match="81"):
        read(tar_of(GOOD[0], ("w.dat", WEIGHT + b"\0")))


def test_a_missing_tensor_file_is_named(read):
    with pytest.raises(ModelError, match=r"'w'.*no file w\.dat"):
        read(tar_of(GOOD[0]))
