"""What a rate-aware quantizer is for: fewer bytes at the same error."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from nnc_core.approximator import native
from nnc_core.approximator.rate_aware import quantize
from nnc_core.entropy.native import Encoder, shift_indices
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.entropy.unary_length import best_unary_length_minus1

Floats = NDArray[np.float32]
Levels = NDArray[np.int32]


def weights(seed: int) -> Floats:
    """Rows of different scales, as in a network."""
    rng = np.random.default_rng(seed)
    return (rng.laplace(size=(128, 300)) * rng.lognormal(0, 0.5, (128, 1))).astype(np.float32)


def coded_size(levels: Levels, dq_flag: bool, scan_order: int = 0, unary: int = 10) -> int:
    parameters = TensorParameters(dq_flag=dq_flag, scan_order=scan_order, cabac_unary_length_minus1=unary)
    encoder = Encoder()
    indices = shift_indices(levels, parameters, TensorChoices())
    encoder.tensor(levels, parameters, TensorChoices(shift_indices=indices))
    return len(encoder.finish())


def error(values: Floats, levels: Levels, step: float) -> float:
    return float(((values - levels.astype(np.float64) * step) ** 2).sum())


def size_at(
    values: Floats, target: float, dq_flag: bool, lambda_scale: float, scan_order: int = 0, passes: int = 2
) -> float:
    """The size at which a quantizer has the error ``target``, between two steps."""
    points = []
    for exponent in np.arange(-1, 4, 0.25):
        step = float(np.float32(math.sqrt(target / values.size) * 2**exponent))
        levels, _ = quantize(
            values,
            step,
            dq_flag=dq_flag,
            scan_order=scan_order,
            lambda_scale=lambda_scale,
            cabac_unary_length_minus1=10,
            passes=passes,
        )
        points.append((error(values, levels, step), coded_size(levels, dq_flag, scan_order)))
    errors, sizes = np.array(sorted(points)).T
    assert errors[0] < target < errors[-1]
    return float(np.exp(np.interp(math.log(target), np.log(errors), np.log(sizes))))


def energy(values: Floats) -> float:
    return float(np.square(values, dtype=np.float64).sum())


@pytest.mark.parametrize(
    ("dq_flag", "scan_order", "decibels", "percent"),
    [(True, 0, 25, 0.5), (True, 0, 15, 2), (True, 2, 15, 1), (False, 0, 25, 0.2), (False, 0, 15, 1)],
)
def test_weighing_bits_saves_some_at_the_same_error(
    dq_flag: bool, scan_order: int, decibels: float, percent: float
) -> None:
    values = weights(3)
    target = energy(values) / 10 ** (decibels / 10)
    blind = size_at(values, target, dq_flag, 0.0, scan_order)
    assert size_at(values, target, dq_flag, 0.9, scan_order) < (1 - percent / 100) * blind


def test_a_second_pass_saves_some_more() -> None:
    values = weights(6)
    target = energy(values) / 10**2
    one, two = (size_at(values, target, True, 0.9, passes=passes) for passes in (1, 2))
    assert two < 0.999 * one


def test_one_pass_is_the_quantizer_itself() -> None:
    values = weights(7)
    for dq_flag, quantizer in ((True, native.quantize_dependent), (False, native.quantize_uniform)):
        levels, unary = quantize(values, 0.3, dq_flag=dq_flag, scan_order=1, lambda_scale=0.5, passes=1)
        np.testing.assert_array_equal(levels, quantizer(values, 0.3, 1, 0.5))
        assert unary == 10


@pytest.mark.parametrize("dq_flag", [False, True])
def test_the_more_bits_count_the_smaller_and_the_coarser(dq_flag: bool) -> None:
    values = weights(4)
    quantizer = native.quantize_dependent if dq_flag else native.quantize_uniform
    outcomes = [quantizer(values, 0.5, 0, lambda_scale) for lambda_scale in (0, 0.3, 1, 3, 10)]
    sizes = [coded_size(levels, dq_flag) for levels in outcomes]
    errors = [error(values, levels, 0.5) for levels in outcomes]
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert not quantizer(values, 0.5, 0, 1e5).any()


def test_the_levels_of_a_rate_aware_search_can_be_coded_in_every_scan_order() -> None:
    values = weights(5)[:70, :77]
    for scan_order in range(5):
        levels = native.quantize_dependent(np.ascontiguousarray(values), 0.4, scan_order, 1.0)
        assert coded_size(levels, True, scan_order) > 0  # or the encoder refuses levels off the lattice


@pytest.mark.parametrize("dq_flag", [False, True])
@pytest.mark.parametrize("kind", ["normal", "laplace", "uniform"])
def test_the_unary_length_is_about_the_best(dq_flag: bool, kind: str) -> None:
    rng = np.random.default_rng(8)
    values = getattr(rng, kind)(size=(200, 200)).astype(np.float32)
    quantizer = native.quantize_dependent if dq_flag else native.quantize_uniform
    for step in (1, 0.2, 0.07, 0.02, 0.002):
        levels = quantizer(values, step)
        sizes = {unary: coded_size(levels, dq_flag, unary=unary) for unary in (10, 17, 23, 31, 47, 95)}
        chosen = sizes[best_unary_length_minus1(levels, dq_flag)]
        assert chosen < 1.004 * min(sizes.values())
        assert chosen < 1.0015 * sizes[10]


def test_the_unary_length_saves_some_where_levels_are_large() -> None:
    values = np.random.default_rng(9).uniform(size=(200, 200)).astype(np.float32)
    levels, unary = quantize(values, 0.015)
    assert unary > 10
    assert coded_size(levels, True, unary=unary) < 0.98 * coded_size(levels, True)


def test_levels_without_a_remainder_have_the_usual_unary_length() -> None:
    for levels in ([[0, 0]], [[22, -22, 0]]):
        assert best_unary_length_minus1(np.array(levels, np.int32), dq_flag=True) == 10
    assert best_unary_length_minus1(np.full((1, 2), 2**31 - 1, np.int32), dq_flag=False) in (10, 17, 23, 31, 47, 95)
