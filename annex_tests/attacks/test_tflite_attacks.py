"""Hostile TFLite models: refused with an error that says why."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from nnc_adapters.tensorflow import TensorflowAdapter, tflite
from nnc_core.errors import ModelError, NncError
from nnc_core.limits import Limits

WEIGHT = np.arange(64, dtype=np.float32).reshape(8, 8)


@pytest.fixture
def read_file(tmp_path):
    def call(data):
        (tmp_path / "m.tflite").write_bytes(data)
        return TensorflowAdapter().read(tmp_path / "m.tflite")

    return call


@pytest.fixture
def make_lite():
    """A model of one constant, in a few tables; all ``operators`` are the same one."""
    flatbuffers = pytest.importorskip("flatbuffers", reason="flatbuffers is not installed")

    def make(inputs=(0, 0), operators=1):
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

    return make


@pytest.fixture
def lite(make_lite):
    return make_lite()


def test_an_honest_tflite_model_is_read(read_file, lite):
    np.testing.assert_array_equal(read_file(lite).tensors["w"], WEIGHT)


def test_no_part_of_a_tflite_model_is_read_beyond_its_end(read_file, lite):
    for end in range(8, len(lite) - 4, 4):
        with pytest.raises(ModelError):
            read_file(lite[:end])


def test_offsets_of_a_tflite_model_that_lead_anywhere_do_no_harm(read_file, lite):
    refused = 0
    for at in range(0, len(lite) - 4, 4):
        for value in (0, 1, at, len(lite), 0x7FFFFFFF, 0xFFFFFFFF):
            data = lite[:at] + struct.pack("<I", value) + lite[at + 4 :]
            if data[4:8] == b"TFL3":
                refused += refuses(read_file, data)
    assert refused > 100


def test_a_tflite_model_whose_parts_are_shared_without_end_is_refused(read_file, make_lite):
    read_file(make_lite(inputs=(0, 0), operators=100))
    with pytest.raises(ModelError, match="shared too often"):
        read_file(make_lite(inputs=[0] * 10_000, operators=10_000))


def refuses(read, *arguments):
    try:
        for array in read(*arguments).tensors.values():
            array.sum()
    except NncError:
        return True
    return False


def test_damaged_tflite_models_are_read_or_refused(lite, damaged, survives):
    generator = random.Random(20)
    for _ in range(3000):
        survives(lambda data: tflite.variables(memoryview(data), "m", Limits()), damaged(lite, generator))
