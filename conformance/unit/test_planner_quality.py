"""The default quality: steps relative to the tensors and the model, zeros and exact values kept, any scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import nnc_core
from nnc_core import CodingParameters, Method, ModelError, ModelPlan, Rule, SourceModel
from nnc_core.approximator.step import step_size
from nnc_core.planner import quality
from nnc_core.planner.exactness import worth_coding
from nnc_core.planner.statistics import statistics


def normal(*shape: int, scale: float = 1, seed: int = 1) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).normal(0, 1, shape) * scale).astype(np.float32)


def coded(tensors: dict[str, Any], *rules: str, **parameters: Any) -> dict[str, NDArray[Any]]:
    p = CodingParameters(rules=tuple(map(Rule.parse, rules)), **parameters)
    return nnc_core.decode(nnc_core.encode(tensors, parameters=p))


def sqnr(before: NDArray[Any], after: NDArray[Any]) -> float:
    """In dB; infinite where nothing changed."""
    x, noise = before.astype(np.float64), before.astype(np.float64) - after.astype(np.float64)
    return float(10 * np.log10((x @ x.T).trace() / np.square(noise).sum())) if noise.any() else np.inf


# --- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dq_flag", [False, True])
@pytest.mark.parametrize("profile", [0, 1])
def test_tensors_of_all_scales_arrive_at_a_useful_quality(profile: int, dq_flag: bool) -> None:
    tensors = {f"{e}": normal(64, 96, scale=0.5 * 10.0**e, seed=e + 50) for e in range(-12, 19)}
    decoded = coded(tensors, general_profile_idc=profile, dq_flag=dq_flag)
    assert min(sqnr(tensors[name], decoded[name]) for name in tensors) >= 30


@pytest.mark.parametrize("scale", [1e-37, 1e-30, 1e-15, 1e30, 3e37])
def test_tensors_beyond_all_steps_arrive_too(scale: float) -> None:
    tensors = {"w": normal(64, 96, scale=scale), "v": normal(96, scale=scale)}
    decoded = coded(tensors)
    for name, array in tensors.items():
        assert sqnr(array.reshape(-1, 96), decoded[name].reshape(-1, 96)) >= 30


def test_weights_follow_the_scale_of_the_model_down_to_a_floor() -> None:
    tensors = {"loud": normal(200, 200), "soft": normal(100, 100, scale=0.7), "quiet": normal(90, 100, scale=0.01)}
    tensors["shrill"] = normal(10, 12, scale=9)
    decoded = coded(tensors)
    assert 43.5 < sqnr(tensors["shrill"], decoded["shrill"]) < 45
    assert 40 < sqnr(tensors["loud"], decoded["loud"]) < 41.5
    assert 37 < sqnr(tensors["soft"], decoded["soft"]) < 38.5
    assert 34 <= sqnr(tensors["quiet"], decoded["quiet"]) < 35.5


@pytest.mark.parametrize("shape", [(400,), (1, 400), (400, 1), (1, 400, 1, 1), (1, 1, 400)])
def test_what_has_one_dimension_above_1_is_a_vector_whatever_is_said_of_its_role(shape: tuple[int, ...]) -> None:
    array = normal(*shape, scale=1e-5)
    model = SourceModel({"v": array}, model_info={"parameter_type": {"v": "conv.weight"}})
    found = nnc_core.decode(nnc_core.encode(model.tensors, model_info=model.model_info))["v"]
    assert sqnr(array.reshape(1, -1), found.reshape(1, -1)) >= 59.5
    plain = normal(*shape, scale=0.3)
    assert np.abs(coded({"v": plain})["v"] - plain).max() <= 2 * step_size(-75, 2)


def test_what_is_known_to_be_no_weight_is_coded_like_a_vector() -> None:
    array = normal(40, 50, scale=1e-4)
    data = nnc_core.encode({"w": array}, model_info={"parameter_type": {"w": "bn.gamma"}})
    assert sqnr(array, nnc_core.decode(data)["w"]) >= 59.5


def test_factors_of_a_product_are_fine_enough_for_the_product() -> None:
    a, b = normal(8, 256, scale=0.1), normal(256, 8, scale=2e-4, seed=2)
    decoded = coded({"lora_A": a, "lora_B": b})
    product = b.astype(np.float64) @ a
    error = np.linalg.norm(product - decoded["lora_B"].astype(np.float64) @ decoded["lora_A"])
    assert error <= 0.0101 * np.linalg.norm(product)


def test_a_few_values_far_beyond_the_others_do_not_make_these_coarse() -> None:
    array = normal(100, 100, scale=0.05)
    array[3, 7], array[50, 2] = 1e12, -3e4
    decoded = coded({"w": array})["w"]
    others = np.abs(array) < 100
    assert sqnr(array[others].reshape(1, -1), decoded[others].reshape(1, -1)) >= 29.9
    np.testing.assert_allclose(decoded[~others], array[~others], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_and_columns_of_very_different_scales_are_all_kept(axis: int) -> None:
    scales = np.expand_dims(np.logspace(0, -5, 64), 1 - axis)
    array = (normal(64, 64) * scales).astype(np.float32)
    decoded = coded({"w": array})["w"]
    for before, after in zip(np.moveaxis(array, axis, 0), np.moveaxis(decoded, axis, 0), strict=True):
        assert sqnr(before[None], after[None]) >= 20


def test_a_few_rows_that_training_has_silenced_do_not_make_the_others_dear() -> None:
    array = normal(64, 300)
    dead = array.copy()
    dead[::8] *= 1e-4
    assert len(nnc_core.encode({"w": dead})) < len(nnc_core.encode({"w": array}))


def test_zeros_stay_zeros() -> None:
    array = normal(200, 100)
    array[np.abs(array) < 1] = 0
    decoded = coded({"w": array})["w"]
    assert not decoded[array == 0].any()


@settings(max_examples=200, deadline=None)
@given(st.floats(2.0**-32, 2.0**31), st.integers(0, 7))
def test_the_largest_step_that_is_not_above_the_one_wanted_is_taken(step: float, qp_density: int) -> None:
    qp = quality.qp_of(step, qp_density)
    assert step_size(qp, qp_density) <= step
    if qp < (1 << (5 + qp_density)) - 1:
        assert step < step_size(qp + 1, qp_density)


def test_the_statistics_leave_out_what_lies_far_beyond_and_nothing_else() -> None:
    array = normal(5000, 3)
    found = statistics(array)
    assert found.size == array.size
    assert found.rms == pytest.approx(np.sqrt(np.square(array, dtype=np.float64).mean()))
    array.reshape(-1)[[0, 77, 999]] = [1e9, -np.inf, np.nan]
    ordinary = statistics(array)
    assert ordinary.size == array.size - 3
    assert ordinary.rms == pytest.approx(found.rms, rel=0.01)
    sparse = np.zeros((1000, 1000), np.float32)
    sparse[5, 5] = 3
    assert statistics(sparse).peak == 3


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([(16,), (4, 4), (1, 9), (3, 2, 5), (1, 4, 6), (2, 3, 2, 2), (64,), (8, 8)]),
    st.integers(0, 999),
    st.sampled_from([1.0, 30.0, 1e6, np.inf, np.nan, 0.0]),
)
def test_few_values_are_measured_like_many(shape: tuple[int, ...], seed: int, other: float) -> None:
    array = normal(*shape, seed=seed)
    array[seed % shape[0]] *= np.float32(other)
    few, many = statistics(array), statistics(np.tile(array, 8))
    assert few.size == many.size / 8
    assert (few.rms, few.quiet, few.peak, few.least) == pytest.approx((many.rms, many.quiet, many.peak, many.least))


# --- exactness -------------------------------------------------------------------------------------------------------

EXACT: dict[str, NDArray[Any]] = {
    "ones": np.ones(40, np.float32),
    "halves": np.full((6, 5), 0.5, np.float32),
    "tenths": np.full((20, 20), 0.1, np.float32),
    "counts": np.arange(64, dtype=np.float32).reshape(8, 8),
    "large counts": np.array([0, 1000, 16_000_000], np.float32),
    "flags": (normal(30, 30) > 0).astype(np.float32),
    "ternary": np.sign(normal(30, 30)) * np.float32(0.037),
    "half flags": (normal(30, 30) > 0).astype(np.float16),
    "double flags": (normal(30, 30) > 0) * 0.3,
    "mask": np.triu(np.full((30, 30), -np.inf, np.float32), 1),
    "half mask": np.triu(np.full((30, 30), -65504, np.float16), 1),
    "finfo": np.triu(np.full((30, 30), np.finfo(np.float32).min), 1),
    "negative zeros": np.where(normal(30, 30) > 0, np.float32(-0.0), np.float32(1)),
    "sixteenths": np.round(normal(30, 30) * 16).astype(np.float32) / 16 + np.float32(0),
    "a few negative zeros": np.round(normal(30, 30) * 16).astype(np.float32) / 16,
    "zeros": np.zeros((20, 30), np.float32),
    "scalar": np.array(0.3, np.float32),
    "one": np.array([[1e-30]], np.float32),
}


@pytest.mark.parametrize("profile", [0, 1])
def test_what_is_exact_by_its_values_returns_bit_for_bit(profile: int) -> None:
    decoded = coded({**EXACT, "w": normal(30, 30)}, general_profile_idc=profile)
    for name, array in EXACT.items():
        found = decoded[name].reshape(array.shape).astype(array.dtype)
        assert found.tobytes() == array.tobytes(), name


def test_what_is_exact_takes_fewer_bytes_than_it_has() -> None:
    for name in ("flags", "ternary", "half flags", "double flags", "mask", "half mask", "finfo", "counts"):
        assert len(nnc_core.encode({"t": EXACT[name]})) < EXACT[name].nbytes / 2 + 60, name


def test_what_another_decoder_can_read_is_preferred_where_it_is_not_larger() -> None:
    plan = nnc_core.plan(SourceModel(EXACT))
    readable = {"ones", "halves", "counts", "flags", "ternary", "half flags", "half mask", "sixteenths", "zeros"}
    assert {plan.tensors[name].method for name in readable} <= {Method.QUANTIZED, Method.CODEBOOK}


def test_the_plan_says_why_a_tensor_is_exact() -> None:
    tensors = {"w": normal(20, 20), "flags": EXACT["flags"], "counts": EXACT["counts"], "scale": normal(9)}
    plan = nnc_core.plan(SourceModel(tensors, exact={"scale": "divisor of a quantization"}))
    reasons = {name: each.reason for name, each in plan.tensors.items() if each.exact}
    assert reasons == {
        "flags": "few different values",
        "counts": "whole numbers",
        "scale": "divisor of a quantization",
    }


def test_a_rule_overrules_whatever_is_exact() -> None:
    tensors = {"scale": normal(500), "flags": EXACT["flags"] * np.float32(0.3), "w": normal(40, 40)}
    model = SourceModel(tensors, exact={"scale": "divisor of a quantization"})

    def exact(*rules: str) -> set[str]:
        plan = nnc_core.plan(model, CodingParameters(rules=tuple(map(Rule.parse, rules))))
        decoded = nnc_core.decode(nnc_core.encode(tensors, plan=plan))
        found = {name for name, array in tensors.items() if np.array_equal(decoded[name], array)}
        assert found == {name for name, each in plan.tensors.items() if each.exact}
        return found

    assert exact() == {"scale", "flags"}
    assert exact("scale=exact=0", "flags=qp=-10") == set()
    assert exact("w=exact=1", "flags=exact=0") == {"scale", "w"}
    assert exact("scale|flags=qp=-20", "flags=exact=1") == {"flags"}


def test_with_a_qp_for_all_nothing_is_exact_by_its_values() -> None:
    plan = nnc_core.plan(SourceModel(EXACT), CodingParameters(qp=-38))
    assert not any(each.exact for each in plan.tensors.values())
    assert {each.qp for each in plan.tensors.values()} == {-38, -75}


@pytest.mark.parametrize(
    ("array", "worth"),
    [
        (np.random.default_rng(1).normal(0, 2, (100, 100)).astype(np.int8), True),
        (np.random.default_rng(1).normal(0, 2, (100, 100)).astype(np.uint8) + np.uint8(128), True),
        (normal(100, 100), True),
        (normal(100, 100).astype(np.float16), True),
        (np.random.default_rng(1).integers(0, 256, (200, 200)).astype(np.uint8), False),
        (np.random.default_rng(1).integers(-(2**31), 2**31, (30, 30)).astype(np.int32), False),
        (np.random.default_rng(1).integers(0, 2**63, 300), False),
        (np.zeros(0), False),
        (np.zeros(5, bool), False),
        (np.tile(normal(1, 64), (400, 1)), False),
    ],
    ids=str,
)
def test_coding_is_worth_while_where_deflating_takes_more(array: NDArray[Any], worth: bool) -> None:
    assert worth_coding(array) is worth


# --- plans -----------------------------------------------------------------------------------------------------------


def test_a_plan_can_be_kept_changed_and_used() -> None:
    tensors = {"a": normal(30, 30), "b": normal(30), "steps": np.arange(50)}
    plan = nnc_core.plan(SourceModel(tensors))
    assert list(plan.tensors) == list(tensors)
    assert ModelPlan.from_json(plan.to_json()) == plan
    assert nnc_core.encode(tensors, plan=plan) == nnc_core.encode(tensors)
    coarse = plan.changed("a", qp=plan.tensors["a"].qp + 32)
    assert len(nnc_core.encode(tensors, plan=coarse)) < len(nnc_core.encode(tensors, plan=plan))
    with pytest.raises(KeyError):
        plan.changed("c", qp=1)
    with pytest.raises(TypeError):
        plan.changed("a", colour=1)


def test_a_plan_that_does_not_fit_is_refused_by_name() -> None:
    plan = nnc_core.plan(SourceModel({"a": normal(30, 30), "i": np.arange(50)}))
    with pytest.raises(ModelError, match="tensor 'b': is not in the plan"):
        nnc_core.encode({"b": normal(3)}, plan=plan)
    with pytest.raises(ModelError, match="tensor 'a': has dtype int64, and is planned as quantized"):
        nnc_core.encode({"a": np.arange(5)}, plan=plan)
    with pytest.raises(ModelError, match="tensor 'a': has values beyond the reach of a codebook"):
        nnc_core.encode({"a": normal(30, 30, scale=1e30)}, plan=plan.changed("a", method=Method.CODEBOOK))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"nnc_plan": 2}', '{"nnc_plan": 1, "qp_density": 2, "general_profile_idc": 1}', "null"]
)
def test_text_that_is_not_a_plan_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="plan"):
        ModelPlan.from_json(text)
    good = nnc_core.plan(SourceModel({"a": normal(30, 30)})).to_json()
    for before, after in (('"quantized"', '"magic"'), ('"qp"', '"qqp"')):
        with pytest.raises(ModelError, match="plan"):
            ModelPlan.from_json(good.replace(before, after))


def test_the_density_is_2_where_a_qp_is_given_and_4_otherwise() -> None:
    rule = (Rule.parse("w=qp=-20"),)
    assert CodingParameters().density == 4
    assert {CodingParameters(qp=1).density, CodingParameters(nonweight_qp=1).density} == {2}
    assert CodingParameters(rules=rule).density == 2
    assert replace(CodingParameters(rules=rule), qp_density=5).density == 5
