"""Small files of TensorFlow and Keras, made without them: honest ones, and such as they would never write."""

from __future__ import annotations

import io
import itertools
import struct
import zipfile

import google_crc32c
import numpy as np

WEIGHT = np.arange(64, dtype=np.float32).reshape(8, 8)
MAGIC = 0xDB4775248B80FB57
HEADER = b"\x08\x01"  # one data file


# Checkpoints ----------------------------------------------------------------------------------------------------------


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def masked(data):
    crc = google_crc32c.value(bytes(data))
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def message(*fields):
    """A message of numbers, 4 bytes in an array of one number, or bytes."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        elif isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        else:
            out += varint(number << 3 | 5) + struct.pack("<I", *value)
    return out


def block(pairs, *, restarts=(0,), kind=0):
    return sealed(contents(pairs, restarts=restarts), kind)


def contents(pairs, *, restarts=(0,)):
    """What a block has before its compression type and checksum."""
    data = b"".join(varint(0) + varint(len(k)) + varint(len(v)) + k + v for k, v in pairs)
    return data + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def sealed(data, kind=0):
    return data + bytes([kind]) + masked(data + bytes([kind]))


def snappied(data):
    """Bytes as snappy has them: literals, and copies of what was there four or more bytes before."""
    out, at = varint(len(data)), 0
    while at < len(data):
        before = data.find(data[at : at + 4], max(0, at - 2000), at) if at + 4 <= len(data) else -1
        if 0 <= before <= at - 4:
            out += bytes([0x01 | (at - before) >> 8 << 5, (at - before) & 0xFF])
            at += 4
        else:
            out += bytes([0, data[at]])
            at += 1
    return out


def table(*blocks, pointers=None):
    """Blocks, an index of them, and the footer; ``pointers`` are what the index says instead of the truth."""
    ends = list(itertools.accumulate(len(b) for b in blocks))
    places = pointers or [(end - len(b), len(b) - 5) for b, end in zip(blocks, ends, strict=True)]
    return with_index(b"".join(blocks), contents((bytes([97 + n]), handle(*place)) for n, place in enumerate(places)))


def handle(at, size):
    return varint(at) + varint(size)


def with_index(blocks, index):
    """Blocks, the index block that has these contents, and the footer."""
    return blocks + sealed(index) + (handle(0, 0) + handle(len(blocks), len(index))).ljust(40, b"\0") + _MAGIC


_MAGIC = struct.pack("<Q", MAGIC)


def entry(array=WEIGHT, *, offset=0, **changes):
    """What an index says about an array; ``changes`` are other values of the fields."""
    shape = message(*((2, message((1, size))) for size in array.shape))
    crc = struct.unpack("<I", masked(array.tobytes()))
    fields = {"dtype": 1, "shape": shape, "shard": 0, "offset": offset, "size": array.nbytes, "crc": crc, **changes}
    numbers = {"dtype": 1, "shape": 2, "shard": 3, "offset": 4, "size": 5, "crc": 6}
    return message(*((numbers[name], value) for name, value in fields.items() if value is not None))


def index(*pairs, header=HEADER):
    return table(block([(b"", header), *pairs]))


# Graphs ---------------------------------------------------------------------------------------------------------------


def graph(values=WEIGHT, op=b"MatMul"):
    """A GraphDef with a constant that is multiplied, directly and in a function, and one that is computed with."""

    def constant(name):
        shape = message(*((2, message((1, size))) for size in values.shape))
        tensor = message((1, 1), (2, shape), (4, values.tobytes()))
        return node(name, b"Const", attribute=(b"value", message((8, tensor))))

    def node(name, op, *inputs, attribute=None):
        attributes = () if attribute is None else ((5, message((1, attribute[0]), (2, attribute[1]))),)
        return message((1, name), (2, op), *((3, each) for each in inputs), *attributes)

    nodes = [
        constant(b"w"),
        constant(b"angle"),
        node(b"x", b"Placeholder"),
        node(b"read", b"Identity", b"w"),
        node(b"y", op, b"x", b"read:0"),
        node(b"s", b"Sin", b"angle"),
        node(b"call", b"PartitionedCall", b"x", b"w", attribute=(b"f", message((10, message((1, b"inner")))))),
    ]
    signature = message((1, b"inner"), (2, message((1, b"a"))), (2, message((1, b"b"))))
    inner = message((1, signature), (3, node(b"m", b"MatMul", b"a", b"b")))
    return message(*((1, each) for each in nodes), (2, message((1, inner))))


def saved_graph(values=WEIGHT):
    """The same in a SavedModel's file."""
    return message((1, 1), (2, message((2, graph(values)))))


# Keras ----------------------------------------------------------------------------------------------------------------


def keras_weights():
    """An HDF5 file as Keras makes them; needs h5py."""
    import h5py

    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["layers/dense/vars/0"] = WEIGHT
        file["layers/dense/vars/1"] = WEIGHT[0]
        file["layers/dense/vars"].attrs["name"] = "dense"
    return stream.getvalue()


def keras_archive(members, method=zipfile.ZIP_STORED):
    """An archive of these members."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as target:
        for name, data in members.items():
            member = zipfile.ZipInfo(name)  # and not only the name, which would have the time
            member.compress_type = method
            target.writestr(member, data)
    return stream.getvalue()


# TFLite ---------------------------------------------------------------------------------------------------------------


def tflite(inputs=(0, 0), operators=1):
    """A model of one constant, in a few tables; all ``operators`` are the same one. Needs flatbuffers."""
    import flatbuffers

    b = flatbuffers.Builder(0)

    def table(fields):
        b.StartObject(max(fields, default=0) + 1)
        for number, (kind, value) in fields.items():
            {"ref": b.PrependUOffsetTRelativeSlot, "u32": b.PrependUint32Slot}[kind](number, value, 0)
        return b.EndObject()

    def tables(*offsets):
        b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            b.PrependUOffsetTRelative(offset)
        return b.EndVector()

    data, name = b.CreateByteVector(WEIGHT.tobytes()), b.CreateString("w")
    shape, slots = (b.CreateNumpyVector(np.array(numbers, "<i4")) for numbers in ((8, 8), inputs))
    buffers = tables(table({}), table({0: ("ref", data)}))
    tensor = table({0: ("ref", shape), 2: ("u32", 1), 3: ("ref", name)})
    uses = tables(*[table({1: ("ref", slots)})] * operators)
    graph = table({0: ("ref", tables(tensor)), 3: ("ref", uses)})
    model = table({1: ("ref", tables(table({}))), 2: ("ref", tables(graph)), 4: ("ref", buffers)})
    b.Finish(model, b"TFL3")
    return bytes(b.Output())
