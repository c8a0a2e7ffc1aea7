"""The native quantizers and reconstruction equal the reference: every integer, every bit, every refusal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnc_core import _native
from nnc_core.approximator import native, reference
from nnc_core.approximator.step import step_size

Floats = NDArray[np.float32]

# Halves and quarters of steps, where quantizers decide; zeros of both signs, denormals, and numbers near the ends.
EDGES = (0.0, -0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 1e-45, 2.0**-126, 2.0**30, 2.0**31 - 128, 2.0**31, 3e38)
steps = st.builds(step_size, st.integers(-120, 60), st.integers(0, 4))
single = st.floats(width=32, allow_nan=False, allow_infinity=False)


@st.composite
def matrices(draw: st.DrawFn) -> tuple[Floats, float]:
    step = draw(steps)
    rows, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.sampled_from([0, 0.01, 0.4, 1, 30, 2**20, 2**31]))
    multiples = rng.normal(size=(rows, width)) * spread
    if draw(st.booleans()):
        multiples = np.rint(2 * multiples) / 2  # ties
    multiples *= rng.random((rows, width)) < draw(st.sampled_from([1, 0.5, 0.1]))  # exact zeros, of both signs
    with np.errstate(over="ignore"):
        values = (multiples * step).astype(np.float32)
    for value in draw(st.lists(st.sampled_from(EDGES) | single, max_size=4)):
        with np.errstate(over="ignore"):
            values[rng.integers(rows), rng.integers(width)] = np.float32(value * step)
    return values, step


def outcome(quantize: object, *arguments: object) -> NDArray[np.int32] | None:
    """The integers, or None where the values are refused."""
    try:
        return quantize(*arguments)  # type: ignore[operator, no-any-return]
    except ValueError:
        return None


def assert_alike(found: NDArray[np.int32] | None, expected: NDArray[np.int32] | None) -> None:
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        np.testing.assert_array_equal(found, expected, strict=True)


@settings(max_examples=300, deadline=None)
@given(matrices())
@example((np.array([[0.5, -0.5, 1.5, -2.5, 0.0, -0.0]], np.float32), 1.0))
def test_uniform_quantization_is_that_of_the_reference(case: tuple[Floats, float]) -> None:
    assert_alike(outcome(native.quantize_uniform, *case), outcome(reference.quantize_uniform, *case))


@settings(max_examples=150, deadline=None)
@given(matrices(), st.integers(0, 4))
@example((np.array([[0.5, -0.5, 1.5, -2.5, 0.0, -0.0]], np.float32), 1.0), 0)
def test_dependent_quantization_is_that_of_the_reference(case: tuple[Floats, float], scan_order: int) -> None:
    found = outcome(native.quantize_dependent, *case, scan_order)
    assert_alike(found, outcome(reference.quantize_dependent, *case, scan_order))


def test_dependent_quantization_is_that_of_the_reference_over_several_rows_of_blocks() -> None:
    rng = np.random.default_rng(5)
    for scan_order, shape in ((1, (19, 21)), (2, (35, 9)), (3, (40, 33)), (4, (70, 3))):
        values = rng.laplace(size=shape).astype(np.float32)
        found = native.quantize_dependent(values, 0.25, scan_order)
        np.testing.assert_array_equal(found, reference.quantize_dependent(values, 0.25, scan_order))


@pytest.fixture(params=["fastest", "portable"])
def kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Once with the instructions of this machine, once with those of all machines."""
    _native.force_portable_kernels(request.param == "portable")
    yield
    _native.force_portable_kernels(False)


@pytest.mark.usefixtures("kernels")
def test_dependent_quantization_is_that_of_the_reference_with_any_instructions() -> None:
    rng = np.random.default_rng(5)
    for values in (rng.laplace(size=(30, 40)), rng.integers(-12, 13, (30, 40)) / 4, rng.normal(size=(9, 70)) * 1e4):
        array = values.astype(np.float32)
        for options in ((0, 0.0), (0, 1.0), (1, 1.0)):
            found = native.quantize_dependent(array, 1.0, *options)
            np.testing.assert_array_equal(found, reference.quantize_dependent(array, 1.0, *options))


@st.composite
def rates(draw: st.DrawFn) -> tuple[int, float, int, list[int] | None]:
    """What a rate-aware quantizer is told: scan order, lambda_scale, cabac_unary_length_minus1, shift indices."""
    unary = draw(st.sampled_from([0, 1, 10, 20]))
    count = 53 + 4 * (unary + 1) + 31
    indices = draw(st.none() | st.lists(st.integers(0, 8), min_size=count, max_size=count))
    return draw(st.integers(0, 4)), draw(st.sampled_from([1e-3, 0.3, 1, 4, 1e5])), unary, indices


@settings(max_examples=60, deadline=None)
@given(matrices(), rates())
def test_rate_aware_quantization_is_that_of_the_reference(
    case: tuple[Floats, float], told: tuple[int, float, int, list[int] | None]
) -> None:
    for name in ("quantize_dependent", "quantize_uniform"):
        found = outcome(getattr(native, name), *case, *told)
        assert_alike(found, outcome(getattr(reference, name), *case, *told))


def test_rate_aware_quantization_is_that_of_the_reference_over_several_rows_of_blocks() -> None:
    rng = np.random.default_rng(6)
    for scan_order, shape in ((1, (19, 21)), (2, (35, 9)), (3, (40, 17)), (4, (70, 3))):
        values = (rng.laplace(size=shape) * (rng.random(shape) < 0.7)).astype(np.float32)
        for name in ("quantize_dependent", "quantize_uniform"):
            found = getattr(native, name)(values, 0.25, scan_order, 1.0)
            np.testing.assert_array_equal(found, getattr(reference, name)(values, 0.25, scan_order, 1.0))
            assert not found[values == 0].any()


@pytest.mark.parametrize("module", [native, reference])
@pytest.mark.parametrize("name", ["quantize_dependent", "quantize_uniform"])
def test_a_rate_aware_quantizer_refuses_what_it_cannot_weigh(module: ModuleType, name: str) -> None:
    quantize, values = getattr(module, name), np.ones((2, 2), np.float32)
    for lambda_scale in (-0.1, 1e6, np.nan, np.inf):
        with pytest.raises(ValueError, match="lambda_scale"):
            quantize(values, 1.0, 0, lambda_scale)
    with pytest.raises(ValueError, match="shift_indices"):
        quantize(values, 1.0, 0, 1.0, 10, [0, 1])
    with pytest.raises(ValueError, match="not finite"):
        quantize(np.array([[np.nan]], np.float32), 1.0, 0, 1.0)


@pytest.mark.parametrize("scan_order", range(5))
def test_dependent_quantization_of_nothing_but_zeros_gives_zeros(scan_order: int) -> None:
    assert not native.quantize_dependent(np.zeros((20, 9), np.float32), 1.0, scan_order).any()


def two_of_four(rng: np.random.Generator) -> Floats:
    groups = rng.laplace(size=(32, 12, 4))
    np.put_along_axis(groups, np.abs(groups).argsort(axis=2)[..., :2], 0, axis=2)
    return groups.reshape(32, 48).astype(np.float32)


def with_empty_rows(rng: np.random.Generator) -> Floats:
    return (rng.laplace(size=(37, 41)) * (rng.random((37, 1)) < 0.5)).astype(np.float32)


def mostly_zeros(rng: np.random.Generator) -> Floats:
    values = rng.laplace(size=(37, 41))
    return np.where(np.abs(values) < np.quantile(np.abs(values), 0.9), -0.0, values).astype(np.float32)


@pytest.mark.parametrize("scan_order", range(5))
@pytest.mark.parametrize("pruned", [two_of_four, with_empty_rows, mostly_zeros])
def test_zeros_stay_zeros_under_dependent_quantization(
    pruned: Callable[[np.random.Generator], Floats], scan_order: int
) -> None:
    values = pruned(np.random.default_rng(7))
    for step in (0.06, 0.5):
        levels = native.quantize_dependent(values, step, scan_order)
        assert not levels[values == 0].any()
        np.testing.assert_array_equal(levels, reference.quantize_dependent(values, step, scan_order))


def test_a_number_next_to_zero_may_become_a_step_where_a_zero_may_not() -> None:
    values = two_of_four(np.random.default_rng(7))
    near = np.where(values == 0, np.finfo(np.float32).tiny, values)
    assert native.quantize_dependent(near, 0.06)[values == 0].any()
    assert not native.quantize_dependent(values, 0.06)[values == 0].any()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(-(2**31) + 1, 2**31 - 1), min_size=1, max_size=30), steps)
def test_reconstruction_is_that_of_the_reference(levels: list[int], step: float) -> None:
    array = np.array(levels, np.int32)
    with np.errstate(over="ignore"):
        expected = reference.reconstruct(array, step).tobytes()
        assert native.reconstruct(array, step).tobytes() == expected
        assert native.reconstruct_in_place(array, step).tobytes() == array.tobytes() == expected


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 2.0**31, -(2.0**31), 3e38])
def test_values_without_an_integer_are_refused(value: float) -> None:
    values = np.array([[1.0, value]], np.float32)
    with pytest.raises(ValueError, match="not finite, or too large"):
        native.quantize_uniform(values, 1.0)
    with pytest.raises(ValueError, match="not finite, or too large"):
        native.quantize_dependent(values, 1.0)


@given(matrices())
@settings(max_examples=100, deadline=None)
def test_no_uniformly_quantized_value_is_further_away_than_half_a_step(case: tuple[Floats, float]) -> None:
    values, step = case
    levels = outcome(native.quantize_uniform, values, step)
    if levels is not None:
        multiples = values.astype(np.float64) / step
        # The multiple is rounded to binary32 before it is rounded to an integer.
        slack = 1e-6 * np.abs(multiples)
        assert np.all(np.abs(multiples - levels) <= 0.5 + slack)
