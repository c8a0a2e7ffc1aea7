"""Hostile NNEF graphs and bitstreams: refused with an error that says why."""

from __future__ import annotations

import gzip
import json
import random
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnc_core
from annex_tests.support.hostile_nnef import EXTENSIONS, GOOD, NNEF, QUICK, SLOW, WEIGHT, tar_of, text_of, zip_of
from nnc_adapters.base import Options
from nnc_adapters.nnef import NnefAdapter, dat, private, syntax, tar
from nnc_adapters.nnef.dat import Header, ItemType
from nnc_adapters.nnef.graph import Graph
from nnc_adapters.shared import packing
from nnc_core.errors import LimitError, ModelError, NncError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology

CRASHING = [
    f"y = reshape(x, shape = {'[' * 100_000}{']' * 100_000});",
    f"y = {'(' * 100_000}x{')' * 100_000};",
    f"y = {'-' * 100_000}x;",
    f"y = x{'+x' * 100_000};",
    f"y = {'x if true else ' * 100_000}x;",
    "zconv(x, v0); y = copy(x);",
    "- y = copy(x);",
]


@pytest.mark.parametrize("blank", [b"\n", b"#\n", b"# 'x\n", b" \t"])
def test_what_has_no_meaning_takes_no_memory(blank):
    text = text_of("w")
    data = 50_001 * blank + text + 50_001 * blank
    tracemalloc.start()
    try:
        assert syntax.variables(data) == syntax.variables(text)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(data) + 200_000
    finally:
        tracemalloc.stop()


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
