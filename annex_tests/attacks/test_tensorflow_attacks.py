"""Hostile checkpoints and SavedModels: refused with an error that says why."""

from __future__ import annotations

import os
import random
import struct
from contextlib import suppress

import numpy as np
import pytest

from annex_tests.support.handmade_tensorflow import (
    HEADER,
    MAGIC,
    WEIGHT,
    block,
    contents,
    entry,
    handle,
    index,
    message,
    sealed,
    table,
    varint,
    with_index,
)
from nnc_adapters.tensorflow import TensorflowAdapter, bundle, object_graph
from nnc_core.errors import LimitError, ModelError, UnsupportedError
from nnc_core.limits import Limits

HONEST = WEIGHT.tobytes()


@pytest.fixture
def adapter():
    return TensorflowAdapter()


@pytest.fixture
def read(adapter, tmp_path):
    """Reads a checkpoint of an index and one data file."""

    def call(data, values=HONEST):
        (tmp_path / "c.index").write_bytes(data)
        (tmp_path / "c.data-00000-of-00001").write_bytes(values)
        return adapter.read(tmp_path / "c.index")

    return call


def test_an_honest_checkpoint_is_read(read):
    np.testing.assert_array_equal(read(index((b"w", entry()))).tensors["w"], WEIGHT)


def test_values_with_another_checksum_are_refused(read):
    with pytest.raises(ModelError, match=r"'w'.*checksum"):
        read(index((b"w", entry())), b"\1" + WEIGHT.tobytes()[1:])


def test_values_without_a_checksum_are_refused(read):
    with pytest.raises(ModelError, match="checksum"):
        read(index((b"w", entry(crc=None))))


@pytest.mark.parametrize("cut", [0, 1, 8, 47, 48, 60])
def test_an_index_that_is_cut_at_its_beginning_is_refused(read, cut):
    with pytest.raises(ModelError):
        read(index((b"w", entry()))[cut + 1 :])


def test_no_part_of_an_index_is_enough(read):
    whole = index((b"w", entry()))
    for end in range(len(whole)):
        with pytest.raises(ModelError):
            read(whole[:end])


def test_every_flipped_bit_of_an_index_is_noticed(read):
    whole = index((b"w", entry()))
    handle = len(whole) - 48 + 2  # where the index block is; before it are two bytes that say nothing, after it zeros
    zeros = whole.index(bytes(8), handle)
    for at in (*range(handle - 2), *range(handle, zeros), *range(len(whole) - 8, len(whole))):
        with pytest.raises((ModelError, UnsupportedError)):
            read(bytes([*whole[:at], whole[at] ^ 1 << at % 8, *whole[at + 1 :]]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (table(block([(b"", HEADER), (b"w", entry())], restarts=(0,) * 3)[:-9] + bytes(9)), "checksum"),
        (table(sealed(b"\0\1\1w")), "too short"),
        (table(sealed(b"")), "too short"),
        (table(sealed(struct.pack("<I", 0xFFFFFFFF))), "too short"),
        (table(sealed(b"\5\1\0w" + struct.pack("<II", 0, 1))), "out of its block"),
        (table(sealed(b"\0\x7f\0w" + struct.pack("<II", 0, 1))), "out of its block"),
        (table(sealed(b"\0\1\x7fw" + struct.pack("<II", 0, 1))), "out of its block"),
        (table(sealed(b"\xff" * 40 + struct.pack("<II", 0, 1))), "64 bits"),
        (table(block([]), pointers=[(0, 1 << 60)]), "outside the table"),
        (table(block([]), pointers=[((1 << 64) - 1, 8)]), "outside the table"),
        (table(block([(b"", HEADER), (b"w", entry())]), pointers=[(0, 30)]), "checksum"),
        (table(block([])), "no header"),
        (table(block([(b"w", entry())])), "no header"),
        (index((b"w", entry()), (b"w", entry())), "not in order"),
        (index((b"x", entry()), (b"w", entry())), "not in order"),
        (index((b"w", entry()), header=b""), "0 data files"),
        (index((b"w", entry()), header=message((1, 1 << 40))), "data files"),
        (index((b"w", b"\xff")), "damaged"),
        (index((b"w", b"\x0b")), "wire type"),
        (index((b"w", message((2, 5)))), "wire type"),
    ],
)
def test_a_table_that_lies_is_refused(read, data, message):
    with pytest.raises(ModelError, match=message):
        read(data)


@pytest.mark.parametrize("pairs", [[(b"", HEADER), (b"w", entry())], []])
def test_a_table_that_visits_a_block_again_is_refused(read, pairs):
    first = block(pairs)
    with pytest.raises(ModelError, match="comes after"):
        read(table(first, pointers=[(0, len(first) - 5)] * 3))


def test_names_that_grow_without_end_are_refused(read):
    grown = b"".join(varint(n) + varint(1) + varint(0) + b"w" for n in range(5000))
    with pytest.raises(LimitError, match="name_length"):
        read(table(sealed(varint(0) * 2 + varint(2) + HEADER + grown + struct.pack("<II", 0, 1))))


def test_an_index_that_points_to_itself_is_refused(read):
    itself = block([(b"a", varint(0) + varint(17))])
    footer = (varint(0) + varint(0) + varint(0) + varint(len(itself) - 5)).ljust(40, b"\0")
    with pytest.raises(ModelError):
        read(itself + footer + struct.pack("<Q", MAGIC))


def test_other_compression_than_snappy_is_not_supported(read):
    with pytest.raises(UnsupportedError, match="compression type 2"):
        read(table(block([(b"", HEADER), (b"w", entry())], kind=2)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80",
        varint(4) + b"\x00a",  # too short
        varint(1) + b"\x04ab",  # too long
        varint(1 << 40) + b"\x00a",
        varint(4) + b"\x01\x01",  # a copy from before the beginning
        varint(8) + b"\x00a\x01\x00",  # a copy from nowhere
        varint(9) + b"\x00a\x1d\x02",
        varint(2) + b"\xf4\xff",  # a length that is not there
        varint(2) + b"\xfc\xff\xff\xff\xffa",
        varint(8) + b"\x00a\x03\x01\x00",
        varint(8) + b"\x00a\xff\xff\xff\xff\xff",
        varint(60) + b"\x00a\xfe\x01\x00" * 20,
    ],
)
def test_damaged_snappy_is_refused(read, data):
    with pytest.raises(ModelError, match="index is damaged"):
        read(table(sealed(data, kind=1)))


def test_snappy_of_any_bytes_does_no_harm(read):
    generator = random.Random(5)
    for _ in range(300):
        data = varint(generator.randrange(60)) + generator.randbytes(generator.randrange(40))
        with suppress(ModelError):
            read(table(sealed(data, kind=1)))


def test_big_endian_is_not_supported(read):
    with pytest.raises(UnsupportedError, match="big endian"):
        read(index((b"w", entry()), header=message((1, 1), (2, 1))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": 1}, "are needed"),
        ({"offset": 1 << 62}, "are needed"),
        ({"offset": (1 << 64) - 256}, "negative"),
        ({"size": 255}, "does not take"),
        ({"size": 257}, "does not take"),
        ({"dtype": 2}, "does not take"),
        ({"dtype": 7, "size": 1 << 50}, "are needed"),
        ({"shape": message((2, message((1, 64))), (2, message((1, (1 << 64) - 1))))}, "negative"),
        ({"shape": message((2, message((1, 1 << 40))), (2, message((1, 1 << 40))))}, "does not take"),
        ({"shape": message((3, 1))}, "unknown rank"),
        ({"shard": 1}, "data file 1"),
        ({"crc": 5}, "wire type"),
    ],
)
def test_an_entry_that_lies_is_refused(read, changes, message):
    with pytest.raises(ModelError, match=message):
        read(index((b"w", entry(**changes))))


def test_an_absent_data_file_is_refused(read):
    with pytest.raises(ModelError, match="no data file"):
        read(index((b"w", entry(shard=1)), header=message((1, 2))))


def test_more_dimensions_than_an_array_can_have_are_refused(read):
    with pytest.raises(LimitError, match="dimensions"):
        read(index((b"w", entry(shape=message(*[(2, message((1, 1)))] * 65), size=4))))


def test_tensors_that_share_bytes_are_refused(read):
    other = np.frombuffer(WEIGHT.tobytes()[4:], np.float32)
    with pytest.raises(ModelError, match=r"shares byte"):
        read(index((b"v", entry(other, offset=4)), (b"w", entry())))


@pytest.mark.parametrize("text", [b"", b"\x05", b"\x05\0\0\0\0abc", b"\x02\0\0\0\0abc", b"\xff" * 20])
def test_an_object_graph_that_is_not_text_is_refused(read, text):
    graph = entry(np.frombuffer(text, np.uint8), dtype=7, shape=b"", size=len(text))
    with pytest.raises(ModelError, match="CHECKPOINTABLE"):
        read(index((b"_CHECKPOINTABLE_OBJECT_GRAPH", graph)), text)


@pytest.mark.parametrize(
    "graph",
    [
        b"\xff",
        message((1, 5)),
        message((1, message((1, b"\xff")))),
        message((1, message((2, message((2, b"\xff")))))),
        message((1, message((2, message((2, 7)))))),
    ],
)
def test_a_damaged_object_graph_is_refused(graph):
    with pytest.raises(ModelError, match="object graph is damaged"):
        object_graph.read(graph)


def test_object_graphs_in_circles_are_read_once():
    circle = message(
        (1, message((1, 0), (2, b"_variables"))), (1, message((1, 9), (2, b"_iterations"))), (3, message((3, 99)))
    )
    assert object_graph.read(message((1, circle))).optimizer == frozenset()


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need privileges elsewhere")
@pytest.mark.parametrize("kind", ["file", "folder", "loop"])
def test_links_that_lead_out_of_a_saved_model_are_refused(adapter, tmp_path, kind):
    folder = tmp_path / "model"
    (folder / "assets").mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "assets" / "link").symlink_to({"file": tmp_path / "secret", "folder": tmp_path, "loop": folder}[kind])
    with pytest.raises(ModelError, match="is a link"):
        adapter.read(folder)


def test_folders_without_end_are_refused(adapter, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    tmp_path.joinpath(*["a"] * 100).mkdir(parents=True)
    with pytest.raises(ModelError, match="too deep a folder"):
        adapter.read(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="there are no named pipes elsewhere")
def test_what_is_not_a_file_is_refused_without_waiting_for_it(adapter, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="not a file"):
        adapter.read(tmp_path)


def test_damaged_tables_are_read_or_refused(damaged, survives):
    generator = random.Random(17)
    pairs = [(b"", HEADER), (b"a", entry()), (b"ab", entry(shard=0)), (b"b", entry(dtype=7, shape=None))]
    whole = contents(pairs)
    for _ in range(3000):
        broken = sealed(damaged(whole, generator))  # a checksum that fits lets the damage through
        survives(lambda data: bundle.read(memoryview(data), Limits()), table(broken))


def test_damaged_footers_and_index_blocks_are_read_or_refused(damaged, survives):
    generator = random.Random(18)
    whole = index((b"w", entry()))
    first = block([(b"", HEADER), (b"w", entry())])
    for _ in range(2000):
        survives(lambda data: bundle.read(memoryview(data), Limits()), damaged(whole, generator))
        pointers = damaged(contents([(b"a", handle(0, len(first) - 5))]), generator)
        survives(lambda data: bundle.read(memoryview(data), Limits()), with_index(first, pointers))


def test_damaged_object_graphs_are_read_or_refused(damaged, survives):
    generator = random.Random(19)
    node = message(
        (1, message((1, 1), (2, b"_variables"))),
        (1, message((1, 2), (2, b"_iterations"))),
        (2, message((2, b"a"), (3, b"k"))),
    )
    whole = message(*[(1, node)] * 3, (1, message((3, message((1, 1), (2, b"m"), (3, 2))))))
    for _ in range(3000):
        survives(object_graph.read, damaged(whole, generator))
