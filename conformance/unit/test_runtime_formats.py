"""The formats that the bench compares with: what they take, what they may hold, and that they make good use of it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from conformance.bench.runtime_formats import Floats, gptq, in_groups, q2_k, q3_k, q4_0, q4_k, q8_0

RNG = np.random.default_rng(2)
WEIGHT: Floats = RNG.normal(size=(24, 384)).astype(np.float32)
INPUTS = RNG.normal(size=(2000, 384)) @ (RNG.normal(size=(384, 384)) / 30 + np.diag(np.geomspace(2, 0.1, 384)))
COVARIANCE: NDArray[np.float64] = INPUTS.T @ INPUTS / len(INPUTS)
MEAN_SQUARES = np.diag(COVARIANCE)


def output_error(values: Floats) -> float:
    error = WEIGHT.astype(np.float64) - values
    return float(np.einsum("ri,ij,rj", error, COVARIANCE, error))


@pytest.mark.parametrize(
    ("quantizer", "bits", "most"),
    [(in_groups(32, 4), 4.5, 0.13), (in_groups(128, 4), 4.125, 0.16), (q8_0, 8.5, 0.01), (q4_0, 4.5, 0.12)],
)
def test_rounded_groups_take_what_their_blocks_do(quantizer, bits, most):
    found = quantizer(WEIGHT)
    assert 8 * len(found.data) / WEIGHT.size == 8 * found.size / WEIGHT.size == bits
    assert np.square(found.values - WEIGHT).mean() ** 0.5 < most


def test_rows_of_any_length_can_be_rounded():
    weight = WEIGHT[:5, :27].reshape(5, 3, 3, 3)
    assert in_groups(0, 8)(weight).size == 5 * 27 + 2 * 5
    assert in_groups(32, 4)(weight).size == 68 + 2 * 5
    for quantizer in (in_groups(0, 8), in_groups(32, 4), q8_0, q4_0):
        found = quantizer(weight).values
        assert found.shape == weight.shape
        assert np.square(found - weight).mean() < 0.03


@pytest.mark.parametrize(("quantizer", "bits", "levels"), [(q4_k, 4.5, 16), (q3_k, 3.4375, 8), (q2_k, 2.625, 4)])
def test_blocks_with_quantized_scales_have_no_more_levels_than_they_may(quantizer, bits, levels):
    found = quantizer(WEIGHT, MEAN_SQUARES)
    assert 8 * found.size / WEIGHT.size == bits
    blocks = found.values.reshape(-1, 32 if quantizer is q4_k else 16)
    assert max(len(np.unique(block)) for block in blocks) == levels


@pytest.mark.parametrize("quantizer", [q4_k, q3_k, q2_k])
def test_columns_of_importance_err_less(quantizer):
    importance = RNG.exponential(size=384) ** 2
    errors = [
        float((np.square(quantizer(WEIGHT, known).values - WEIGHT) * importance).sum())
        for known in (importance, np.ones(384))
    ]
    assert errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("bits", [3, 4])
@pytest.mark.parametrize("clipped", [False, True])
def test_gptq_makes_up_for_errors_and_counts_its_groups(bits, clipped):
    found = gptq(WEIGHT, COVARIANCE, bits, damping=0.01, clipped=clipped)
    assert found.size == (bits * WEIGHT.size + (16 + bits) * 24 * 3 + 16 * 384) // 8
    groups = found.values[:, np.argsort(-MEAN_SQUARES, kind="stable")].reshape(-1, 128)
    assert max(len(np.unique(group)) for group in groups) <= 1 << bits
    independent = gptq(WEIGHT, np.diag(MEAN_SQUARES), bits, damping=0.01, clipped=clipped)
    assert output_error(found.values) < 0.5 * output_error(independent.values)
