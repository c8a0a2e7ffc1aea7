"""The sequences of the corpus as updates of a model: applied in order, with the state in a file between any two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from conformance.support.corpus import ModelStep, for_each, model_names, model_steps
from nnc_core import NnrFile, UpdateDecoder, UpdateError

Model = dict[str, NDArray[Any]]
SEQUENCES = [case for case in model_names() if len(list(model_steps(case))) > 1]


def updates_in(step: ModelStep) -> Model:
    """What the decoder must find in this step."""
    return {n.removesuffix(".rec"): a for n, a in step.expected.items() if n.endswith(".rec")}


def is_residual(step: ModelStep) -> bool:
    mps = NnrFile(step.bitstream, input_parameters=step.input_parameters).bitstream.mps
    return mps is not None and mps.nnr_pre_flag


def models(case: str) -> list[Model]:
    """The model after each step: everything is added up, and residuals to the update before as well."""
    found: list[Model] = []
    model: Model = {}
    last: Model = {}
    for step in model_steps(case):
        last = updates_in(step) if not is_residual(step) else added(last, updates_in(step))
        model = added(model, last)
        found.append(model)
    return found


def added(a: Model, b: Model) -> Model:
    return {name: a[name] + b[name] if name in a and name in b else a.get(name, b.get(name)) for name in {**a, **b}}


def depths(step: ModelStep) -> list[int]:
    return [unit["syntax"]["put_node_depth"] for unit in step.config["units"] if "put_node_depth" in unit["syntax"]]


def assert_equal(a: Model, b: Model) -> None:
    assert a.keys() == b.keys()
    for name, array in a.items():
        np.testing.assert_array_equal(array, b[name], err_msg=name, strict=True)


@for_each("case", SEQUENCES)
def test_a_sequence_applies_in_order_with_the_state_in_a_file_between_any_two(case: str, tmp_path: Path) -> None:
    decoder = UpdateDecoder()
    for step, expected in zip(model_steps(case), models(case), strict=True):
        decoder.apply(step.bitstream, unverified=True)
        assert_equal(dict(decoder.model), expected)
        decoder.save(tmp_path / "state")
        decoder = UpdateDecoder.load(tmp_path / "state", decoder.model)


def test_decoders_side_by_side_do_not_know_of_each_other() -> None:
    found = [(iter(model_steps(case)), iter(models(case)), UpdateDecoder()) for case in SEQUENCES]
    while found:  # one step of each sequence in turn
        for each in list(found):
            steps, expected, decoder = each
            step = next(steps, None)
            if step is None:
                found.remove(each)
            else:
                decoder.apply(step.bitstream, unverified=True)
                assert_equal(dict(decoder.model), next(expected))


@for_each("case", SEQUENCES)
def test_a_wrong_order_is_refused_and_leaves_the_model_and_the_state(case: str) -> None:
    steps = list(model_steps(case))
    decoder = UpdateDecoder()
    decoder.apply(steps[0].bitstream, unverified=True)
    model, chain = dict(decoder.model), decoder.chain
    wrong = [step for step in steps[2:] if min(depths(step)) > max(depths(steps[0])) + 1]
    wrong += steps[:1] if max(depths(steps[0])) and "parent_sha" not in case else []
    for step in wrong:
        with pytest.raises(UpdateError):
            decoder.apply(step.bitstream, unverified=True)
        assert decoder.chain is chain
        assert_equal(dict(decoder.model), model)
