"""Every rule of the table of layouts, against arrays made by hand; no framework is involved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnc_adapters.convert.cells import BACKWARD, SumOfBiases
from nnc_adapters.convert.layouts import LAYOUTS, layout
from nnc_adapters.convert.parts import Part

Array = NDArray[Any]


def counted(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def canonical(framework: Any, kind: str, array: Array) -> Array:
    (part,) = layout(framework, kind).split(array)
    return part


@pytest.mark.parametrize("framework", ["pytorch", "onnx", "nnef"])
@pytest.mark.parametrize("kind", ["conv", "deconv", "depthwise"])
def test_kernels_with_filters_first_are_canonical(framework: str, kind: str) -> None:
    kernel = counted(4, 3, 2, 5)
    np.testing.assert_array_equal(canonical(framework, kind, kernel), kernel)


def test_a_keras_kernel_has_space_then_inputs_then_outputs() -> None:
    kernel = counted(2, 5, 3, 4)
    found = canonical("tensorflow", "conv", kernel)
    assert found.shape == (4, 3, 2, 5)
    assert found[3, 1, 0, 4] == kernel[0, 4, 1, 3]


@pytest.mark.parametrize(("shape", "expected"), [((7, 3, 4), (4, 3, 7)), ((2, 5, 6, 3, 4), (4, 3, 2, 5, 6))])
def test_kernels_have_any_number_of_spatial_axes(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert layout("tensorflow", "conv").parts(shape) == [Part("weight", expected)]
    assert canonical("tensorflow", "conv", counted(*shape)).shape == expected


def test_a_transposed_keras_kernel_has_outputs_before_inputs() -> None:
    kernel = counted(2, 5, 3, 4)  # 3 outputs, 4 inputs
    found = canonical("tensorflow", "deconv", kernel)
    assert found.shape == (4, 3, 2, 5)
    assert found[3, 1, 0, 4] == kernel[0, 4, 1, 3]


def test_the_filters_of_one_channel_are_adjacent_in_a_depthwise_kernel() -> None:
    kernel = counted(2, 5, 3, 2)  # 3 channels, 2 filters for each
    found = canonical("tensorflow", "depthwise", kernel)
    assert found.shape == (6, 1, 2, 5)
    for channel in range(3):
        for number in range(2):
            np.testing.assert_array_equal(found[channel * 2 + number, 0], kernel[:, :, channel, number])


def test_matrices_have_outputs_first_but_in_keras_and_where_a_product_takes_them_from_the_right() -> None:
    matrix = counted(3, 4)
    np.testing.assert_array_equal(canonical("pytorch", "dense", matrix), matrix)
    np.testing.assert_array_equal(canonical("onnx", "dense", matrix), matrix)
    for framework, kind in (("tensorflow", "dense"), ("onnx", "dense_input_first"), ("nnef", "dense_input_first")):
        np.testing.assert_array_equal(canonical(framework, kind, matrix), matrix.T)


@pytest.mark.parametrize("framework", LAYOUTS)
def test_embeddings_are_the_same_everywhere(framework: str) -> None:
    table = counted(7, 3)
    np.testing.assert_array_equal(canonical(framework, "embedding", table), table)


@pytest.mark.parametrize("shape", [(4,), (1, 4), (4, 1, 1), (1, 4, 1, 1), ()])
def test_vectors_may_be_surrounded_by_ones(shape: tuple[int, ...]) -> None:
    vector = counted(*shape)
    scale = layout("nnef", "scale")
    (found,) = scale.split(vector)
    assert scale.parts(shape) == [Part("scale", found.shape)]
    assert found.ndim == 1
    np.testing.assert_array_equal(scale.join([found], shape), vector, strict=True)


def test_a_convolution_by_single_positions_is_a_matrix() -> None:
    kernel = counted(1, 1, 3, 4)
    assert layout("tensorflow", "conv").parts((1, 1, 3, 4)) == layout("tensorflow", "dense").parts((3, 4))
    np.testing.assert_array_equal(canonical("tensorflow", "conv", kernel), kernel[0, 0].T)
    np.testing.assert_array_equal(
        layout("pytorch", "conv").join([kernel[0, 0].T], (4, 3, 1, 1))[..., 0, 0], kernel[0, 0].T
    )


def test_the_heads_of_an_attention_layer_are_rows_or_columns() -> None:
    heads = counted(5, 2, 3)  # E, H, D
    found = canonical("tensorflow", "heads", heads)
    assert found[1 * 3 + 2, 4] == heads[4, 1, 2]
    first = canonical("tensorflow", "heads_first", counted(2, 3, 5))  # H, D, E
    assert first[4, 1 * 3 + 2] == counted(2, 3, 5)[1, 2, 4]


def test_queries_keys_and_values_may_be_one_tensor() -> None:
    queries, keys, values = layout("pytorch", "projections").split(counted(6, 4))
    np.testing.assert_array_equal(np.concatenate([queries, keys, values]), counted(6, 4))


def test_tensorflow_lite_has_outputs_first_and_inputs_last() -> None:
    kernel = counted(4, 2, 5, 3)
    assert canonical("tflite", "conv", kernel)[3, 1, 0, 4] == kernel[3, 0, 4, 1]
    rows = counted(1, 2, 5, 6)
    assert canonical("tflite", "depthwise", rows)[4, 0, 1, 2] == rows[0, 1, 2, 4]


H, I = 3, 2  # noqa: E741  the sizes of the standard's formulas
GATES = {"i": 1.0, "f": 2.0, "c": 3.0, "o": 4.0}


def stacked(order: str, columns: int) -> Array:
    """A matrix [4H, columns] with the gates in this order; every gate has its own numbers."""
    return np.concatenate([GATES[gate] * 100 + counted(H, columns) for gate in order])


@pytest.mark.parametrize(("place", "columns"), [("input", I), ("state", H)])
def test_the_gates_of_an_lstm_are_in_three_orders(place: str, columns: int) -> None:
    expected = stacked("ifco", columns)
    np.testing.assert_array_equal(canonical("pytorch", f"lstm.{place}", expected), expected)
    np.testing.assert_array_equal(canonical("tensorflow", f"lstm.{place}", stacked("ifco", columns).T), expected)
    np.testing.assert_array_equal(canonical("onnx", f"lstm.{place}", stacked("iofc", columns)[None]), expected)


def test_an_onnx_lstm_has_a_matrix_for_each_direction() -> None:
    forward, backward = stacked("iofc", I), -stacked("iofc", I)
    entry = layout("onnx", "lstm.input")
    parts = entry.split(np.stack([forward, backward]))
    assert entry.parts((2, 4 * H, I)) == [Part("lstm.input_weight" + end, (4 * H, I)) for end in ("", BACKWARD)]
    np.testing.assert_array_equal(parts[0], stacked("ifco", I))
    np.testing.assert_array_equal(parts[1], -stacked("ifco", I))


def test_an_onnx_lstm_has_both_biases_of_a_direction_in_one_row() -> None:
    rows = [sign * np.concatenate([stacked("iofc", 1), stacked("iofc", 1) + 0.5]).ravel() for sign in (1, -1)]
    parts = layout("onnx", "lstm.bias").split(np.stack(rows))
    expected = stacked("ifco", 1).ravel()
    for found, wanted in zip(parts, [expected, expected + 0.5, -expected, -expected - 0.5], strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_one_bias_of_a_keras_lstm_is_the_sum_of_two() -> None:
    one, other = counted(4 * H), 10 * counted(4 * H)
    np.testing.assert_array_equal(layout("tensorflow", "lstm.bias").join([one, other], (4 * H,)), 11 * counted(4 * H))


def test_the_one_bias_of_a_keras_lstm_goes_to_the_input_and_zeros_to_the_state() -> None:
    bias = stacked("ifco", 1).ravel()
    whole, nothing = layout("tensorflow", "lstm.bias").split(bias)
    np.testing.assert_array_equal(whole, bias)
    np.testing.assert_array_equal(nothing, np.zeros(4 * H))


def test_the_gates_of_a_gru_are_in_two_orders() -> None:
    numbers = {"r": 100, "z": 200, "h": 300}
    pytorch = np.concatenate([numbers[g] + counted(H, I) for g in "rzh"])
    other = np.concatenate([numbers[g] + counted(H, I) for g in "zrh"])
    np.testing.assert_array_equal(canonical("pytorch", "gru.input", pytorch), pytorch)
    np.testing.assert_array_equal(canonical("tensorflow", "gru.input", other.T), pytorch)
    np.testing.assert_array_equal(canonical("onnx", "gru.input", other[None]), pytorch)


def test_a_keras_gru_that_resets_after_the_product_has_two_biases() -> None:
    numbers = {"r": 100, "z": 200, "h": 300}
    rows = [np.concatenate([sign * (numbers[g] + counted(H)) for g in "zrh"]) for sign in (1, -1)]
    first, second = layout("tensorflow", "gru.bias").split(np.stack(rows))
    np.testing.assert_array_equal(first, np.concatenate([numbers[g] + counted(H) for g in "rzh"]))
    np.testing.assert_array_equal(second, -first)


def test_grus_that_reset_at_different_places_have_different_parts() -> None:
    after, before = layout("onnx", "gru.input"), layout("onnx", "gru_reset_before.input")
    assert after.parts((1, 3 * H, I)) != before.parts((1, 3 * H, I))


SHAPES: dict[str, tuple[int, ...]] = {
    "conv": (2, 5, 3, 4),
    "deconv": (2, 5, 3, 4),
    "depthwise": (2, 5, 3, 4),
    "dense": (3, 4),
    "dense_input_first": (3, 4),
    "embedding": (3, 4),
    "other": (3, 4),
    "heads": (5, 2, 3),
    "heads_first": (2, 3, 5),
    "projections": (9, 4),
    "projections_input_first": (4, 9),
    "projection_biases": (9,),
}


def shape_of(framework: str, kind: str, size: int) -> tuple[int, ...]:
    cell, _, place = kind.partition(".")
    if not place:
        return (1, 5, 3, 4) if (framework, kind) == ("tflite", "depthwise") else SHAPES.get(kind, (size,))
    rows = {"lstm": 4, "rnn": 1}.get(cell, 3) * size
    columns = {"input": 5, "state": size}.get(place)
    if columns is not None:
        return {"pytorch": (rows, columns), "tensorflow": (columns, rows), "onnx": (2, rows, columns)}[framework]
    if framework == "onnx":
        return 2, 2 * rows
    return (2, rows) if (framework, cell) == ("tensorflow", "gru") else (rows,)


@pytest.mark.parametrize(("framework", "kind"), [(f, kind) for f, table in LAYOUTS.items() for kind in table])
@given(size=st.integers(1, 4))
def test_what_is_split_is_joined_again_and_has_the_shapes_that_were_announced(
    framework: Any, kind: str, size: int
) -> None:
    entry = layout(framework, kind)
    array = np.random.default_rng(size).standard_normal(shape_of(framework, kind, size)).astype(np.float32)
    parts = entry.split(array)
    assert [part.shape for part in parts] == [part.shape for part in entry.parts(array.shape)]
    np.testing.assert_array_equal(entry.join(parts, array.shape), array, strict=True)


@pytest.mark.parametrize(
    ("framework", "kind", "shape"),
    [
        ("pytorch", "conv", (3, 4)),
        ("tensorflow", "dense", (3,)),
        ("tensorflow", "depthwise", (3, 4)),
        ("onnx", "lstm.input", (3, 8, 2)),
        ("tensorflow", "heads", (3, 4)),
        ("pytorch", "projections", (8, 4)),
        ("tflite", "depthwise", (2, 3, 3, 4)),
        ("pytorch", "lstm.input", (6, 2)),
        ("pytorch", "lstm.input_bias", (6,)),
        ("onnx", "lstm.bias", (8,)),
        ("tensorflow", "gru.bias", (3, 6)),
        ("tensorflow", "lstm.bias", (6,)),
    ],
)
def test_a_shape_that_a_layout_cannot_have_is_refused(framework: Any, kind: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"cannot have|is not that of"):
        layout(framework, kind).parts(shape)


def test_only_keras_sums_biases() -> None:
    summing = {f for f, table in LAYOUTS.items() if any(isinstance(entry, SumOfBiases) for entry in table.values())}
    assert summing == {"tensorflow"}
