"""Steps from sensitivities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nnc_core.planner.sensitivity import allocate, probe, sensitivity


@pytest.mark.parametrize("shape", [(300,), (20, 30), (8, 4, 3, 3)])
def test_a_probe_is_about_16_db_away(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32) * np.float32(1e-3)
    probed = probe(values)
    assert probed.shape == shape
    assert probed.dtype == np.float32
    decibels = 10 * math.log10(float((values**2).sum() / ((values - probed) ** 2).sum()))
    assert 14 < decibels < 18


def test_a_tensor_of_zeros_has_no_probe_and_no_sensitivity() -> None:
    values = np.zeros((3, 4), np.float32)
    assert not probe(values).any()
    assert sensitivity(0.0, values, probe(values)) == 0


def test_a_sensitivity_is_the_error_of_the_output_over_that_of_the_tensor() -> None:
    values = np.array([1.0, 2.0], np.float32)
    assert sensitivity(3.0, values, np.array([1.0, 1.5], np.float32)) == 12


def test_sixteen_times_the_sensitivity_makes_the_step_finer_by_an_octave_and_a_half() -> None:
    steps = allocate({"a": 16.0, "b": 1.0}, {"a": 100, "b": 100}, 1.0)
    assert steps["b"] == pytest.approx(2**1.5 * steps["a"])
    assert steps["a"] * steps["b"] == pytest.approx(1)


def test_the_mean_step_is_that_over_all_weights() -> None:
    sizes = {"a": 300, "b": 100}
    steps = allocate({"a": 7.0, "b": 0.4}, sizes, 0.02)
    mean = sum(sizes[name] * math.log(steps[name]) for name in sizes) / 400
    assert math.exp(mean) == pytest.approx(0.02)


def test_nothing_is_destroyed_for_seeming_not_to_matter_and_nothing_gilded() -> None:
    steps = allocate({"a": 1.0, "unused": 0.0, "all": 1e12}, {"a": 10**6, "unused": 10, "all": 10}, 1.0)
    assert steps["unused"] == 4
    assert steps["all"] == 1 / 8


def test_no_tensors_have_no_steps() -> None:
    assert allocate({}, {}, 1.0) == {}
