"""ONNX models compressed for their outputs on calibration inputs: smaller errors, any storage of weights, errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import nnc_adapters
from annex_tests.support.program import nnc
from nnc_adapters.onnx.layers import convolution
from nnc_adapters.shared.calibration import patches
from nnc_core import CodingParameters, LimitError, Limits, MissingDependencyError, ModelError, UnsupportedError

onnxruntime = pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(11)
WEIGHTS: dict[str, NDArray[Any]] = {
    "kernels": RNG.normal(size=(16, 3, 3, 3)),
    "grouped": RNG.normal(size=(16, 8, 3, 3)),
    "inputs_first": RNG.normal(size=(144, 40)),
    "outputs_first": RNG.normal(size=(24, 40)),
    "turned": RNG.normal(size=(10, 24)),
}


def nodes() -> list[Any]:
    return [
        helper.make_node("Conv", ["image", "kernels"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "grouped"], ["c"], strides=[2, 2], group=2),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "inputs_first"], ["e"]),
        helper.make_node("Relu", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "outputs_first"], ["g"], transB=1),
        helper.make_node("Transpose", ["turned"], ["h"], perm=[1, 0]),
        helper.make_node("MatMul", ["g", "h"], ["answer"]),
    ]


def model_file(folder: Path, batch: int | str = "n", kind: int = TensorProto.FLOAT) -> Path:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    initializers = [numpy_helper.from_array((w / w[0].size ** 0.5).astype(dtype), n) for n, w in WEIGHTS.items()]
    image = helper.make_tensor_value_info("image", kind, [batch, 3, 8, 8])
    answer = helper.make_tensor_value_info("answer", kind, [batch, 10])
    graph = helper.make_graph(nodes(), "net", [image], [answer], initializers)
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def images(seed: int, count: int = 96, dtype: str = "float32") -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    smooth = np.kron(rng.normal(size=(count, 3, 4, 4)), np.ones((2, 2)))
    return (smooth + 0.05 * rng.normal(size=smooth.shape)).astype(dtype)


def answers(path: Path) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": images(13)})
    return found


def error_after(path: Path, bitstream: Path) -> float:
    restored = path.with_name("restored.onnx")
    nnc_adapters.decompress(bitstream, restored, force=True)
    return float(np.square(answers(path) - answers(restored)).sum())


@pytest.mark.parametrize("bits", [2.5, 4])
def test_a_calibrated_model_of_the_same_size_errs_much_less(bits: float, tmp_path: Path) -> None:
    path, p = model_file(tmp_path), CodingParameters(bits_per_weight=bits)
    usual, calibrated = tmp_path / "usual.nnr", tmp_path / "calibrated.nnr"
    sizes = [
        nnc_adapters.compress(path, usual, parameters=p).bytes_after,
        nnc_adapters.compress(path, calibrated, parameters=p, calibrate={"image": images(12)}).bytes_after,
    ]
    assert sizes[1] <= 1.01 * sizes[0]
    assert error_after(path, calibrated) < 0.6 * error_after(path, usual)


def test_every_way_of_storing_a_weight_is_calibrated(tmp_path: Path) -> None:
    adapter, path = nnc_adapters.onnx.OnnxAdapter(), model_file(tmp_path)  # type: ignore[attr-defined]
    model = adapter.calibrated(adapter.read(path), path, {"image": images(12, 20)})
    assert {name: (len(i.covariances), i.input_first) for name, i in model.inputs.items()} == {
        "kernels": (1, False),
        "grouped": (2, False),
        "inputs_first": (1, True),
        "outputs_first": (1, False),
        "turned": (1, False),
    }
    assert model.sensitivities.keys() == WEIGHTS.keys()
    assert all(gain > 0 for gain in model.sensitivities.values())


@pytest.mark.parametrize(
    "pads", [{"dilations": [1, 2]}, {"pads": [0, 1, 2, 0]}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}]
)
@pytest.mark.parametrize("strides", [[1, 1], [2, 3]])
def test_kernels_times_patches_make_the_outputs_of_a_convolution(
    pads: dict[str, Any], strides: list[int], tmp_path: Path
) -> None:
    kernels = RNG.normal(size=(6, 2, 3, 2)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=strides, group=2, **pads)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [numpy_helper.from_array(kernels, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "c.onnx")
    x = RNG.normal(size=(2, 4, 9, 8)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(tmp_path / "c.onnx").run(None, {"x": x})
    attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    groups = patches(x, convolution(kernels.shape, x.shape, attributes))
    found = np.concatenate([k.reshape(3, -1) @ p.T for k, p in zip(np.split(kernels, 2), groups, strict=True)])
    np.testing.assert_allclose(found, np.moveaxis(expected, 1, 0).reshape(6, -1), rtol=1e-4, atol=1e-5)


RECURRENT = {"LSTM": (20, {}), "GRU": (15, {"linear_before_reset": 1}), "RNN": (5, {})}


def recurrent_file(folder: Path, kind: str, start: bool, constants: bool) -> Path:
    """A layer of both directions on rows of 6, then a transposed convolution of its last states."""
    rows, attributes = RECURRENT[kind]
    arrays = {
        "w": RNG.normal(size=(2, rows, 6)),
        "r": RNG.normal(size=(2, rows, 5)) / 3,
        "up": RNG.normal(size=(2, 32, 3)),
    }
    tensors = [numpy_helper.from_array(array.astype("float32"), name) for name, array in arrays.items()]
    values = [helper.make_node("Constant", [], [tensor.name], value=tensor) for tensor in tensors if constants]
    inputs = ["x", "w", "r", "", "", "start"] if start else ["x", "w", "r"]
    values.append(helper.make_node(kind, inputs, ["", "last"], hidden_size=5, direction="bidirectional", **attributes))
    values.append(helper.make_node("Transpose", ["last"], ["channels"], perm=[1, 0, 2]))
    values.append(helper.make_node("ConvTranspose", ["channels", "up"], ["y"], strides=[2]))
    declared = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, "n", 6])]
    declared += [helper.make_tensor_value_info("start", TensorProto.FLOAT, [2, "n", 5])] if start else []
    answer = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(values, "g", declared, [answer], [] if constants else tensors)
    path = folder / f"{kind}.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize("start", [False, True])
@pytest.mark.parametrize("kind", RECURRENT)
def test_recurrent_layers_and_transposed_convolutions_are_calibrated(
    kind: str, start: bool, constants: bool, tmp_path: Path
) -> None:
    path, adapter = recurrent_file(tmp_path, kind, start, constants), nnc_adapters.onnx.OnnxAdapter()  # type: ignore[attr-defined]
    before = path.read_bytes()
    x, first = RNG.normal(size=(4, 4, 6)).astype("float32"), RNG.normal(size=(2, 4, 5)).astype("float32")
    given = {"x": x, "start": first} if start else {"x": x}
    found = adapter.calibrated(adapter.read(path), path, given).inputs
    assert path.read_bytes() == before
    assert {name: (len(known.covariances), known.input_first) for name, known in found.items()} == {
        "w": (1, False),
        "r": (2, False),
        "up": (1, True),
    }
    proto = onnx.load(path)
    next(node for node in proto.graph.node if node.op_type == kind).output[0] = "every"
    proto.graph.output.add().name = "every"
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    every, zero = session.run(["every"], given)[0], np.zeros((4, 5), "float32")
    for way, states in enumerate((every[:-1, 0], every[1:, 1])):
        before_each = np.concatenate([[first[way] if start else zero], states]).reshape(-1, 5)
        expected = before_each.T @ before_each / len(before_each)
        np.testing.assert_allclose(found["r"].covariances[way].mean, expected, rtol=1e-4, atol=1e-6)


def test_weights_in_branches_take_steps_from_what_they_do_to_the_outputs(tmp_path: Path) -> None:
    weights = [numpy_helper.from_array(RNG.normal(size=(20, 10)).astype("float32"), name) for name in ("a", "b")]
    branches = {}
    for tensor, place in zip(weights, ("then_branch", "else_branch"), strict=True):
        constant = helper.make_node("Constant", [], [tensor.name], value=tensor)
        product = helper.make_node("MatMul", ["x", tensor.name], [f"{tensor.name}_out"])
        answer = helper.make_tensor_value_info(f"{tensor.name}_out", TensorProto.FLOAT, None)
        nodes, initializers = ([constant, product], []) if tensor.name == "a" else ([product], [tensor])
        branches[place] = helper.make_graph(nodes, place, [], [answer], initializers)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 20])
    which = helper.make_tensor_value_info("which", TensorProto.BOOL, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([helper.make_node("If", ["which"], ["y"], **branches)], "g", [x, which], [y])
    path = tmp_path / "if.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    adapter, given = nnc_adapters.onnx.OnnxAdapter(), {"x": RNG.normal(size=(30, 20)), "which": np.array(True)}  # type: ignore[attr-defined]
    gains = adapter.calibrated(adapter.read(path), path, given).sensitivities
    assert gains["a"] > 0
    assert gains["b"] == 0
    report = nnc_adapters.compress(path, calibrate=given)
    assert (report.calibrated, sorted(report.uncalibrated)) == ((), ["a", "b"])


def test_a_model_without_anything_to_calibrate_says_so(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    proto = onnx.load(path)
    del proto.graph.node[:], proto.graph.initializer[:]
    proto.graph.node.add().CopyFrom(helper.make_node("Flatten", ["image"], ["answer"]))
    onnx.save(proto, path)
    with pytest.raises(ModelError, match="there is nothing to calibrate"):
        nnc_adapters.compress(path, calibrate={"image": images(12, 20)})


def test_outputs_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    with pytest.raises(ModelError, match="are not finite"):
        nnc_adapters.compress(path, calibrate={"image": np.full((4, 3, 8, 8), 3e38, np.float32)})


def test_a_reset_gate_before_the_product_leaves_its_states_unknown(tmp_path: Path) -> None:
    path = recurrent_file(tmp_path, "GRU", False, False)
    proto = onnx.load(path)
    del proto.graph.node[0].attribute[-1]
    assert all(attribute.name != "linear_before_reset" for attribute in proto.graph.node[0].attribute)
    onnx.save(proto, path)
    report = nnc_adapters.compress(path, calibrate={"x": RNG.normal(size=(4, 4, 6)).astype("float32")})
    assert report.calibrated == ("w", "up")
    assert report.uncalibrated == ("r",)


@pytest.mark.parametrize("batch", ["n", 4, 1])
def test_inputs_come_in_batches_that_the_model_takes(batch: int | str, tmp_path: Path) -> None:
    path = model_file(tmp_path, batch)
    nnc_adapters.compress(path, calibrate={"image": images(12, 20)})


def test_half_precision_is_calibrated_too(tmp_path: Path) -> None:
    path = model_file(tmp_path, kind=TensorProto.FLOAT16)
    report = nnc_adapters.compress(path, calibrate={"image": images(12, 20)})
    assert report.bytes_after < 0.5 * report.bytes_before


def test_the_number_of_threads_does_not_show_in_a_calibrated_file(tmp_path: Path) -> None:
    path = model_file(tmp_path)
    for threads in (1, 3):
        nnc_adapters.compress(path, tmp_path / f"{threads}.nnr", calibrate={"image": images(12, 20)}, threads=threads)
    assert (tmp_path / "1.nnr").read_bytes() == (tmp_path / "3.nnr").read_bytes()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "the calibration inputs lack 'image'; the model takes image"),
        ({"image": images(1, 4), "mask": images(1, 4)}, "the calibration inputs have 'mask'; the model takes image"),
        ({"image": images(1, 4)[0]}, r"'image' has shape \(3, 8, 8\), and the model takes \(any, 3, 8, 8\)"),
        ({"image": images(1, 4)[:, :, 1:]}, r"has shape \(4, 3, 7, 8\)"),
        ({"image": images(1, 0)}, "'image' is empty"),
        ({"image": np.full((4, 3, 8, 8), np.nan, np.float32)}, "'image' has values that are not finite"),
        ({"image": np.full((4, 3, 8, 8), "a")}, "'image' has dtype <U1, and the model takes float32"),
        ({"image": np.full((4, 3, 8, 8), 1e300)}, "'image' has values that are not finite"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(inputs: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        nnc_adapters.compress(model_file(tmp_path), calibrate=inputs)
    assert not (tmp_path / "net.nnr").exists()


def test_inputs_must_fill_the_batches_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="10 calibration inputs do not make batches of 4"):
        nnc_adapters.compress(model_file(tmp_path, 4), calibrate={"image": images(1, 10)})


def test_the_command_takes_inputs_from_a_file(tmp_path: Path) -> None:
    path, npz = model_file(tmp_path), tmp_path / "inputs.npz"
    np.savez(npz, image=images(12, 20))
    result = nnc("compress", path, "--calibrate", npz, "--target-size", "12%")
    assert result.exit_code == 0, result.output
    assert "calibrated 5 of 5 weights" in result.output
    nnc_adapters.compress(
        path, tmp_path / "same.nnr", parameters=CodingParameters(target_size="12%"), calibrate={"image": images(12, 20)}
    )
    assert (tmp_path / "net.nnr").read_bytes() == (tmp_path / "same.nnr").read_bytes()
    assert (tmp_path / "net.nnr").stat().st_size <= 0.12 * path.stat().st_size


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\3\4" + bytes(40)])
def test_files_that_are_not_npz_are_refused(content: bytes, tmp_path: Path) -> None:
    npz = tmp_path / "inputs.npz"
    npz.write_bytes(content)
    with pytest.raises(ModelError, match=r"inputs\.npz: not an \.npz file"):
        nnc_adapters.compress(model_file(tmp_path), calibrate=npz)


def test_pickles_in_an_npz_file_are_not_run_and_limits_hold(tmp_path: Path) -> None:
    npz = tmp_path / "inputs.npz"
    np.savez(npz, image=np.array([object()]))
    with pytest.raises(ModelError, match="allow_pickle"):
        nnc_adapters.compress(model_file(tmp_path), calibrate=npz)
    np.savez(npz, image=images(12, 100))
    with pytest.raises(LimitError, match="decoded_bytes"):
        nnc_adapters.compress(model_file(tmp_path), calibrate=npz, limits=Limits(decoded_bytes=70_000))


def test_without_onnxruntime_the_extra_that_brings_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"onnxruntime.*pip install 'nnc-suite\[calibration\]'"):
        nnc_adapters.compress(model_file(tmp_path), calibrate={"image": images(12, 20)})


def test_formats_that_nothing_runs_say_so(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.ones((3, 4), np.float32)}, tmp_path / "m.safetensors")
    with pytest.raises(UnsupportedError, match="pytorch cannot be run to calibrate"):
        nnc_adapters.compress(tmp_path / "m.safetensors", calibrate={"image": images(12, 20)})
