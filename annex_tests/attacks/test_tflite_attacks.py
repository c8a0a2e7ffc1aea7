"""Hostile TFLite models: refused with an error that says why."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest

from annex_tests.support import handmade_tensorflow
from annex_tests.support.handmade_tensorflow import WEIGHT
from nnc_adapters.tensorflow import TensorflowAdapter, tflite
from nnc_core.errors import ModelError, NncError
from nnc_core.limits import Limits


@pytest.fixture
def read_file(tmp_path):
    def call(data):
        (tmp_path / "m.tflite").write_bytes(data)
        return TensorflowAdapter().read(tmp_path / "m.tflite")

    return call


@pytest.fixture
def make_lite():
    pytest.importorskip("flatbuffers", reason="flatbuffers is not installed")
    return handmade_tensorflow.tflite


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
