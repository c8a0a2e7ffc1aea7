"""The reference quantizers against golden integers, against exhaustive search, and at the edges."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conformance.support.corpus import ModelStep, as_matrix, for_each, model_names, model_steps
from nnc_core.approximator.codebook import reconstruct_codebook
from nnc_core.approximator.reference import collapse, expand, quantize_dependent, quantize_uniform, reconstruct
from nnc_core.approximator.step import step_size

SLOW_FROM = 3000  # elements, for one-by-one loops in Python
REWORKED = ("lambda_scale", "integer_aligned_bitdepth", "codebook_mode", "batch_norm_folding")


def coded_tensors(name: str) -> Iterator[tuple[ModelStep, dict[str, Any]]]:
    for step in model_steps(name):
        for tensor in step.config["tensors"]:
            if f"{tensor['name']}.int" in step.expected:
                yield step, tensor


def quantized_tensors(name: str) -> Iterator[tuple[ModelStep, dict[str, Any]]]:
    """Tensors whose integers are the plain result of quantizing values that are known."""
    for step in model_steps(name):
        quantizer = step.config["encoder"]["quantizer"]
        if not any(quantizer.get(option) for option in REWORKED):
            for tensor in step.config["tensors"]:
                known = {f"{tensor['name']}.orig", f"{tensor['name']}.int"} <= set(step.expected_names)
                if tensor["method"] == "uniform" and known:
                    yield step, tensor


def without_zeros(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """`values` with zeros as small as any, so that they may become a step, as in the corpus; here zeros stay zeros."""
    return np.where(values == 0, np.finfo(np.float32).tiny, values)


@for_each("name", [name for name in model_names() if any(quantized_tensors(name))])
def test_quantizing_the_corpus_gives_its_integers(name: str) -> None:
    for step, tensor in quantized_tensors(name):
        values, expected = (as_matrix(step.expected[f"{tensor['name']}.{kind}"]) for kind in ("orig", "int"))
        if tensor["dq_flag"]:
            found = quantize_dependent(without_zeros(values), tensor["step_size"], tensor["scan_order"])
        else:
            found = quantize_uniform(values, tensor["step_size"])
        np.testing.assert_array_equal(found, expected, err_msg=tensor["name"])


@for_each("name", model_names())
def test_reconstruction_gives_the_values_of_the_corpus(name: str) -> None:
    for step, tensor in coded_tensors(name):
        if tensor["method"] != "integer":
            values = reconstructed(tensor, step.expected[f"{tensor['name']}.int"])
            assert values.dtype == np.float32
            assert hashlib.sha256(values.astype("<f4").tobytes()).hexdigest() == tensor["rec_sha256"], tensor["name"]


def reconstructed(tensor: dict[str, Any], levels: NDArray[np.int32]) -> NDArray[np.float32]:
    if tensor["method"] == "uniform":
        return reconstruct(levels, tensor["step_size"])
    book = tensor["codebook"]
    return reconstruct_codebook(levels, np.array(book["values"], np.int32), book["zero_offset"], tensor["step_size"])


@for_each("name", model_names())
def test_steps_are_those_of_the_corpus(name: str) -> None:
    for step, tensor in coded_tensors(name):
        if tensor.get("step_size") is not None and tensor["method"] != "integer":
            assert step_size(tensor["qp"], step.config["encoder"]["qp_density"]) == tensor["step_size"]


@for_each("name", model_names())
def test_dependent_integers_of_the_corpus_are_on_the_lattice(name: str) -> None:
    for step, tensor in coded_tensors(name):
        levels = as_matrix(step.expected[f"{tensor['name']}.int"])
        if tensor["dq_flag"] and levels.size < SLOW_FROM:
            indices = collapse(levels, tensor["scan_order"])
            np.testing.assert_array_equal(expand(indices, tensor["scan_order"]), levels)


@pytest.mark.parametrize(
    ("qp", "qp_density", "expected"),
    [
        (0, 2, 1.0),
        (4, 2, 2.0),
        (-38, 2, 0.00146484375),
        (-32, 2, 2.0**-8),
        (-75, 2, 1.25 * 2.0**-19),
        (-1, 0, 0.5),
        (1, 3, 1.125),
        (511, 4, 31 * 2.0**27),
    ],
)
def test_step_size_follows_the_quantization_parameter(qp: int, qp_density: int, expected: float) -> None:
    assert step_size(qp, qp_density) == expected


@given(st.integers(-(2**12), 2**12 - 1), st.integers(0, 7))
def test_step_size_is_exact_in_binary32_or_refused(qp: int, qp_density: int) -> None:
    if -126 <= qp >> qp_density <= 127:
        step = step_size(qp, qp_density)
        assert step == float(np.float32(step)) > 0
    else:
        with pytest.raises(ValueError, match="beyond binary32"):
            step_size(qp, qp_density)


def test_a_density_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="qp_density"):
        step_size(0, 8)


def floats(*values: float) -> NDArray[np.float32]:
    return np.array([values], np.float32)


def test_halves_are_rounded_away_from_zero() -> None:
    levels = quantize_uniform(floats(-1.5, -0.5, -0.25, 0.0, 0.25, 0.5, 1.5, 2.5), 1.0)
    assert levels.dtype == np.int32
    assert levels.tolist() == [[-2, -1, 0, 0, 0, 1, 2, 3]]


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 2.0**31, -(2.0**31)])
def test_values_without_an_integer_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="not finite or too large"):
        quantize_uniform(floats(1.0, value), 1.0)
    with pytest.raises(ValueError, match="not finite or too large"):
        quantize_dependent(floats(1.0, value), 1.0)


def test_values_of_another_type_are_refused() -> None:
    with pytest.raises(ValueError, match="expected float32"):
        quantize_uniform(np.zeros((1, 1)), 1.0)  # type: ignore[arg-type]


def squared_error(values: NDArray[np.float32], levels: NDArray[np.int32]) -> float:
    return float(((values.astype(np.float64) - levels) ** 2).sum())


def on_lattice(levels: NDArray[np.int32], scan_order: int) -> bool:
    try:
        collapse(levels, scan_order)
    except ValueError:
        return False
    return True


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3))
def test_no_sequence_on_the_lattice_is_closer_than_the_trellis_result(values: list[float]) -> None:
    array = floats(*values)
    found = quantize_dependent(array, 1.0)
    candidates = (np.array([levels], np.int32) for levels in itertools.product(range(-5, 6), repeat=3))
    least = min(squared_error(array, levels) for levels in candidates if on_lattice(levels, 0))
    assert on_lattice(found, 0)
    assert squared_error(array, found) == least


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=2), st.integers(0, 2))
def test_no_sequence_that_keeps_a_zero_is_closer_than_the_trellis_result(values: list[float], place: int) -> None:
    array = floats(*values[:place], 0.0, *values[place:])
    found = quantize_dependent(array, 1.0)
    candidates = (np.array([levels], np.int32) for levels in itertools.product(range(-5, 6), repeat=3))
    kept = (levels for levels in candidates if not levels[array == 0].any() and on_lattice(levels, 0))
    assert on_lattice(found, 0)
    assert not found[array == 0].any()
    assert squared_error(array, found) == min(squared_error(array, levels) for levels in kept)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_collapse_undoes_expand(rows: int, width: int, scan_order: int, seed: int) -> None:
    indices = np.random.default_rng(seed).integers(-4, 5, (rows, width), np.int32)
    np.testing.assert_array_equal(collapse(expand(indices, scan_order), scan_order), indices)


def test_an_index_whose_level_exceeds_32_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit 32 bits"):
        expand(np.array([[2**30]], np.int32))


def test_an_index_outside_the_codebook_is_refused() -> None:
    book = np.array([-4, 0, 9], np.int32)
    indices = np.array([-1, 0, 1], np.int32)
    assert reconstruct_codebook(indices, book, 1, 0.5).tolist() == [-2.0, 0.0, 4.5]
    for wrong in (-2, 2):
        with pytest.raises(ValueError, match="codebook of 3 entries"):
            reconstruct_codebook(np.array([wrong], np.int32), book, 1, 0.5)
