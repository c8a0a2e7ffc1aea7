"""Single layers of PyTorch, Keras and ONNX with the same weights, by the table of layouts alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnc_adapters.convert.layouts import Framework, layout

Array = NDArray[Any]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def random(*shape: int) -> Array:
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def parts(module: Any, kinds: dict[str, str]) -> list[Array]:
    """The canonical parts of a module's parameters, in order."""
    state = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    return [part for name, kind in kinds.items() for part in layout("pytorch", kind).split(state[name])]


def joined(framework: Framework, kind: str, given: list[Array], shape: tuple[int, ...]) -> Array:
    entry = layout(framework, kind)
    assert [part.shape for part in entry.parts(shape)] == [part.shape for part in given]
    return np.ascontiguousarray(entry.join(given, shape))


def keras_output(layer: Any, kinds: dict[str, slice], given: list[Array], x: Array) -> Array:
    """What a Keras layer computes with ``given``; ``kinds`` are of its weights, each with the parts it takes."""
    layer.build(x.shape)
    shapes = [tuple(weight.shape) for weight in layer.weights]
    weights = (
        joined("tensorflow", kind, given[k], shape) for (kind, k), shape in zip(kinds.items(), shapes, strict=True)
    )
    layer.set_weights(list(weights))
    result: Array = layer(x).numpy()
    return result


@pytest.mark.parametrize(
    ("name", "kind", "shape", "options", "theirs"),
    [
        ("Conv1d", "conv", (2, 3, 9), {}, ("Conv1D", {"filters": 6})),
        ("Conv2d", "conv", (2, 3, 9, 8), {}, ("Conv2D", {"filters": 6})),
        ("Conv2d", "conv", (2, 4, 9, 8), {"groups": 2}, ("Conv2D", {"filters": 6, "groups": 2})),
        ("Conv3d", "conv", (2, 3, 5, 6, 7), {}, ("Conv3D", {"filters": 6})),
        ("ConvTranspose2d", "deconv", (2, 3, 4, 5), {"stride": 2}, ("Conv2DTranspose", {"filters": 6, "strides": 2})),
        ("Conv2d", "depthwise", (2, 3, 9, 8), {"groups": 3}, ("DepthwiseConv2D", {"depth_multiplier": 2})),
    ],
)
def test_a_convolution_is_the_same_in_keras(
    torch: Any,
    keras: Any,
    name: str,
    kind: str,
    shape: tuple[int, ...],
    options: dict[str, Any],
    theirs: tuple[str, dict[str, Any]],
) -> None:
    module, x = getattr(torch.nn, name)(shape[1], 6, 3, **options), random(*shape)
    layer = getattr(keras.layers, theirs[0])(kernel_size=3, **theirs[1])
    given = parts(module, {"weight": kind, "bias": "bias"})
    found = keras_output(layer, {kind: slice(0, 1), "bias": slice(1, 2)}, given, np.moveaxis(x, 1, -1))
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(np.moveaxis(found, -1, 1), expected, atol=1e-5)


PLACES = {"weight_ih_l0": "input", "weight_hh_l0": "state", "bias_ih_l0": "input_bias", "bias_hh_l0": "state_bias"}
CELLS = [("LSTM", "LSTM", "lstm"), ("GRU", "GRU", "gru"), ("RNN", "SimpleRNN", "rnn")]


@pytest.mark.parametrize(("name", "theirs", "cell"), CELLS)
def test_a_recurrent_layer_is_the_same_in_keras(torch: Any, keras: Any, name: str, theirs: str, cell: str) -> None:
    module, x = getattr(torch.nn, name)(5, 6, batch_first=True), random(2, 7, 5)
    given = parts(module, {tensor: f"{cell}.{place}" for tensor, place in PLACES.items()})
    layer = getattr(keras.layers, theirs)(6, return_sequences=True)
    kinds = {f"{cell}.input": slice(0, 1), f"{cell}.state": slice(1, 2), f"{cell}.bias": slice(2, 4)}
    with torch.no_grad():
        expected = module(torch.from_numpy(x))[0].numpy()
    np.testing.assert_allclose(keras_output(layer, kinds, given, x), expected, atol=1e-5)


@pytest.mark.parametrize(("name", "theirs", "cell"), CELLS)
def test_a_bidirectional_recurrent_layer_is_the_same_in_onnx(torch: Any, name: str, theirs: str, cell: str) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    evaluate = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed").InferenceSession
    module, x = getattr(torch.nn, name)(5, 6, bidirectional=True), random(7, 2, 5)
    both = {f"{tensor}{end}": f"{cell}.{place}" for end in ("", "_reverse") for tensor, place in PLACES.items()}
    given, gates = parts(module, both), len(module.weight_ih_l0) // 6
    weights = {
        "W": joined("onnx", f"{cell}.input", given[0::4], (2, gates * 6, 5)),
        "R": joined("onnx", f"{cell}.state", given[1::4], (2, gates * 6, 6)),
        "B": joined("onnx", f"{cell}.bias", [*given[2:4], *given[6:8]], (2, 2 * gates * 6)),
    }
    options = {"linear_before_reset": 1} if name == "GRU" else {}
    node = onnx.helper.make_node(name, ["x", *weights], ["y"], hidden_size=6, direction="bidirectional", **options)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node], "graph", [info("x", 1, x.shape)], [info("y", 1, [7, 2, 2, 6])],
        [onnx.numpy_helper.from_array(array, key) for key, array in weights.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    (found,) = evaluate(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    with torch.no_grad():
        expected = module(torch.from_numpy(x))[0].numpy().reshape(7, 2, 2, 6)
    np.testing.assert_allclose(np.moveaxis(found, 1, 2), expected, atol=1e-5)


def test_an_embedding_and_a_matrix_are_the_same_in_keras(torch: Any, keras: Any) -> None:
    table, matrix = torch.nn.Embedding(9, 4), torch.nn.Linear(4, 3)
    words = np.array([[1, 8, 0]])
    rows = keras_output(
        keras.layers.Embedding(9, 4), {"embedding": slice(0, 1)}, parts(table, {"weight": "embedding"}), words
    )
    given = parts(matrix, {"weight": "dense", "bias": "bias"})
    found = keras_output(keras.layers.Dense(3), {"dense": slice(0, 1), "bias": slice(1, 2)}, given, rows)
    with torch.no_grad():
        np.testing.assert_allclose(found, matrix(table(torch.from_numpy(words))).numpy(), atol=1e-5)
