"""The tensors of a bitstream by name: as arrays, as safetensors or npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import nnc_adapters
import nnc_core
from annex_tests.support.program import Nnc

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Weights, a small one, a scalar, a counter, a mask, half precision, and two that are tied."""
    torch.manual_seed(0)
    weight = torch.randn(32, 16)
    state = {
        "w": weight,
        "tied": weight,
        "turned": weight.t(),
        "small": torch.randn(3),
        "scalar": torch.tensor(2.5),
        "counter": torch.tensor(7),
        "mask": torch.tensor([True, False, True]),
        "half": torch.randn(8, 8).half(),
        "brain": torch.randn(8, 8).bfloat16(),
        "empty": torch.empty(0, 4),
    }
    torch.save(state, tmp_path / "model.pt")
    nnc_adapters.compress(tmp_path / "model.pt")
    return tmp_path / "model.nnr"


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found, np.float32), np.asarray(expected, np.float32), atol=0.1)


def test_all_tensors_are_loaded_with_their_shapes_and_types(checkpoint: Path) -> None:
    state = torch.load(checkpoint.with_suffix(".pt"), weights_only=True)
    tensors = nnc_adapters.load_tensors(checkpoint)
    assert list(tensors) == list(state)
    for name, tensor in state.items():
        assert str(tensors[name].dtype) == str(tensor.dtype).removeprefix("torch.")
        assert tensors[name].shape == tuple(tensor.shape)
        close(tensors[name], tensor.float())
    np.testing.assert_array_equal(tensors["tied"], tensors["w"])
    np.testing.assert_array_equal(tensors["turned"], tensors["w"].T)
    np.testing.assert_array_equal(tensors["small"], state["small"].numpy())


def test_small_tensors_of_onnx_are_loaded_too(tmp_path: Path, bitstream: Path) -> None:
    tensors = nnc_adapters.load_tensors(bitstream)
    digits = onnx.load(Path(__file__).parents[2] / "examples" / "digits.onnx").graph.initializer
    assert {t.name for t in digits} <= tensors.keys()
    for tensor in digits:
        close(tensors[tensor.name], numpy_helper.to_array(tensor))
    assert tensors["out.bias"].shape == (10,)
    assert "out.bias" not in nnc_core.decode(bitstream)


def test_a_model_of_another_framework_is_a_state_dict(bitstream: Path) -> None:
    expected = nnc_adapters.load_tensors(bitstream)
    found = nnc_adapters.pytorch.state_dict(bitstream)  # type: ignore[attr-defined]
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor.numpy(), expected[name], strict=True)


@pytest.mark.parametrize("kind", ["FLOAT8E4M3FN", "FLOAT8E5M2", "BFLOAT16", "BOOL", "UINT64"])
@pytest.mark.parametrize("raw", [False, True])
def test_tensors_of_every_type_are_loaded_bit_for_bit(tmp_path: Path, kind: str, raw: bool) -> None:
    data_type = onnx.TensorProto.DataType.Value(kind)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(data_type)
    values = np.random.default_rng(2).integers(0, 2, 12).astype(dtype)
    content = values.tobytes() if raw else values
    tensor = onnx.helper.make_tensor("t", data_type, [3, 4], content, raw)
    node = onnx.helper.make_node("Identity", ["t"], ["y"])
    result = onnx.helper.make_tensor_value_info("y", data_type, [3, 4])
    graph = onnx.helper.make_graph([node], "g", [], [result], [tensor])
    onnx.save(onnx.helper.make_model(graph, producer_name="test"), tmp_path / "m.onnx")
    nnc_adapters.compress(tmp_path / "m.onnx", tmp_path / "m.nnr")
    loaded = nnc_adapters.load_tensors(tmp_path / "m.nnr")["t"]
    assert loaded.dtype == dtype
    assert loaded.tobytes() == values.tobytes()


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_any_model_is_exported_by_the_suffix_of_the_output(checkpoint: Path, nnc: Nnc, suffix: str) -> None:
    target = checkpoint.with_suffix(suffix)
    assert nnc("decompress", checkpoint, "-o", target).exit_code == 0
    found = dict(np.load(target)) if suffix == ".npz" else safetensors.load_file(target)
    expected = nnc_adapters.load_tensors(checkpoint)
    assert list(found) == list(expected)
    for name, array in found.items():
        assert array.shape == expected[name].shape
        np.testing.assert_array_equal(np.asarray(array, np.float32), np.asarray(expected[name], np.float32))
    assert nnc("decompress", checkpoint, "-o", target).exit_code == 5


def test_a_bitstream_without_a_model_is_exported_too(tmp_path: Path, nnc: Nnc) -> None:
    weights = {"w": np.random.default_rng(1).normal(0, 1, (8, 8)).astype(np.float32)}
    (tmp_path / "w.nnr").write_bytes(nnc_core.encode(weights))
    assert nnc("decompress", tmp_path / "w.nnr", "-o", tmp_path / "w.npz").exit_code == 0
    close(np.load(tmp_path / "w.npz")["w"], weights["w"])
    refused = nnc("decompress", tmp_path / "w.nnr", "-o", tmp_path / "w.pt")
    assert refused.exit_code == 5
    assert "--into" in refused.stderr
    assert ".safetensors or .npz" in refused.stderr


@pytest.mark.parametrize("name", ["x.onnx", "x.h5", "x.nnr", "x.pt2", "x.nnef.tgz"])
def test_a_suffix_that_contradicts_the_format_is_refused(checkpoint: Path, nnc: Nnc, name: str) -> None:
    target = checkpoint.with_name(name)
    refused = nnc("decompress", checkpoint, "-o", target)
    assert refused.exit_code == 5
    assert "the suffix contradicts the format" in refused.stderr
    assert "pytorch (.pt)" in refused.stderr
    assert not target.exists()


@pytest.mark.parametrize("name", ["x.pt", "x.pth", "x.ckpt", "x.bin", "x", "x.v2", "x.model"])
def test_a_suffix_that_fits_or_says_nothing_is_taken(checkpoint: Path, nnc: Nnc, name: str) -> None:
    assert nnc("decompress", checkpoint, "-o", checkpoint.with_name(name)).exit_code == 0
    assert torch.load(checkpoint.with_name(name), weights_only=True)["counter"] == 7


def test_a_file_of_safetensors_stays_as_it_is_under_its_own_suffix(tmp_path: Path, nnc: Nnc) -> None:
    source = tmp_path / "m.safetensors"
    safetensors.save_file({"w": np.ones((8, 8), np.float32)}, source, {"by": "somebody"})
    nnc_adapters.compress(source)
    assert nnc("decompress", tmp_path / "m.nnr", "-o", tmp_path / "same.safetensors").exit_code == 0
    assert (tmp_path / "same.safetensors").read_bytes() == source.read_bytes()
    assert nnc("decompress", tmp_path / "m.nnr", "-o", tmp_path / "m.pt").exit_code == 5
