"""Every bitstream of the corpus decodes to exactly the expected tensors, levels and state.

A case is one bitstream, or a sequence of them that is decoded in order, each with the history that those before left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnc_core
from conformance.support.corpus import ModelStep, as_matrix, for_each, model_names, model_steps, needs_corpus
from nnc_core import NnrFile, ReplayError, UpdateError
from nnc_core.coder.decoder import decode_levels
from nnc_core.coder.history import Histories
from nnc_core.tables.code_points import PayloadType

CASES = model_names()
BITSTREAMS = 180


def steps(case: str, history: Histories | None = None) -> Iterator[tuple[ModelStep, NnrFile]]:
    """The bitstreams of a case, opened with what those before left."""
    history = history or {}
    for step in model_steps(case):
        file = opened(step, history)
        yield step, file
        history = file.history_after()


def opened(step: ModelStep, history: Histories | None = None) -> NnrFile:
    return NnrFile(step.bitstream, input_parameters=step.input_parameters, history=history)


def told(step: ModelStep) -> dict[str, dict[str, Any]]:
    """What config.json says of each tensor that has a unit in this step."""
    return {t["name"]: t for t in step.config["tensors"] if t["name"] not in step.config["skipped_tensors"]}


def assert_is(array: NDArray[Any], step: ModelStep, name: str) -> None:
    """The array is the expected one, bit for bit."""
    expected = told(step)[name]
    assert list(array.shape) == expected["shape"]
    little_endian = array.astype(array.dtype.newbyteorder("<")).tobytes()
    assert hashlib.sha256(little_endian).hexdigest() == expected["rec_sha256"]
    if f"{name}.rec" in step.expected_names:
        values = step.expected[f"{name}.rec"]
        assert (array.dtype, array.tobytes()) == (values.dtype, values.tobytes())


@needs_corpus
def test_the_corpus_has_as_many_bitstreams_as_are_to_be_decoded() -> None:
    assert sum(1 for case in CASES for _ in model_steps(case)) == BITSTREAMS


@for_each("case", CASES)
def test_every_bitstream_decodes_to_exactly_the_expected_tensors(case: str) -> None:
    for step, file in steps(case):
        decoded = dict(file.decode_all())
        assert decoded.keys() == told(step).keys()
        for name, array in decoded.items():
            assert_is(array, step, name)


@for_each("case", [case for case in CASES if len(list(model_steps(case))) == 1])
def test_a_bitstream_on_its_own_decodes_without_a_history(case: str) -> None:
    (step,) = model_steps(case)
    for name, array in nnc_core.decode(step.bitstream, input_parameters=step.input_parameters).items():
        assert_is(array, step, name)


@for_each("case", CASES)
def test_the_names_stand_in_the_order_of_the_headers(case: str) -> None:
    for step, file in steps(case):
        blocks = {block["topology_elem_order"][0]: block["topology_elem_order"] for block in step.config["blocks"]}
        in_blocks = {name for names in blocks.values() for name in names}
        firsts = [name for name in file if name not in in_blocks or name in blocks]
        if any(len(unit.names) > 1 for unit in file.bitstream.data_units):
            assert list(file) == [name for first in firsts for name in blocks.get(first, [first])]
        assert list(file.tensors) == list(file)


@for_each("case", CASES)
def test_the_integers_and_steps_of_every_bitstream_are_the_expected_ones(case: str) -> None:
    history: Histories = {}
    for step in model_steps(case):
        file = opened(step, history)
        for unit in file.bitstream.data_units:
            if unit.header.nnr_compressed_data_unit_payload_type != PayloadType.NNR_PT_RAW_FLOAT:
                for name, coded in decode_levels(unit, history).items():
                    expected = told(step)[name]
                    np.testing.assert_array_equal(coded.levels, as_matrix(step.expected[f"{name}.int"]), strict=True)
                    base = step.config["encoder"]["mps_quantization_parameter"]
                    assert coded.qp == (None if expected["method"] == "integer" else expected["qp"] - base)
        history = file.history_after()


@for_each("case", CASES)
def test_the_history_after_every_bitstream_is_the_expected_one(case: str) -> None:
    for step, file in steps(case):
        history = file.history_after()
        for key in step.expected_names:
            name, _, kind = key.rpartition(".")
            if kind == "base":
                np.testing.assert_array_equal(history[name].base, as_matrix(step.expected[key]))
            elif kind == "hist":
                np.testing.assert_array_equal(history[name].marks, as_matrix(step.expected[key]))
        state = step.config.get("state_after") or {}
        for name, depth in state.get("put_node_depth", {}).items():
            assert (history[name].depth, history[name].parameter_id) == (depth, state["parameter_id"][name])


@for_each("case", CASES)
def test_what_is_said_of_the_tensors_of_every_bitstream_is_true(case: str) -> None:
    for step, file in steps(case):
        blocks = {name for unit in file.bitstream.data_units if len(unit.names) > 1 for name in unit.names}
        for info in file.tensors.values():
            expected = told(step)[info.name]
            quantized = expected["method"] in ("uniform", "codebook")
            assert info.shape == tuple(expected["shape"])
            if info.name not in blocks or info.qp is not None:
                assert info.qp == (expected["qp"] if quantized else None)
            assert info.dq_flag == bool(expected.get("dq_flag"))
            assert info.scan_order == (expected.get("scan_order", 0) if len(info.shape) > 1 else 0)
            assert info.dtype == ("int32" if expected["method"] == "integer" else "float32")


SEQUENCES = [case for case in CASES if len(list(model_steps(case))) > 1]


def builds_on_an_update(step: ModelStep) -> bool:
    """Whether a unit has a parent that is not the base model."""
    syntax = [unit["syntax"] for unit in step.config["units"]]
    return any(s.get("parent_node_id_present_flag") and s.get("put_node_depth", 2) > 1 for s in syntax)


@for_each("case", SEQUENCES)
def test_an_update_whose_parent_is_missing_is_refused(case: str) -> None:
    for step in filter(builds_on_an_update, model_steps(case)):
        with pytest.raises(UpdateError):
            dict(opened(step, {}).decode_all())


@for_each("case", SEQUENCES)
def test_an_update_that_was_applied_is_refused(case: str) -> None:
    for step, file in steps(case):
        if builds_on_an_update(step):
            with pytest.raises(ReplayError):
                dict(opened(step, file.history_after()).decode_all())


@for_each("case", SEQUENCES)
def test_without_a_history_an_update_decodes_exactly_or_not_at_all(case: str) -> None:
    for step in model_steps(case):
        file = opened(step)
        for name in file:
            try:
                array = file[name]
            except UpdateError:
                continue
            assert_is(array, step, name)
