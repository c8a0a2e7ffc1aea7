"""The measures of ``nnc verify``."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from nnc_adapters.comparison import TensorComparison, compare, compare_tensor, compare_topology, judge
from nnc_core.nnr_model import ModelInfo, SourceModel, Topology
from nnc_core.tables.code_points import TopologyStorageFormat

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
ARRAYS = st.sampled_from(["f4", "f2", "f8", "i4", "u1", "?"]).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES))


@given(ARRAYS)
def test_an_array_equals_itself_whatever_it_holds(array: NDArray[Any]) -> None:
    result = compare_tensor("t", array, array.copy())
    assert result.exact
    assert result.problem is None
    assert (result.max_abs_error, result.error_to_rms, result.relative_error) == (0, 0, 0)
    assert (result.sqnr_db, result.lost, result.lost_zeros) == (math.inf, 0, 0)


@pytest.mark.parametrize("bits", [np.uint16(0x7C01), np.uint32(0x7F800001), np.uint64(0x7FF0000000000001)])
def test_signalling_nan_are_compared_without_a_warning(bits: Any) -> None:
    array = np.array([bits]).view(f"f{bits.itemsize}")
    assert compare_tensor("t", array, array).exact
    assert compare_tensor("t", array, np.ones_like(array)).problem is not None


def test_errors_are_measured_as_documented() -> None:
    result = compare_tensor("t", np.array([3.0, -4.0]), np.array([3.0, -4.5]))
    assert result.max_abs_error == pytest.approx(0.5)
    assert result.error_to_rms == pytest.approx(0.5 / math.sqrt(12.5))
    assert result.relative_error == pytest.approx(0.125)
    assert result.sqnr_db == pytest.approx(20)
    assert not result.exact


def test_an_error_at_the_end_of_a_large_tensor_is_found() -> None:
    before = np.ones((1 << 20) + 3, np.float32)
    after = before.copy()
    after[-1] = 2
    result = compare_tensor("t", before, after)
    assert result.max_abs_error == 1
    assert result.sqnr_db == pytest.approx(10 * math.log10(before.size))


@pytest.mark.parametrize(
    ("before", "after"), [(1.0, math.nan), (1.0, math.inf), (math.nan, 1.0), (math.inf, -math.inf)]
)
def test_a_value_that_stops_or_starts_being_finite_is_a_problem(before: float, after: float) -> None:
    result = compare_tensor("t", np.array([1.0, before]), np.array([1.0, after]))
    assert result.problem is not None
    assert result.max_abs_error == math.inf


def judged(before: Any, after: Any, model: SourceModel | None = None, **options: Any) -> TensorComparison:
    result = compare_tensor("t", np.asarray(before), np.asarray(after))
    return judge(result, model or SourceModel({}), **options)


def test_integers_must_be_equal() -> None:
    assert judged([1, 2], [1, 3]).problem == "changed, and must not: integers"
    assert judged([1, 2], [1, 2]).problem is None


def test_what_the_model_declares_exact_must_be_equal_and_says_why() -> None:
    model = SourceModel({}, exact={"t": "scale of a quantization"})
    close, same = judged([1.0, 2.0], [1.0, 2.001], model), judged([1.0, 2.0], [1.0, 2.0], model)
    assert close.problem == "changed, and must not: scale of a quantization"
    assert (same.problem, same.exact_because) == (None, "scale of a quantization")


def test_a_tensor_below_the_bound_is_destroyed() -> None:
    before = np.array([3.1, -4.7, 1.3, 0.2])
    assert judged(before, before * 1.05).problem is None
    assert judged(before, before * 1.05, min_sqnr=30).problem == "destroyed: 26.0 dB, less than 30 dB"
    assert str(judged(before, before * 0).problem).startswith("destroyed: 0.0 dB")


def test_zeros_must_stay_zeros() -> None:
    result = judged([0.0, -0.0, 5.3, 1.7, 0.9], [1e-3, 0.0, 5.3, 1.7, 0.9])
    assert result.lost_zeros == 1
    assert result.problem == "1 zeros became non-zero"
    assert judged([-0.0, 5.3, 1.7, 0.9], [0.0, 5.3, 1.7, 0.9]).problem is None


def test_the_share_of_lost_values_counts_what_was_not_zero() -> None:
    assert compare_tensor("t", np.array([0.0, 1e-3, 1.0, 2.0, 3.0]), np.array([0.0, 0.0, 1.0, 2.0, 3.0])).lost == 0.25


def test_relative_errors_are_kept_for_variances_alone() -> None:
    info = ModelInfo(parameter_type={"t": "bn.var"})
    assert judged([1e-3, 5.0], [2e-3, 5.0], SourceModel({}, model_info=info)).relative_error == pytest.approx(1)
    assert judged([1e-3, 5.0], [2e-3, 5.0]).relative_error is None


def test_floats_are_compared_in_the_type_that_the_model_has() -> None:
    assert compare_tensor("t", np.array([1.0], np.float16), np.array([1.0001], np.float32)).exact


def test_other_shapes_missing_and_additional_tensors_are_problems() -> None:
    before = {"a": np.zeros(2), "b": np.zeros(2), "c": np.zeros(2)}
    after = {"a": np.zeros((2, 1)), "b": np.zeros(2), "d": np.zeros(2)}
    problems = {name: compare(name, before, after).problem for name in "abcd"}
    assert problems == {
        "a": "shape (2, 1) instead of (2,)",
        "b": None,
        "c": "missing in the bitstream",
        "d": "not in the original",
    }


def test_a_scalar_may_become_a_tensor_of_one_element_but_of_no_other_shape() -> None:
    assert compare_tensor("t", np.array(2.5), np.array([2.5])).exact
    assert compare_tensor("t", np.array([2.5]), np.array(2.5)).problem == "shape () instead of (1,)"
    assert compare_tensor("t", np.array(2.5), np.array([[2.5]])).problem == "shape (1, 1) instead of ()"


def test_noise_on_a_tensor_of_zeros_is_infinitely_bad() -> None:
    result = compare_tensor("t", np.zeros(3), np.array([0, 1e-9, 0]))
    assert result.sqnr_db == -math.inf
    assert result.error_to_rms == math.inf


def test_topologies_are_compared_as_a_whole() -> None:
    one = Topology(TopologyStorageFormat.NNR_TPL_ONNX, b"1")
    assert compare_topology(one, Topology(TopologyStorageFormat.NNR_TPL_ONNX, b"1")) == "equal"
    assert compare_topology(one, Topology(TopologyStorageFormat.NNR_TPL_NNEF, b"1")) == "different"
    assert compare_topology(one, Topology(TopologyStorageFormat.NNR_TPL_ONNX, b"2")) == "different"
    assert compare_topology(one, None) == "not carried"
