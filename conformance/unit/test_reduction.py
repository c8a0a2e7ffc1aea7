"""Reductions give what was worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnc_core import ModelError
from nnc_core.nnr_model import ModelInfo
from nnc_core.reduction import (
    Reduced,
    importance,
    in_full_shape,
    in_pruned_shape,
    low_displacement_rank,
    low_rank,
    prune_and_sparsify,
    prune_blocks,
    pruning_map,
    sparsification_map,
    sparsify,
    sparsify_rows,
    unification_map,
    unify,
)
from nnc_core.reduction.low_displacement_rank import displaced, restored
from nnc_core.reduction.performance import decomposition_map

Tensors = Mapping[str, NDArray[Any]]


def array(*rows: list[float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32)


# --- sparsification ---------------------------------------------------------------------------------------------------


def test_the_smallest_weights_become_zero_up_to_the_ratio() -> None:
    found = sparsify({"w": array([5, -1, 2], [-4, 3, -6]), "b": array([0.1, 0.2])[0]}, 0.5)
    assert found.parameters["w"].tolist() == [[5, 0, 0], [-4, 0, -6]]
    assert found.sparse["w"].tolist() == [[False, True, True], [False, True, False]]
    assert found.parameters["b"].tolist() == array([0.1, 0.2])[0].tolist()
    assert found.parameters["w"].dtype == np.float32
    assert not found.pruned


def test_of_equal_weights_the_first_become_zero() -> None:
    assert sparsify({"w": array([1, -1, 1, -1])}, 0.5).parameters["w"].tolist() == [[0, 0, 1, -1]]


def test_weights_that_were_zero_count() -> None:
    assert sparsify({"w": array([0, 7, 0, 8])}, 0.5).parameters["w"].tolist() == [[0, 7, 0, 8]]


def test_a_ratio_holds_for_each_tensor_or_for_all_together() -> None:
    model = {"small": array([1, 2]), "large": array([10, 20])}
    assert [each.tolist() for each in sparsify(model, 0.5).parameters.values()] == [[[0, 2]], [[0, 20]]]
    together = sparsify(model, 0.5, together=True).parameters
    assert [each.tolist() for each in together.values()] == [[[0, 0]], [[10, 20]]]


@pytest.mark.parametrize(("ratio", "zeros"), [(0, 0), (1 / 3, 4), (0.9, 11), (1, 12)])
def test_the_number_of_zeros_is_that_of_the_ratio(ratio: float, zeros: int) -> None:
    weight = np.random.default_rng(1).permutation(np.arange(1, 13)).reshape(2, 6).astype(np.float32)
    assert np.count_nonzero(sparsify({"w": weight}, ratio).parameters["w"] == 0) == zeros


def test_rows_of_the_smallest_mean_magnitude_become_zero() -> None:
    weight = array([1, 1, 1], [9, 0, 0], [-2, -2, 0], [0, 5, 5]).reshape(4, 3, 1, 1)
    found = sparsify_rows({"conv": weight}, 0.5)
    assert found.parameters["conv"].reshape(4, 3).tolist() == [[0, 0, 0], [9, 0, 0], [0, 0, 0], [0, 5, 5]]
    assert found.sparse["conv"].shape == (4, 3, 1, 1)


def test_rows_below_a_share_of_the_mean_become_zero() -> None:
    weight = array([1, 1], [4, 4], [7, 7])  # a mean of 4
    assert sparsify_rows({"w": weight}, filter_spars_gain=0.5).parameters["w"].tolist() == [[0, 0], [4, 4], [7, 7]]
    assert sparsify_rows({"w": weight}, filter_spars_gain=1.5).parameters["w"].tolist() == [[0, 0], [0, 0], [7, 7]]
    with pytest.raises(ValueError, match="one of them"):
        sparsify_rows({"w": weight})
    with pytest.raises(ValueError, match="one of them"):
        sparsify_rows({"w": weight}, 0.5, filter_spars_gain=1)


# --- micro-structured pruning and unification -------------------------------------------------------------------------


def test_blocks_of_the_smallest_mean_magnitude_become_zero() -> None:
    weight = array([1, 1, 9, 9, 2], [1, 1, 9, 9, 2], [8, 8, 0, 3, 7])
    found = prune_blocks({"w": weight}, 0.5, (2, 2))
    # Means of blocks: 1, 9, 2 and, at the lower edge, 8, 1.5, 7.
    assert found.parameters["w"].tolist() == [[0, 0, 9, 9, 0], [0, 0, 9, 9, 0], [8, 8, 0, 0, 7]]
    assert np.count_nonzero(found.sparse["w"]) == 8


def test_a_block_may_be_larger_than_the_weight() -> None:
    assert not prune_blocks({"w": array([1, 2])}, 1, (8, 8)).parameters["w"].any()
    with pytest.raises(ValueError, match="blocks of 0 x 4"):
        prune_blocks({"w": array([1, 2])}, 1, (0, 4))


def test_unified_weights_keep_their_signs_and_share_a_magnitude() -> None:
    weight = array([1, -3, 10, 20], [2, -2, -30, 0])
    # Left: mean 2, squared change (1 + 1) / 4 = 0.5. Right: mean of those that are not 0: 20, (100 + 100) / 4 = 50.
    # Mean square of the whole: (1 + 9 + 4 + 4 + 100 + 400 + 900) / 8 = 177.25.
    assert unify({"w": weight}, 0.5 / 177, (2, 2), (2, 4)).parameters["w"].tolist() == [
        [2, -2, 10, 20],
        [2, -2, -30, 0],
    ]
    assert unify({"w": weight}, 50 / 177, (2, 2), (2, 4)).parameters["w"].tolist() == [[2, -2, 20, 20], [2, -2, -20, 0]]
    assert unify({"w": weight}, 0.4 / 177.25, (2, 2), (2, 4)).parameters["w"].tolist() == weight.tolist()


def test_super_blocks_are_multiples_of_blocks() -> None:
    with pytest.raises(ValueError, match="multiples"):
        unify({"w": array([1, 2])}, 0.1, (4, 4), (6, 8))


# --- combined pruning and sparsification ------------------------------------------------------------------------------


def test_the_importance_is_the_equilibrium_of_the_transition_matrix() -> None:
    """The transition matrix by its definition, in plain Python."""
    weight = [[1.0, 0.0, 2.0], [0.5, -1.0, 0.0], [0.0, 0.0, 0.1], [-1.0, 0.0, -2.5]]
    unit = sum(each * each for row in weight for each in row) / 4
    similar = [[abs(sum(a * b for a, b in zip(r, s, strict=True))) / (unit * 0.7) for s in weight] for r in weight]
    exponentials = [[np.exp(each) for each in row] for row in similar]
    transition = [[each / sum(row) for each in row] for row in exponentials]
    s = importance(np.array(weight), 0.7)
    assert s.sum() == pytest.approx(1)
    np.testing.assert_allclose(s @ np.array(transition), s, rtol=1e-12)
    assert np.argsort(s).tolist() == [2, 1, 0, 3]


def test_a_smooth_walk_finds_all_rows_alike() -> None:
    np.testing.assert_allclose(importance(np.diag([1.0, 2, 3]), 1e6), np.full(3, 1 / 3), rtol=1e-4)
    with pytest.raises(ValueError, match="smoothing factor of 0"):
        importance(np.eye(2), 0)


def test_weights_of_any_scale_have_finite_importances() -> None:
    for scale in (1e-30, 1.0, 1e30):
        assert np.isfinite(importance(np.diag([1.0, 2, 3]) * scale, 1e-3)).all()
    assert importance(np.zeros((2, 3))).tolist() == [0.5, 0.5]


def chain() -> tuple[dict[str, NDArray[Any]], ModelInfo]:
    """A convolution of two channels on pictures of two pixels, and a full connection."""
    tensors = {
        "conv": array([0.1], [2]).reshape(2, 1, 1, 1),
        "bias": array([3, 4])[0],
        "fc": array([1, 2, 3, 4], [5, 6, 7, 8]),
    }
    block = {"conv": "first", "bias": "first"}
    return tensors, ModelInfo(
        parameter_type={"conv": "conv.weight", "bias": "conv.bias", "fc": "fc.weight"}, block_identifier=block
    )


def test_what_belongs_to_a_row_is_pruned_with_it() -> None:
    tensors, info = chain()
    found = prune_and_sparsify(tensors, 0.5, model_info=info, inputs={"fc": "conv"})
    assert found.parameters["conv"].ravel().tolist() == [0, 2]
    assert found.parameters["bias"].tolist() == [0, 4]
    assert found.parameters["fc"].tolist() == [[0, 0, 3, 4], [0, 0, 7, 8]]
    small = in_pruned_shape(found.parameters, found.pruned)
    assert small["conv"].tolist() == [[[[2]]]]
    assert small["bias"].tolist() == [4]
    assert small["fc"].tolist() == [[3, 4], [7, 8]]
    for name, whole in in_full_shape(small, found.pruned).items():
        np.testing.assert_array_equal(whole, found.parameters[name])


def test_of_what_is_left_the_least_important_weights_become_zero() -> None:
    """Two rows of length 5 have the same importance, and the last one goes."""
    weight = array([3, 4], [4, -3], [0.1, 0.1])
    found = prune_and_sparsify({"w": weight}, 1 / 3, 0.5)
    assert found.parameters["w"].tolist() == [[0, 4], [4, 0], [0, 0]]
    assert found.pruned["w"].tolist() == [[False, False], [False, False], [True, True]]
    assert found.sparse["w"].tolist() == [[True, False], [False, True], [False, False]]


def test_a_weight_keeps_a_row_whatever_the_ratio() -> None:
    assert np.count_nonzero(prune_and_sparsify({"w": array([1], [2])}, 1).parameters["w"]) == 1


def test_inputs_that_do_not_fit_are_refused() -> None:
    tensors, info = chain()
    tensors["fc"] = array([1, 2, 3])
    with pytest.raises(ModelError, match="cannot have inputs from 2 rows"):
        prune_and_sparsify(tensors, 0.5, model_info=info, inputs={"fc": "conv"})


# --- low rank ---------------------------------------------------------------------------------------------------------


def test_factors_of_a_weight_of_rank_one_make_it_again() -> None:
    weight = np.outer([1, 2, 3, 4], [1, 10, 100]).astype(np.float32).reshape(4, 3, 1)
    found = low_rank({"w": weight, "b": array([1])[0]}, error=1e-9)
    g, h = found.factors["w"]
    assert (g.shape, h.shape) == ((4, 1), (1, 3))
    np.testing.assert_allclose(found.recomposed()["w"], weight, rtol=1e-5)
    assert list(found.parameters) == ["b"]
    assert found.nn_reduction_ratio == pytest.approx(1 - 8 / 13)


def test_weights_stay_where_factors_would_not_be_smaller() -> None:
    found = low_rank({"w": np.eye(4, dtype=np.float32)}, error=1e-9)
    assert not found.factors
    assert found.nn_reduction_ratio == 0


def test_a_toeplitz_matrix_has_two_generators() -> None:
    """A convolution with 1, 2, 1 as a matrix has full rank, but a displacement of rank 2."""
    weight = 2 * np.eye(9) + np.eye(9, k=1) + np.eye(9, k=-1)
    found = low_displacement_rank(weight, rank=2)
    assert found is not None
    g, h = found
    assert (g.shape, h.shape) == ((9, 2), (2, 9))
    np.testing.assert_allclose(restored(g @ h), weight, atol=1e-5)


def test_displacements_of_any_shape_are_restored() -> None:
    for shape in ((1, 1), (1, 5), (5, 1), (3, 7), (7, 3), (4, 2, 3)):
        weight = np.random.default_rng(1).integers(-9, 9, shape).astype(np.float32)
        np.testing.assert_array_equal(restored(displaced(weight)), weight.reshape(len(weight), -1))


# --- performance maps -------------------------------------------------------------------------------------------------


def mean(tensors: Tensors) -> float:
    return float(tensors["w"].mean())


MODEL = {"w": array([1, -2, 3, 4]), "b": array([7])[0]}


def test_a_sparsification_map_says_what_each_threshold_leaves() -> None:
    found = sparsification_map(MODEL, [2, 3.5], mean, lambda tensors: [0.5, float(tensors["w"][0, 3])])
    assert found == {
        "count_thresholds": 2,
        "sparsification_threshold": [2.0, 3.5],
        "non_zero_ratio": [0.75, 0.25],
        "nn_accuracy": [1.25, 1.0],
        "count_classes": [2, 2],
        "class_bitmask": [3, 3],
        "nn_class_accuracy": [[0.5, 4.0], [0.5, 4.0]],
    }


def test_a_pruning_map_counts_pruned_weights_among_all() -> None:
    gone = np.array([[True, False, False, True]])
    found = pruning_map([Reduced({**MODEL, "w": array([0, -2, 3, 0])}, pruned={"w": gone}), Reduced(dict(MODEL))], mean)
    assert found["pruning_ratio"] == [0.4, 0]
    assert found["nn_accuracy"] == [0.25, 1.5]
    assert found["count_classes"] == [0, 0]


def test_a_unification_map_says_how_weights_were_cut_into_blocks() -> None:
    found = unification_map(MODEL, [0.2], mean, block=(1, 2), super_block=(1, 4))
    assert found["reshaped_tensor_dimensions"] == [[1, 4]]
    assert found["super_block_dimensions"] == [[1, 4]]
    assert found["block_dimensions"] == [[1, 2]]
    assert found["unification_threshold"] == [0.2]
    assert found["nn_accuracy"] == [(1.5 - 1.5 + 3.5 + 3.5) / 4]


def test_a_decomposition_map_says_what_is_saved() -> None:
    weight = np.outer([1, 2, 3, 4], [1, 10, 100]).astype(np.float32)
    found = decomposition_map({"w": weight}, [1e-6], lambda tensors: float(tensors["w"][0, 0]))
    assert found["nn_reduction_ratio"] == [pytest.approx(1 - 7 / 12)]
    assert found["nn_accuracy"] == [pytest.approx(1, abs=1e-3)]


# --- what cannot be reduced -------------------------------------------------------------------------------------------

METHODS: list[Callable[[Tensors], object]] = [
    lambda tensors: sparsify(tensors, 0.5),
    lambda tensors: sparsify(tensors, 0.5, together=True),
    lambda tensors: sparsify_rows(tensors, 0.5),
    lambda tensors: prune_blocks(tensors, 0.5),
    lambda tensors: unify(tensors, 0.5),
    lambda tensors: prune_and_sparsify(tensors, 0.5, 0.5),
    lambda tensors: low_rank(tensors, rank=1),
]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_given_stays_as_it_is_and_vectors_and_integers_are_left_alone(method: Callable[[Tensors], Any]) -> None:
    random = np.random.default_rng(1)
    tensors = {"w": random.normal(size=(6, 5, 2)), "b": random.normal(size=6), "i": np.arange(4).reshape(2, 2)}
    before = {name: each.copy() for name, each in tensors.items()}
    found = method(tensors)
    for name, each in before.items():
        np.testing.assert_array_equal(tensors[name], each)
    np.testing.assert_array_equal(found.parameters["b"], before["b"])
    np.testing.assert_array_equal(found.parameters["i"], before["i"])
    again = method(tensors)
    assert all(np.array_equal(each, again.parameters[name]) for name, each in found.parameters.items())


@pytest.mark.parametrize("method", METHODS)
def test_a_model_without_weights_is_nothing_to_reduce(method: Callable[[Tensors], Any]) -> None:
    assert method({}).parameters == {}


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_are_not_finite_are_refused(method: Callable[[Tensors], object]) -> None:
    with pytest.raises(ModelError, match="'w': has values that are not finite"):
        method({"w": array([1, float("nan")])})


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_ratios_lie_between_0_and_1(ratio: float) -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        sparsify({"w": array([1, 2])}, ratio)


def test_a_name_that_cannot_be_reduced_is_refused() -> None:
    for name in ("i", "absent"):
        with pytest.raises(ModelError, match="is not a tensor of floating-point numbers"):
            sparsify({"i": np.arange(4)}, 0.5, names=[name])
