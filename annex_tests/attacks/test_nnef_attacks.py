"""Hostile NNEF archives and bitstreams: refused with an error that says why, and nothing is read or left behind."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import struct
import tarfile
import time
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nnc_core
from nnc_adapters.base import Options
from nnc_adapters.nnef import NnefAdapter, dat, private, syntax, tar
from nnc_adapters.nnef.dat import Header, ItemType
from nnc_adapters.nnef.graph import Graph
from nnc_adapters.shared import packing
from nnc_core.errors import LimitError, ModelError, NncError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

NNEF = TopologyStorageFormat.NNR_TPL_NNEF
QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
SLOW = settings(QUICK, max_examples=20)  # a process for each
WEIGHT = Header((4, 5)).pack() + np.arange(20, dtype="<f4").tobytes()
EXTENSIONS = "version 1.0;\nextension KHR_enable_fragment_definitions;\nextension KHR_enable_operator_expressions;\n"


def text_of(*labels: str, body: str = "y = copy(x);", start: str = "version 1.0;\n") -> bytes:
    variables = [f"v{i} = variable<scalar>(shape = [4, 5], label = '{label}');" for i, label in enumerate(labels)]
    lines = ["graph g(x) -> (y) {", "x = external<scalar>(shape = [1, 5]);", *variables, body, "}"]
    return (start + "\n".join(lines)).encode()


def tar_of(*members, **kinds) -> bytes:
    """A tar archive of members (name, data); ``kinds`` are the types and links of further ones."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, (kind, link) in kinds.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            archive.addfile(info)
    return stream.getvalue()


def zip_of(*members, method=zipfile.ZIP_STORED) -> bytes:
    """A zip archive of members (name, data), where a name may be all that a member says of itself."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members:
            # a mere name would come with the time of day
            archive.writestr(zipfile.ZipInfo(name) if isinstance(name, str) else name, data, method)
    return stream.getvalue()


GOOD = (("graph.nnef", text_of("w")), ("w.dat", WEIGHT))


@pytest.fixture
def adapter():
    return NnefAdapter()


@pytest.fixture
def read(adapter, tmp_path):
    """Reads an archive from its bytes, with all of its tensors."""

    def call(data, limits=None):
        path = tmp_path / "m.nnef.tar"
        path.write_bytes(data)
        model = adapter.read(path, Options(limits or Limits()))
        return {name: model.tensors[name] for name in model.tensors}

    return call


def test_an_honest_archive_is_read(read):
    np.testing.assert_array_equal(read(tar_of(*GOOD))["w"], np.arange(20, dtype=np.float32).reshape(4, 5))


# --- labels ----------------------------------------------------------------------------------------------------------

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


# --- containers ------------------------------------------------------------------------------------------------------


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


# --- tensor files ----------------------------------------------------------------------------------------------------


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


# --- graphs ----------------------------------------------------------------------------------------------------------


CRASHING = [
    f"y = reshape(x, shape = {'[' * 100_000}{']' * 100_000});",
    f"y = {'(' * 100_000}x{')' * 100_000};",
    f"y = {'-' * 100_000}x;",
    f"y = x{'+x' * 100_000};",
    f"y = {'x if true else ' * 100_000}x;",
    "zconv(x, v0); y = copy(x);",
    "- y = copy(x);",
]


@pytest.mark.parametrize("body", CRASHING)
def test_graphs_that_crash_other_parsers_are_carried(read, body):
    text = text_of("w", body=body, start=EXTENSIONS)
    model = read(tar_of(("graph.nnef", text), GOOD[1]))
    assert list(model) == ["w"]


@pytest.mark.parametrize(
    "body",
    [
        "variable(" * 20_000 + ")" * 20_000 + ";",
        "y = [" + "variable(x, [" * 5_000 + "])" * 5_000 + "];",
        "fragment" * 10_000 + " fragment" * 10_000 + ";",
        "f" * 1_000_000 + ";",
        "# " * 500_000 + "\n;",
        "y = f(" + "[a, b], " * 50_000 + ");",
    ],
)
def test_a_graph_cannot_keep_the_reader_busy(body):
    start = time.process_time()
    data = text_of("w", body=body)
    Graph.read(data, syntax.variables(data)).reasons(frozenset())
    assert time.process_time() - start < 10


@pytest.mark.parametrize("data", [b"\xff", b"version 1.0;\0", b"", b"graph g(x)->(y){", b"graph g)->(y){}", b"'"])
def test_what_is_not_a_graph_is_refused(read, data):
    with pytest.raises(ModelError, match=r"graph\.|NNEF graph"):
        read(tar_of(("graph.nnef", data), *(GOOD[1:])))


# --- the private unit ------------------------------------------------------------------------------------------------


def private_of(tensors=None, **files) -> bytes:
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    found = {} if tensors is None else {"tensors.json": text}
    return packing.pack({**found, **{f"files/{name}": data for name, data in files.items()}})


GOOD_FIELDS = {"item_type": 2, "bits_per_item": 8}


@pytest.mark.parametrize(
    "data",
    [
        b"no archive",
        private_of(b"{"),
        private_of(b"[]"),
        private_of(b"\xff"),
        private_of(b"[" * 100_000),
        private_of({"unknown": GOOD_FIELDS}),
        private_of({"w": 5}),
        private_of({"w": {}}),
        private_of({"w": {**GOOD_FIELDS, "item_type": 9}}),
        private_of({"w": {**GOOD_FIELDS, "item_type": "2"}}),
        private_of({"w": {**GOOD_FIELDS, "bits_per_item": 8.0}}),
        private_of({"w": {**GOOD_FIELDS, "bits_per_item": True}}),
        private_of({"w": {**GOOD_FIELDS, "reserved": 3}}),
        private_of({"w": {**GOOD_FIELDS, "reserved": [1] * 20}}),
        private_of({"w": {**GOOD_FIELDS, "reserved": [-1]}}),
        private_of({"w": {**GOOD_FIELDS, "reserved": [1 << 32]}}),
        packing.pack({"strange": b""}),
        private_of(**{"../escape": b"x"}),
        private_of(**{"/escape": b"x"}),
        private_of(**{"..\\b": b"x"}),
        private_of(**{"": b"x"}),
        private_of(**{"graph.nnef": b"x"}),
        private_of(**{"w.dat/x": b"x"}),
    ],
)
@pytest.mark.parametrize("container", ["out", "out.tgz"])
def test_a_damaged_private_unit_is_refused(adapter, tmp_path, data, container):
    tensors = {"w": np.ones((4, 5), np.int32)}
    with pytest.raises(ModelError):
        adapter.write(tensors, Topology(NNEF, text_of("w"), private=data), tmp_path / container)
    assert not list(tmp_path.iterdir())


def test_a_width_that_does_not_exist_is_refused(adapter, tmp_path):
    fields = private_of({"w": {**GOOD_FIELDS, "bits_per_item": 9}})
    with pytest.raises(UnsupportedError, match="9 bits"):
        adapter.write({"w": np.ones((4, 5))}, Topology(NNEF, text_of("w"), private=fields), tmp_path / "out")


def test_a_type_of_another_kind_than_the_values_is_refused(adapter, tmp_path):
    data = private.pack(private.Private({"w": Header((4, 5), ItemType.QINT, 8)}))
    with pytest.raises(ModelError, match=r"'w'.*QINT"):
        adapter.write({"w": np.ones((4, 5))}, Topology(NNEF, text_of("w"), private=data), tmp_path / "out")


def test_private_data_beyond_the_limit_are_refused(tmp_path):
    topology = Topology(NNEF, text_of(), private=private_of(big=bytes(5000)))
    with pytest.raises(LimitError, match="topology_bytes"):
        NnefAdapter().write({}, topology, tmp_path / "out", Options(Limits(topology_bytes=1000)))


# --- noise -----------------------------------------------------------------------------------------------------------


@QUICK
@given(st.binary(max_size=300), st.integers(0, 300))
def test_any_bytes_as_a_tensor_header_give_a_header_or_a_typed_error(data, size):
    try:
        header = Header.parse(data, size)
    except NncError:
        return
    assert size == 128 + header.data_length


@QUICK
@given(st.randoms(use_true_random=True))
def test_a_disturbed_tensor_file_gives_an_array_or_a_typed_error(source):
    data = bytearray(WEIGHT)
    for _ in range(source.choice((1, 2, 4))):
        data[source.randrange(128)] = source.choice((0, 1, 8, 64, 255, source.randrange(256)))
    try:
        header = Header.parse(bytes(data), len(data))
    except NncError:
        return
    array = dat.load(header, memoryview(data)[128:])
    assert header.pack() + bytes(dat.dump(header, array)) == data


def disturbed(source: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 8))):
        at = source.randrange(len(changed))
        match source.randrange(4):
            case 0:
                changed[at] ^= 1 << source.randrange(8)
            case 1:
                changed[at : at + source.randrange(600)] = b""
            case 2:
                changed[at:at] = changed[source.randrange(len(changed)) :][: source.randrange(600)]
            case _:
                changed[at : at + 12] = source.choice((b"77777777777\0", b"\xff" * 12, b"\x80" + b"\0" * 11, b"x" * 12))
        changed = changed or bytearray(1)
    return bytes(changed)


def with_checksums(data: bytes) -> bytes:
    """Make the checksum right in whatever stands where headers may stand, so that the rest is looked at."""
    blocks = [bytearray(data[at : at + 512]) for at in range(0, len(data), 512)]
    for block in blocks:
        if len(block) == 512 and block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
    return b"".join(blocks)


@QUICK
@given(st.randoms(use_true_random=True), st.booleans())
def test_a_disturbed_tar_archive_gives_members_or_a_typed_error(source, repaired):
    data = disturbed(source, tar_of(*GOOD, ("a" * 120, b"long name")))
    data = with_checksums(data) if repaired else data
    try:
        found = list(tar.members(memoryview(data)))
    except tar.TarError:
        return
    assert all(0 <= member.offset <= member.offset + member.size <= len(data) for member in found)


@SLOW
@given(st.randoms(use_true_random=True))
@pytest.mark.parametrize("kind", ["tar", "tgz", "zip"])
def test_a_disturbed_archive_is_read_or_refused_with_a_typed_error(read, kind, source):
    data = tar_of(*GOOD)
    if kind == "tgz":
        data = gzip.compress(data, mtime=0)
    elif kind == "zip":
        data = zip_of(*GOOD, method=zipfile.ZIP_DEFLATED)
    try:
        read(disturbed(source, data), Limits(decoded_bytes=1 << 22, topology_bytes=1 << 20))
    except NncError:
        return


@SLOW
@given(st.randoms(use_true_random=True))
def test_a_disturbed_graph_is_read_or_refused_with_a_typed_error(source):
    data = disturbed(source, text_of("w", "v", body="y = linear(x, v0, v1); # done"))
    try:
        Graph.read(data, syntax.variables(data)).reasons(frozenset())
    except NncError:
        return


@QUICK
@given(st.randoms(use_true_random=True))
def test_a_disturbed_private_unit_is_understood_or_refused_with_a_typed_error(source):
    data = disturbed(source, private_of({"w": GOOD_FIELDS}, readme=b"text"))
    try:
        private.unpack(data, {"w": (4, 5)}, Limits())
    except NncError:
        return


@SLOW
@given(st.randoms(use_true_random=True))
def test_a_disturbed_bitstream_in_an_archive_is_read_or_refused_with_a_typed_error(read, source):
    data = nnc_core.encode({"w": np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5)}, threads=1)
    try:
        read(tar_of(GOOD[0], ("w.nnr", disturbed(source, data))))
    except NncError:
        return
