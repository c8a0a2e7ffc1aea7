"""What a rate-aware quantizer is for: fewer bytes at the same error."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from nnc_core.approximator import native
from nnc_core.entropy.native import Encoder, shift_indices
from nnc_core.entropy.parameters import TensorChoices, TensorParameters

Floats = NDArray[np.float32]
Levels = NDArray[np.int32]


def weights(seed: int) -> Floats:
    """Rows of different scales, as in a network."""
    rng = np.random.default_rng(seed)
    return (rng.laplace(size=(128, 300)) * rng.lognormal(0, 0.5, (128, 1))).astype(np.float32)


def coded(levels: Levels, dq_flag: bool, scan_order: int = 0) -> tuple[int, tuple[int, ...]]:
    """The size of the payload, and the shift indices that make it so small."""
    parameters = TensorParameters(dq_flag=dq_flag, scan_order=scan_order)
    indices = shift_indices(levels, parameters, TensorChoices())
    encoder = Encoder()
    encoder.tensor(levels, parameters, TensorChoices(shift_indices=indices))
    return len(encoder.finish()), indices


def error(values: Floats, levels: Levels, step: float) -> float:
    return float(((values - levels.astype(np.float64) * step) ** 2).sum())


def size_at(values: Floats, target: float, dq_flag: bool, lambda_scale: float, scan_order: int = 0) -> float:
    """The size at which a quantizer has the error ``target``, between two steps; in two passes if rates count."""
    quantize = native.quantize_dependent if dq_flag else native.quantize_uniform
    points = []
    for exponent in np.arange(-1, 4, 0.25):
        step = float(np.float32(math.sqrt(target / values.size) * 2**exponent))
        levels = quantize(values, step, scan_order, lambda_scale)
        size, indices = coded(levels, dq_flag, scan_order)
        if lambda_scale:
            levels = quantize(values, step, scan_order, lambda_scale, 10, indices)
            size, _ = coded(levels, dq_flag, scan_order)
        points.append((error(values, levels, step), size))
    errors, sizes = np.array(sorted(points)).T
    assert errors[0] < target < errors[-1]
    return float(np.exp(np.interp(math.log(target), np.log(errors), np.log(sizes))))


@pytest.mark.parametrize(
    ("dq_flag", "scan_order", "decibels", "percent"),
    [(True, 0, 25, 0.5), (True, 0, 15, 2), (True, 2, 15, 1), (False, 0, 25, 0.2), (False, 0, 15, 1)],
)
def test_weighing_bits_saves_some_at_the_same_error(
    dq_flag: bool, scan_order: int, decibels: float, percent: float
) -> None:
    values = weights(3)
    target = float((values.astype(np.float64) ** 2).sum()) / 10 ** (decibels / 10)
    blind = size_at(values, target, dq_flag, 0.0, scan_order)
    assert size_at(values, target, dq_flag, 0.9, scan_order) < (1 - percent / 100) * blind


@pytest.mark.parametrize("dq_flag", [False, True])
def test_the_more_bits_count_the_smaller_and_the_coarser(dq_flag: bool) -> None:
    values = weights(4)
    quantize = native.quantize_dependent if dq_flag else native.quantize_uniform
    outcomes = [quantize(values, 0.5, 0, lambda_scale) for lambda_scale in (0, 0.3, 1, 3, 10)]
    sizes = [coded(levels, dq_flag)[0] for levels in outcomes]
    errors = [error(values, levels, 0.5) for levels in outcomes]
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert not quantize(values, 0.5, 0, 1e5).any()


def test_the_levels_of_a_rate_aware_search_can_be_coded_in_every_scan_order() -> None:
    values = weights(5)[:70, :77]
    for scan_order in range(5):
        levels = native.quantize_dependent(np.ascontiguousarray(values), 0.4, scan_order, 1.0)
        assert coded(levels, True, scan_order)[0] > 0  # or the encoder refuses levels off the lattice
