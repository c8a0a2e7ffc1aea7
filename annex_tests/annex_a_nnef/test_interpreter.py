"""The digits network as NNEF, run by the interpreter of the NNEF tools."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

import nnc_adapters
import nnc_core

nnef = pytest.importorskip("nnef", reason="the package nnef is not installed")


@pytest.fixture(scope="module")
def held_out(digits_nnef):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    path = digits_nnef.SOURCE.with_name("digits_data.py")
    spec = importlib.util.spec_from_file_location("digits_data", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["digits_data"] = module  # named tuples look for their module
    spec.loader.exec_module(module)
    return module.split()[1]


@pytest.fixture(scope="module")
def digits(digits_nnef, held_out, tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "digits"
    digits_nnef.write(folder, images=len(held_out.labels))
    return folder


def test_the_network_says_in_nnef_what_it_says_in_onnx(digits, digits_nnef, held_out, run):
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = onnxruntime.InferenceSession(str(digits_nnef.SOURCE), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"image": held_out.images})[0]
    np.testing.assert_allclose(run(digits, held_out.images), expected, atol=1e-4)


def test_the_decoded_network_computes_with_the_decoded_weights(digits, held_out, run, tmp_path):
    nnc_adapters.compress(digits, tmp_path / "m.nnr")
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out")
    decoded = nnc_core.decode((tmp_path / "m.nnr").read_bytes())
    graph = nnef.load_graph(str(digits))
    for operation in graph.operations:
        if operation.name == "variable":
            name = operation.outputs["output"]
            tensor = graph.tensors[name]
            data = decoded[operation.attribs["label"]]
            graph.tensors[name] = nnef.Tensor(name, tensor.dtype, tensor.shape, data, tensor.quantization)
    nnef.save_graph(graph, str(tmp_path / "expected"))
    outputs = [run(tmp_path / name, held_out.images) for name in ("expected", "out")]
    np.testing.assert_array_equal(*outputs)


def test_the_decoded_network_is_as_accurate_in_a_fraction_of_the_size(digits, held_out, run, tmp_path):
    report = nnc_adapters.compress(digits, tmp_path / "m.nnr")
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out")
    before, after = (
        100 * np.mean(run(folder, held_out.images).argmax(axis=1) == held_out.labels)
        for folder in (digits, tmp_path / "out")
    )
    assert before > 99
    assert after >= before - 0.3
    assert report.percent < 25


def test_every_weight_has_its_role(adapter, digits):
    roles = adapter.read(digits).model_info["parameter_type"]
    assert roles["conv1.weight"] == "conv.weight"
    assert roles["bn2.running_var"] == "bn.var"
    assert roles["hidden.bias"] == "fc.bias"
    assert "out.bias" not in roles  # ten numbers, which are exact


def test_a_network_that_the_nnef_tools_converted_from_onnx_passes_through(adapter, digits_nnef, run, tmp_path):
    pytest.importorskip("nnef_tools", reason="nnef_tools is not installed")
    command = [sys.executable, "-m", "nnef_tools.convert", "--input-format", "onnx", "--output-format", "nnef"]
    command += ["--input-model", digits_nnef.SOURCE, "--output-model", tmp_path / "converted", "--keep-io-names"]
    command += ["--input-shapes", "{'image': (1, 1, 8, 8)}"]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    nnc_adapters.compress(tmp_path / "converted", tmp_path / "m.nnr")
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out")
    image = np.random.default_rng(0).random((1, 1, 8, 8), np.float32)
    np.testing.assert_allclose(run(tmp_path / "out", image), run(tmp_path / "converted", image), atol=0.5)
    assert len(adapter.read(tmp_path / "out").model_info["parameter_type"]) == 15
