"""Calibrated models: outputs change less at the same size, any decoder reads them, nonsense is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnc_core
from nnc_core import CodingParameters, Covariance, LayerInputs, ModelError, SourceModel

RNG = np.random.default_rng(5)
MIXING = RNG.normal(size=(48, 48)) @ np.diag(np.geomspace(1, 0.05, 48))
WEIGHT: NDArray[np.float32] = RNG.normal(size=(64, 48)).astype(np.float32)
INPUTS, UNSEEN = (np.random.default_rng(seed).normal(size=(2000, 48)) @ MIXING for seed in (6, 7))


def covariance(inputs: NDArray[Any]) -> Covariance:
    found = Covariance(inputs.shape[-1])
    found.add(inputs)
    return found


def output_error(decoded: NDArray[Any]) -> float:
    return float(np.square(UNSEEN @ (WEIGHT - decoded.reshape(WEIGHT.shape)).T).sum())


@pytest.mark.parametrize("bits", [2, 3, 4.5])
@pytest.mark.parametrize("dq_flag", [False, True])
def test_a_calibrated_model_of_about_the_same_size_errs_much_less(bits: float, dq_flag: bool) -> None:
    p = CodingParameters(bits_per_weight=bits, dq_flag=dq_flag)
    usual = nnc_core.encode({"w": WEIGHT}, parameters=p)
    data = nnc_core.encode({"w": WEIGHT}, parameters=p, calibrate={"w": INPUTS})
    assert len(data) <= 1.02 * len(usual)
    errors = [output_error(nnc_core.decode(each)["w"]) for each in (data, usual)]
    assert errors[0] < 0.6 * errors[1]


def test_inputs_may_be_covariances_and_a_target_size_holds() -> None:
    p = CodingParameters(target_size=1400)
    data = nnc_core.encode({"w": WEIGHT}, parameters=p, calibrate={"w": LayerInputs((covariance(INPUTS),))})
    assert data == nnc_core.encode({"w": WEIGHT}, parameters=p, calibrate={"w": INPUTS})
    assert 1390 <= len(data) <= 1400


def test_the_number_of_threads_does_not_show_in_a_calibrated_bitstream() -> None:
    tensors = {f"w{i}": WEIGHT + np.float32(i) for i in range(4)}
    known = dict.fromkeys(tensors, INPUTS)
    p = CodingParameters(bits_per_weight=3)
    one, three = (nnc_core.encode(tensors, parameters=p, calibrate=known, threads=threads) for threads in (1, 3))
    assert one == three


def test_groups_of_rows_have_inputs_of_their_own() -> None:
    halves = np.split(INPUTS, 2, axis=1)
    weight = WEIGHT[:, :24].reshape(64, 4, 3, 2)
    grouped = LayerInputs(tuple(covariance(half) for half in halves))
    p = CodingParameters(bits_per_weight=3)
    data = nnc_core.encode({"w": weight}, parameters=p, calibrate={"w": grouped})
    plain = nnc_core.encode({"w": weight}, parameters=p)

    def error(data: bytes) -> float:
        errors = (weight - nnc_core.decode(data)["w"]).reshape(2, 32, 24)
        return sum(float(np.square(x @ e.T).sum()) for x, e in zip(np.split(UNSEEN, 2, axis=1), errors, strict=True))

    assert error(data) < 0.8 * error(plain)


def test_groups_count_alike_whatever_the_scale_of_their_inputs() -> None:
    halves = np.split(INPUTS, 2, axis=1)
    scaled = [LayerInputs((covariance(halves[0] * scale), covariance(halves[1]))) for scale in (1, 100)]
    weight = WEIGHT[:, :24]
    p = CodingParameters(bits_per_weight=3, level=7)
    one, other = (nnc_core.encode({"w": weight}, parameters=p, calibrate={"w": each}) for each in scaled)
    assert one == other


def test_kernels_stored_with_their_inputs_first_are_seen_as_matrices() -> None:
    weight = np.ascontiguousarray(WEIGHT.T).reshape(2, 4, 6, 64)
    known = LayerInputs((covariance(INPUTS),), input_first=True)
    assert known.matrix(weight.shape) == (48, 64)
    p = CodingParameters(bits_per_weight=3)
    data = [nnc_core.encode({"w": weight}, parameters=p, calibrate=each) for each in (None, {"w": known})]
    errors = [output_error(np.ascontiguousarray(nnc_core.decode(each)["w"].reshape(48, 64).T)) for each in data]
    assert errors[1] < 0.6 * errors[0]


def test_zeros_and_values_that_are_not_finite_survive_calibration() -> None:
    weight = WEIGHT.copy()
    weight[::2, 5], weight[3, 7], weight[4, 8] = 0, np.inf, np.nan
    decoded = nnc_core.decode(nnc_core.encode({"w": weight}, calibrate={"w": INPUTS}))["w"]
    assert not decoded[weight == 0].any()
    np.testing.assert_array_equal(decoded[~np.isfinite(weight)], weight[~np.isfinite(weight)])


def test_exact_tensors_and_codebooks_do_not_mind_calibration() -> None:
    p = CodingParameters(lossless=True)
    data = nnc_core.encode({"w": WEIGHT}, parameters=p, calibrate={"w": INPUTS})
    np.testing.assert_array_equal(nnc_core.decode(data)["w"], WEIGHT)


def test_sensitivities_move_steps_and_keep_their_mean() -> None:
    weights = {"much": WEIGHT, "little": WEIGHT[::-1].copy(), "unknown": WEIGHT}
    model = SourceModel(weights, sensitivities={"much": 160.0, "little": 10.0})
    plan, usual = nnc_core.plan(model), nnc_core.plan(SourceModel(weights))
    offsets = {name: plan.tensors[name].qp - usual.tensors[name].qp for name in weights}
    octave = 1 << plan.qp_density
    assert offsets == pytest.approx({"much": -octave * 3 / 4, "little": octave * 3 / 4, "unknown": 0}, abs=1)
    assert plan.tensors["much"].reason == "its measured sensitivity"


@pytest.mark.parametrize(
    ("known", "message"),
    [
        ({"w": INPUTS[:, 1:]}, r"tensor 'w': has shape \(64, 48\), and is calibrated with inputs of width 47"),
        (
            {"w": np.where(INPUTS > 1, np.nan, INPUTS)},
            "tensor 'w': cannot be calibrated: inputs have",
        ),
        ({"w": LayerInputs((Covariance(48),))}, "tensor 'w': cannot be calibrated: there are no inputs"),
        ({"w": LayerInputs((covariance(INPUTS),) * 3)}, "is calibrated with"),
        ({"w": LayerInputs((covariance(INPUTS),), input_first=True)}, "is calibrated with"),
        ({"v": INPUTS}, "tensor 'v': is calibrated, but is not among the tensors"),
        ({"w": np.float32(1)}, "tensor 'w': cannot be calibrated"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(known: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        nnc_core.encode({"w": WEIGHT}, calibrate=known)


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_sensitivities_that_make_no_sense_are_refused(value: float) -> None:
    with pytest.raises(ModelError, match="tensor 'w': has a sensitivity of"):
        nnc_core.plan(SourceModel({"w": WEIGHT}, sensitivities={"w": value}))
