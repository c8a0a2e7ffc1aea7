"""Every corpus bitstream that is in scope decodes to exactly the expected tensors; the list of the others stays honest.

What is left out is in ``not_covered.json``: for each feature that the codec refuses, the bitstreams (``case/step``)
that use it. Values that follow from decoded tensors (recomposed, scaled, unfolded) are no part of the bitstream.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import ModelStep, for_each, model_names, model_steps, needs_corpus
from numpy.typing import NDArray

import nnc_core
from nnc_core import NnrFile, UnsupportedError
from nnc_core.bitstream import UnitRecord
from nnc_core.coder.decode import decode_levels
from nnc_core.tables.code_points import PayloadType

NOT_COVERED: dict[str, list[str]] = json.loads((Path(__file__).parent / "not_covered.json").read_text())
FEATURE = {name: feature for feature, names in NOT_COVERED.items() for name in names}
STEPS = [f"{case}/{number}" for case in model_names() for number, _ in enumerate(model_steps(case))]
COVERED = [name for name in STEPS if name not in FEATURE]


def load(name: str) -> ModelStep:
    case, number = name.split("/")
    return next(islice(model_steps(case), int(number), None))


def opened(step: ModelStep) -> NnrFile:
    return NnrFile(step.bitstream, input_parameters=step.input_parameters)


def told(step: ModelStep) -> dict[str, dict[str, Any]]:
    """What config.json says of each tensor that has a unit in this step, in coding order."""
    return {t["name"]: t for t in step.config["tensors"] if t["name"] not in step.config["skipped_tensors"]}


def assert_is(array: NDArray[Any], step: ModelStep, name: str) -> None:
    """The array is the expected one, bit for bit."""
    assert hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest() == digest(step, name)
    if f"{name}.rec" in step.expected_names:
        expected = step.expected[f"{name}.rec"]
        assert (array.dtype, array.shape, array.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def digest(step: ModelStep, name: str) -> str:
    return str(told(step)[name]["rec_sha256"])


@for_each("name", COVERED)
def test_every_covered_bitstream_decodes_to_exactly_the_expected_tensors(name: str) -> None:
    step = load(name)
    decoded = nnc_core.decode(step.bitstream, input_parameters=step.input_parameters)
    assert list(decoded) == list(told(step))
    for tensor, array in decoded.items():
        assert list(array.shape) == told(step)[tensor]["shape"]
        assert_is(array, step, tensor)


def arithmetic_coded(file: NnrFile) -> Iterator[tuple[str, UnitRecord]]:
    for name, unit in file.bitstream.data_units.items():
        if unit.data_header.nnr_compressed_data_unit_payload_type != PayloadType.NNR_PT_RAW_FLOAT:
            yield name, unit


@for_each("name", COVERED)
def test_the_integers_and_steps_of_every_covered_bitstream_are_the_expected_ones(name: str) -> None:
    step = load(name)
    file = opened(step)
    for tensor, unit in arithmetic_coded(file):
        coded = decode_levels(file.bitstream, unit)
        np.testing.assert_array_equal(coded.levels, step.expected[f"{tensor}.int"], strict=True)
        integer = told(step)[tensor]["method"] == "integer"
        assert coded.step == (None if integer else told(step)[tensor]["step_size"])


@for_each("name", COVERED)
def test_what_is_said_of_the_tensors_of_every_covered_bitstream_is_true(name: str) -> None:
    step = load(name)
    for info in opened(step).tensors.values():
        expected = told(step)[info.name]
        quantized = expected["method"] in ("uniform", "codebook")
        assert info.shape == tuple(expected["shape"])
        assert info.qp == (expected["qp"] if quantized else None)
        assert (info.dq_flag, info.scan_order) == (bool(expected.get("dq_flag")), expected.get("scan_order", 0))
        assert info.dtype == ("int32" if expected["method"] == "integer" else "float32")


@for_each("name", list(FEATURE) if STEPS else [])
def test_every_other_bitstream_is_refused_by_the_name_of_the_feature(name: str) -> None:
    step = load(name)
    with pytest.raises(UnsupportedError) as caught:
        nnc_core.decode(step.bitstream, input_parameters=step.input_parameters)
    assert caught.value.feature == FEATURE[name]


def refused_feature(file: NnrFile, tensor: str) -> str | None:
    try:
        file[tensor]
    except UnsupportedError as error:
        return error.feature
    return None


@for_each("name", list(FEATURE) if STEPS else [])
def test_the_tensors_beside_an_unsupported_one_decode(name: str) -> None:
    step = load(name)
    file = opened(step)
    refused = {tensor: refused_feature(file, tensor) for tensor in file}
    assert set(refused.values()) - {None} == {FEATURE[name]}
    for tensor, feature in refused.items():
        if feature is None:
            assert_is(file[tensor], step, tensor)


@needs_corpus
def test_the_list_of_what_is_not_covered_has_only_bitstreams_of_the_corpus_once_each() -> None:
    names = [name for listed in NOT_COVERED.values() for name in listed]
    assert sorted(set(names)) == sorted(names)
    assert set(names) <= set(STEPS)
