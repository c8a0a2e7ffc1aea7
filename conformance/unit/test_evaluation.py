"""Quantization is as coarse as the quality of a model allows, by whatever measure a caller has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnc_core
from nnc_core import ModelError, approx_coder, approximator
from nnc_core.approximator import ApproxData, ApproxInfo
from nnc_core.nnr_model import Evaluation, ModelInfo, QpSearch, model_info_of
from nnc_core.nnr_model.qp_search import coarsest
from nnc_core.pipeline import Package, standard

Tensors = Mapping[str, NDArray[Any]]


def layer(seed: int = 3) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    weight = random.normal(0, 1, (16, 40)).astype(np.float32)
    other = random.normal(0, 1, (8, 16)).astype(np.float32)
    return {"large": weight, "small": other, "bias": random.normal(0, 1, 8).astype(np.float32)}


def error(tensors: Tensors) -> float:
    """A loss: the mean squared error of the weights."""
    original = layer()
    return float(np.mean([np.square(original[name] - tensors[name]).mean() for name in original]))


def approximated(info: ApproxInfo, evaluation: Evaluation | None) -> ApproxData:
    tensors = layer()
    start = ApproxInfo(approx_method="uniform", qp=dict.fromkeys(tensors, -40))
    start.update(info)
    return approximator.approx(start, model_info_of(tensors), {"parameters": tensors, "qp_density": 2}, evaluation)


def loss_of(data: ApproxData) -> float:
    return error(approximator.restored(data, ModelInfo())["parameters"])


LOSS = Evaluation(error, tolerance=1e-3, lower_is_better=True)


# --- the search -------------------------------------------------------------------------------------------------------


def at_most(limits: Mapping[str, int], tries: list[dict[str, int]]) -> Callable[[Mapping[str, int]], bool]:
    def holds(qp: Mapping[str, int]) -> bool:
        tries.append(dict(qp))
        return all(qp[name] <= limit for name, limit in limits.items())

    return holds


@pytest.mark.parametrize("limit", [-128, -100, -41, -40, -39, -1, 0, 77, 127])
def test_bisection_finds_the_coarsest_common_parameter(limit: int) -> None:
    tries: list[dict[str, int]] = []
    found = coarsest({"w": -40}, at_most({"w": limit}, tries), QpSearch(), 127)
    assert found == {"w": limit}
    assert len(tries) < 25


def test_common_steps_keep_the_distances_of_parameters() -> None:
    assert coarsest({"a": -40, "b": -20}, at_most({"a": 5, "b": -3}, []), QpSearch(), 127) == {"a": -23, "b": -3}


def test_iteration_stops_before_the_first_step_that_is_too_coarse() -> None:
    tries: list[dict[str, int]] = []
    search = QpSearch(opt_qp=False, iter_opt=True, qp_step=4)
    assert coarsest({"w": -40}, at_most({"w": -25}, tries), search, 127) == {"w": -28}
    assert [each["w"] for each in tries] == [-40, -36, -32, -28, -24]


def test_iteration_ends_after_the_given_number() -> None:
    search = QpSearch(opt_qp=False, iter_opt=True, qp_step=4, max_iterations=2)
    assert coarsest({"w": -40}, at_most({"w": 99}, []), search, 127) == {"w": -32}


def test_inference_optimised_quantization_moves_each_tensor_to_its_own_limit() -> None:
    limits = {"a": -12, "b": -40, "c": 3}
    search = QpSearch(opt_qp=False, ioq=True, qp_step=1)
    assert coarsest(dict.fromkeys(limits, -40), at_most(limits, []), search, 127) == limits


def test_both_together_end_where_each_alone_would_stop() -> None:
    limits = {"a": -12, "b": -20, "c": 3}
    assert coarsest(dict.fromkeys(limits, -40), at_most(limits, []), QpSearch(ioq=True), 127) == limits


def test_no_parameter_leaves_its_range() -> None:
    tries: list[dict[str, int]] = []
    assert coarsest({"w": 100, "v": 0}, at_most({}, tries), QpSearch(ioq=True), 127) == {"w": 127, "v": 127}
    assert all(-128 <= each <= 127 for qp in tries for each in qp.values())


def test_what_is_never_good_enough_is_an_error() -> None:
    with pytest.raises(ModelError, match="even with the finest steps"):
        coarsest({"w": 0}, at_most({"w": -1000}, []), QpSearch(), 127)
    with pytest.raises(ModelError, match="with the given qp"):
        coarsest({"w": 0}, at_most({"w": -1}, []), QpSearch(opt_qp=False, ioq=True), 127)


# --- the hook ---------------------------------------------------------------------------------------------------------


def test_an_accuracy_is_bounded_from_below_and_a_loss_from_above() -> None:
    accuracy = Evaluation(lambda tensors: float(tensors["w"][0]), tolerance=0.25).bounded({"w": np.array([0.75])})
    assert [accuracy.accepts({"w": np.array([each])}) for each in (0.49, 0.5, 1.0)] == [False, True, True]
    loss = Evaluation(lambda tensors: float(tensors["w"][0]), tolerance=0.25, lower_is_better=True)
    loss = loss.bounded({"w": np.array([0.75])})
    assert [loss.accepts({"w": np.array([each])}) for each in (0.5, 1.0, 1.01)] == [True, True, False]


def test_a_bound_that_is_given_is_used_as_it_is() -> None:
    evaluation = Evaluation(lambda tensors: 0.5, bound=0.4, tolerance=9)
    assert evaluation.bounded({}) is evaluation
    assert evaluation.accepts({})


@pytest.mark.parametrize("lower", [False, True])
def test_a_model_whose_quality_is_not_a_number_is_not_good_enough(lower: bool) -> None:
    assert not Evaluation(lambda tensors: float("nan"), bound=0.4, lower_is_better=lower).accepts({})
    with pytest.raises(ModelError, match="the original model is nan"):
        Evaluation(lambda tensors: float("nan"), lower_is_better=lower).bounded({})


def test_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="tolerance is -1"):
        Evaluation(lambda tensors: 0.0, tolerance=-1)
    with pytest.raises(ValueError, match="qp_step is 0"):
        QpSearch(qp_step=0)
    with pytest.raises(ModelError, match="max_iterations is 0"):
        approximated({"ioq": True, "max_iterations": 0}, LOSS)
    with pytest.raises(ModelError, match="need an evaluation"):
        approximated({"opt_qp": True}, None)


# --- the functions of Part 18 -----------------------------------------------------------------------------------------


def test_opt_qp_is_the_coarsest_common_qp_within_the_bound() -> None:
    data = approximated({"opt_qp": True}, LOSS)
    assert data["qp"]["large"] == data["qp"]["small"]
    assert data["qp"]["bias"] == -40
    assert loss_of(data) <= 1e-3
    coarser = approximated(
        {"qp": {**data["qp"], "large": data["qp"]["large"] + 1, "small": data["qp"]["small"] + 1}}, None
    )
    assert loss_of(coarser) > 1e-3


def test_opt_qp_becomes_finer_where_the_given_qp_is_too_coarse() -> None:
    data = approximated({"qp": {"large": -2, "small": -2, "bias": -40}, "opt_qp": True}, LOSS)
    assert data["qp"]["large"] < -2
    assert loss_of(data) <= 1e-3


def test_iterative_optimisation_moves_in_steps() -> None:
    data = approximated({"iter_opt": True, "qp_step": 3}, LOSS)
    assert (data["qp"]["large"] + 40) % 3 == 0
    assert data["qp"]["large"] > -40
    assert loss_of(data) <= 1e-3


def test_ioq_makes_tensors_coarser_that_matter_less() -> None:
    def first_only(tensors: Tensors) -> float:
        return float(np.square(layer()["large"] - tensors["large"]).mean())

    evaluation = Evaluation(first_only, tolerance=1e-3, lower_is_better=True)
    together = approximated({"opt_qp": True}, evaluation)
    each = approximated({"opt_qp": True, "ioq": True}, evaluation)
    assert each["qp"]["large"] == together["qp"]["large"]
    assert each["qp"]["small"] > 0
    assert not each["parameters"]["small"].any()


def test_local_scaling_is_taken_where_it_makes_the_model_better() -> None:
    info = ApproxInfo(lsa=True, qp=dict.fromkeys(layer(), 0))
    plain = approximated({"qp": dict.fromkeys(layer(), 0)}, None)
    scaled = approximated(info, Evaluation(error, bound=9.0, lower_is_better=True))
    assert set(scaled["parameters"]) == {*layer(), "large_scaling", "small_scaling"}
    np.testing.assert_array_equal(scaled["parameters"]["large"], plain["parameters"]["large"])
    assert loss_of(scaled) < loss_of(plain)


def test_local_scaling_that_does_not_help_is_left_out() -> None:
    data = approximated({"lsa": True, "opt_qp": True}, Evaluation(lambda tensors: 1.0))
    assert set(data["parameters"]) == set(layer())


def test_a_decoder_gets_the_quality_that_was_asked_for() -> None:
    tensors = layer()
    info = ApproxInfo(qp=dict.fromkeys(tensors, -40), opt_qp=True, ioq=True, lsa=True)
    given = ApproxData(parameters=dict(tensors), qp_density=2)
    data = approx_coder.encode(info, {}, model_info_of(tensors), given, LOSS)
    assert error(approx_coder.decode(data)["parameters"]) <= 1e-3
    plain = approx_coder.encode(ApproxInfo(qp=dict.fromkeys(tensors, -40)), {}, model_info_of(tensors), given)
    assert len(data) < 0.8 * len(plain)
    pipeline = standard(info, {}, LOSS)
    assert pipeline.encode(Package(model_info_of(tensors), given)).bitstream == data
    assert given["parameters"].keys() == tensors.keys()


def test_factors_are_quantized_as_coarsely_as_the_product_allows() -> None:
    random = np.random.default_rng(1)
    tensors = {"w": (random.normal(0, 1, (20, 2)) @ random.normal(0, 1, (2, 20))).astype(np.float32)}
    model_info, data = model_info_of(tensors), ApproxData(parameters=dict(tensors), qp_density=2)
    approximator.decompose(model_info, data, rank=2)

    def product_error(decoded: Tensors) -> float:
        return float(np.square(tensors["w"] - decoded["w"]).mean())

    evaluation = Evaluation(product_error, tolerance=1e-2, lower_is_better=True)
    found = approximator.approx(ApproxInfo(qp={"w": -40}, opt_qp=True), model_info, data, evaluation)
    assert found["qp"]["w_G"] == found["qp"]["w_H"] > -40
    assert product_error(approximator.restored(found, model_info)["parameters"]) <= 1e-2


# --- planned models ---------------------------------------------------------------------------------------------------


def classifier() -> tuple[dict[str, NDArray[Any]], Evaluation]:
    """Ten patterns, the weights that tell them apart, and the share of noisy ones that these recognize."""
    random = np.random.default_rng(8)
    patterns = random.normal(size=(10, 64)).astype(np.float32)
    labels = np.arange(2000) % 10
    inputs = patterns[labels] + random.normal(0, 2.2, (2000, 64)).astype(np.float32)

    def accuracy(tensors: Tensors) -> float:
        return float(((inputs @ tensors["w"].T + tensors["b"]).argmax(1) == labels).mean())

    model = {"w": patterns, "b": (-np.square(patterns).sum(1) / 2).astype(np.float32)}
    return model, Evaluation(accuracy, tolerance=0.01)


def test_a_model_is_as_small_as_its_accuracy_allows() -> None:
    model, evaluation = classifier()
    plan = nnc_core.optimize(model, evaluation)
    bounded = evaluation.bounded(model)
    data = nnc_core.encode(model, plan=plan)
    assert bounded.accepts(nnc_core.decode(data))
    assert len(data) < 0.75 * len(nnc_core.encode(model))
    coarser = plan.changed("w", qp=plan.tensors["w"].qp + 1)
    assert not bounded.accepts(nnc_core.decode(nnc_core.encode(model, plan=coarser)))
    assert plan.tensors["w"].reason == "the evaluation of the model"
    assert plan.tensors["b"] == nnc_core.plan(nnc_core.SourceModel(model)).tensors["b"]


def test_a_planned_model_that_is_never_good_enough_is_an_error() -> None:
    model, _ = classifier()
    with pytest.raises(ModelError, match="even with the finest steps"):
        nnc_core.optimize(model, Evaluation(lambda tensors: 0.5, bound=0.6), nnc_core.CodingParameters(qp=0))


def test_tensors_that_are_exact_are_left_alone() -> None:
    tensors = {"ternary": np.ones((8, 8), np.float32), "i": np.arange(64).reshape(8, 8)}
    plan = nnc_core.optimize(tensors, Evaluation(lambda tensors: 1.0))
    assert plan == nnc_core.plan(nnc_core.SourceModel(tensors))
