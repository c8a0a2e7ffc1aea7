"""Names in a reference list, where that is smaller."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

import nnc_core
from conformance.support import every_unit
from conformance.support.corpus import for_each, model_names, model_steps
from conformance.support.every_unit import PAYLOAD, QUANTIZED, made, tensor
from nnc_core import CodingParameters, ModelPlan, SourceModel
from nnc_core.bitstream import Bitstream, Division
from nnc_core.bitstream.references import with_reference_list
from nnc_core.bitstream.validate import violations

NAMES = [f"encoder.layer.{i}.attention.self.query.weight" for i in range(30)]
TENSORS = {name: np.full((4, 4), i, np.int32) for i, name in enumerate(NAMES)}


def same(a: bytes, b: bytes) -> None:
    left, right = nnc_core.decode(a), nnc_core.decode(b)
    assert list(left) == list(right)
    assert all(np.array_equal(left[name], right[name]) for name in left)


def test_many_similar_names_take_half_the_space_or_less() -> None:
    plain = nnc_core.encode(TENSORS)
    data = nnc_core.encode(TENSORS, parameters=CodingParameters(indexed_reference_flag=True))
    assert len(data) < 0.5 * len(plain)
    assert Bitstream(data).topology_elements == tuple(NAMES)
    assert violations(data) == []
    same(data, plain)


def test_a_stream_gets_what_encode_returns() -> None:
    stream = io.BytesIO()
    parameters = CodingParameters(indexed_reference_flag=True)
    size = nnc_core.write(stream, SourceModel(TENSORS), parameters=parameters)
    assert stream.getvalue() == nnc_core.encode(TENSORS, parameters=parameters)
    assert size == len(stream.getvalue())


def test_a_plan_remembers_how_names_are_sent() -> None:
    plan = nnc_core.plan(SourceModel(TENSORS), CodingParameters(indexed_reference_flag=True))
    assert ModelPlan.from_json(plan.to_json()) == plan
    assert plan.indexed_reference_flag


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_short_names_stay_where_they_are(count: int) -> None:
    data = nnc_core.encode({str(i): np.ones(3, np.int32) for i in range(count)})
    assert with_reference_list(data) == data


@pytest.mark.parametrize("name", ["aggregate, entry points False", "references", "pruning, 5"])
def test_what_refers_to_names_in_other_ways_stays_as_it_is(name: str) -> None:
    data = dict(every_unit.bitstreams())[name]
    assert with_reference_list(data) == data


def test_parts_and_layers_are_kept() -> None:
    def fill(writer: nnc_core.bitstream.BitstreamWriter) -> None:
        for name in NAMES:
            writer.layer_parameter_set(replace(every_unit.LAYER))
            writer.data_unit(tensor(name), PAYLOAD)

    data = made(fill, QUANTIZED, division=Division(parts=3))
    shorter = with_reference_list(data)
    assert len(shorter) < len(data)
    before, after = Bitstream(data), Bitstream(shorter)
    assert [u.partial_data_counter for u in after.units if u.names] == [3, 2, 1] * len(NAMES)
    for a, b in zip(before.data_units, after.data_units, strict=True):
        assert (a.names, bytes(a.payload), a.qp_density) == (b.names, bytes(b.payload), b.qp_density)


@for_each("case", model_names())
def test_the_corpus_holds_the_same_tensors_afterwards(case: str) -> None:
    for step in model_steps(case):
        known = step.input_parameters.get
        shorter = with_reference_list(step.bitstream, input_parameters=known)
        before = Bitstream(step.bitstream, input_parameters=known)
        after = Bitstream(shorter, input_parameters=known)
        assert list(after.tensors) == list(before.tensors)
        for a, b in zip(before.data_units, after.data_units, strict=True):
            assert bytes(a.payload) == bytes(b.payload)
