"""Calibrated quantization: native equals the reference, outputs change less, zeros stay, nonsense is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnc_core import _native
from nnc_core.approximator import calibrated, native, reference_calibrated
from nnc_core.approximator.calibrated import Calibration, Covariance, LayerInputs, calibration
from nnc_core.entropy.native import Encoder, shift_indices
from nnc_core.entropy.parameters import TensorChoices, TensorParameters

Floats = NDArray[np.float32]


def measured(width: int, seed: int, count: int = 400) -> Covariance:
    """Inputs that depend on each other, as those of a layer do."""
    mixing = np.random.default_rng(seed).normal(size=(width, width)) / width**0.5 + np.eye(width) / 2
    covariance = Covariance(width)
    covariance.add(np.random.default_rng([seed, count]).normal(size=(count, width)) @ mixing)
    return covariance


def weights(rows: int, width: int, seed: int) -> Floats:
    return np.random.default_rng(seed).laplace(size=(rows, width)).astype(np.float32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Floats, Calibration, dict[str, Any]]:
    rows, width, seed = draw(st.integers(1, 6)), draw(st.integers(1, 70)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    values = weights(rows, width, seed) * np.float32(draw(st.sampled_from([0.01, 0.5, 3, 100])))
    values *= rng.random(values.shape) < draw(st.sampled_from([1, 0.4]))
    options = {"dq_flag": draw(st.booleans()), "lambda_scale": draw(st.sampled_from([0.0, 0.5, 1.0, 5.0]))}
    options["cabac_unary_length_minus1"] = draw(st.sampled_from([0, 10]))
    input_first = draw(st.booleans())
    groups = 1 if input_first else draw(st.sampled_from([g for g in (1, 2, 3) if rows % g == 0]))
    inputs, count = rows if input_first else width, draw(st.integers(1, 100))
    covariances = tuple(measured(inputs, seed + group, count) for group in range(groups))
    known = LayerInputs(covariances, input_first)
    assert known.fits(values.shape)
    return values, known.calibration(draw(st.sampled_from([0.001, 0.1, 10]))), options


@settings(max_examples=40, deadline=None)
@given(cases())
def test_calibrated_quantization_is_that_of_the_reference(case: tuple[Floats, Calibration, dict[str, Any]]) -> None:
    values, known, options = case
    found = calibrated.quantize_calibrated(values, 1.0, known, **options)
    expected = reference_calibrated.quantize_calibrated(values, 1.0, known, **options)
    np.testing.assert_array_equal(found, expected, strict=True)
    assert not found[values == 0].any()


def test_calibrated_quantization_is_the_same_with_any_instructions() -> None:
    values, known = weights(20, 300, 1), measured(300, 2).calibration()
    fastest = calibrated.quantize_calibrated(values, 0.5, known, lambda_scale=1.0)
    _native.force_portable_kernels(True)
    try:
        np.testing.assert_array_equal(fastest, calibrated.quantize_calibrated(values, 0.5, known, lambda_scale=1.0))
    finally:
        _native.force_portable_kernels(False)


def output_error(values: Floats, levels: NDArray[np.int32], step: float, covariance: NDArray[np.float64]) -> float:
    error = values.astype(np.float64) - levels * step
    return float(np.einsum("ri,ij,rj", error, covariance, error))


def coded_size(levels: NDArray[np.int32], dq_flag: bool) -> int:
    parameters = TensorParameters(dq_flag=dq_flag)
    encoder = Encoder()
    indices = shift_indices(levels, parameters, TensorChoices())
    encoder.tensor(levels, parameters, TensorChoices(shift_indices=indices))
    return len(encoder.finish())


@pytest.mark.parametrize("dq_flag", [True, False])
@pytest.mark.parametrize("lambda_scale", [0.0, 0.8])
def test_outputs_change_much_less_for_about_the_same_size(dq_flag: bool, lambda_scale: float) -> None:
    values, covariance = weights(64, 96, 3), measured(96, 4, 5000)
    quantize = native.quantize_dependent if dq_flag else native.quantize_uniform
    blind = quantize(values, 0.8, 0, lambda_scale)
    levels = calibrated.quantize_calibrated(
        values, 0.8, covariance.calibration(), dq_flag=dq_flag, lambda_scale=lambda_scale
    )
    assert coded_size(levels, dq_flag) < 1.02 * coded_size(blind, dq_flag)
    unseen = measured(96, 4, 9000).mean
    assert output_error(values, levels, 0.8, unseen) < 0.7 * output_error(values, blind, 0.8, unseen)


def test_inputs_that_are_all_zero_teach_nothing() -> None:
    covariance = Covariance(30)
    covariance.add(np.zeros((5, 30)))
    values = weights(1, 30, 5)
    levels = calibrated.quantize_calibrated(values, 0.3, covariance.calibration())
    np.testing.assert_array_equal(levels, native.quantize_dependent(values, 0.3))


def test_batches_add_up_whatever_their_shape() -> None:
    inputs = np.random.default_rng(6).normal(size=(4, 5, 7))
    at_once, in_turn = Covariance(7), Covariance(7)
    at_once.add(inputs)
    for batch in inputs:
        in_turn.add(batch.astype(np.float32))
    np.testing.assert_allclose(at_once.mean, in_turn.mean, rtol=1e-6)
    np.testing.assert_allclose(at_once.mean, np.einsum("abi,abj->ij", inputs, inputs) / 20)


def test_the_factor_is_that_of_the_inverse_and_triangular() -> None:
    mean = measured(12, 7).mean
    known = calibration(mean, 0.05)
    damped = mean * 12 / np.trace(mean) + 0.05 * np.eye(12)
    np.testing.assert_allclose(known.factor.T @ known.factor, np.linalg.inv(damped), rtol=1e-4, atol=1e-5)
    assert not np.tril(known.factor, -1).any()
    assert known.importance.mean() == pytest.approx(1)


def test_a_matrix_stored_with_its_inputs_first_gains_as_much() -> None:
    covariance, unseen = measured(96, 4, 5000), measured(96, 4, 9000).mean
    values = weights(64, 96, 3)
    turned = np.ascontiguousarray(values.T)
    usual = calibrated.quantize_calibrated(values, 0.8, LayerInputs((covariance,)).calibration())
    levels = calibrated.quantize_calibrated(turned, 0.8, LayerInputs((covariance,), input_first=True).calibration())
    error = output_error(values, np.ascontiguousarray(levels.T), 0.8, unseen)
    assert error == pytest.approx(output_error(values, usual, 0.8, unseen), rel=0.15)


def no_batches() -> object:
    return Covariance(3).mean


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (no_batches, "no inputs"),
        (lambda: Covariance(3).add(np.zeros((2, 4))), "expected"),
        (lambda: Covariance(3).add([[1, np.nan, 2]]), "not finite"),
        (lambda: calibration(np.zeros((2, 3))), "square"),
        (lambda: calibration(np.full((2, 2), np.inf)), "finite"),
        (lambda: calibration(np.eye(2), 0), "damping"),
        (lambda: calibration(np.array([[1.0, 9], [9, 1]])), "positive definite"),
    ],
)
def test_data_that_calibrate_nothing_are_refused(attempt: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        attempt()


@pytest.mark.parametrize("module", [calibrated, reference_calibrated])
def test_values_beyond_all_levels_are_refused(module: Any) -> None:
    known = measured(2, 8).calibration()
    for value in (np.nan, np.inf, 3e9):
        with pytest.raises(ValueError, match="not finite"):
            module.quantize_calibrated(np.array([[1.0, value]], np.float32), 1.0, known)


def test_a_calibration_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="as many columns"):
        calibrated.quantize_calibrated(weights(2, 5, 9), 1.0, measured(4, 9).calibration())
