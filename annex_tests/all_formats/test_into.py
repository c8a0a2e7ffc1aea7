"""Weights that go into an existing model: all of them, those too that are too small to be coded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
import safetensors.numpy
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import nnc_adapters

Arrays = Mapping[str, NDArray[Any]]
SMALL = {"bias": (10,), "scale": ()}


def arrays(seed: int) -> dict[str, NDArray[Any]]:
    random = np.random.default_rng(seed)
    shapes = {"weight": (10, 64), **SMALL}
    return {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}


def save_hdf5(tensors: Arrays, path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, array in tensors.items():
            file[name] = array


def save_onnx(tensors: Arrays, path: Path) -> None:
    nodes = [
        helper.make_node("Gemm", ["x", "weight", "bias"], ["h"], transB=1),
        helper.make_node("Mul", ["h", "scale"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    weights = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights), ir_version=10), path)


SAVERS: dict[str, Callable[[Any, Path], None]] = {
    "m.safetensors": safetensors.numpy.save_file,
    "m.h5": save_hdf5,
    "m.onnx": save_onnx,
}


@pytest.mark.parametrize("name", SAVERS)
def test_small_tensors_go_into_an_existing_model_with_the_others(tmp_path: Path, name: str) -> None:
    trained, fresh, result = (tmp_path / f"{which}_{name}" for which in ("trained", "fresh", "result"))
    SAVERS[name](arrays(1), trained)
    SAVERS[name](arrays(2), fresh)
    nnc_adapters.compress(trained, tmp_path / "trained.nnr")
    nnc_adapters.decompress(tmp_path / "trained.nnr", result, into=fresh)
    nnc_adapters.compress(result, tmp_path / "result.nnr")
    found = nnc_adapters.load_tensors(tmp_path / "result.nnr")
    assert found.keys() == arrays(1).keys()
    for tensor, array in arrays(1).items():
        np.testing.assert_allclose(found[tensor], array, atol=0 if tensor in SMALL else 0.02)


def test_what_an_optimizer_keeps_stays_that_of_the_existing_model(tmp_path: Path) -> None:
    trained, fresh = ({**arrays(seed), "weight.exp_avg": arrays(seed + 5)["weight"]} for seed in (1, 2))
    safetensors.numpy.save_file(trained, tmp_path / "trained.safetensors")
    safetensors.numpy.save_file(fresh, tmp_path / "fresh.safetensors")
    nnc_adapters.compress(tmp_path / "trained.safetensors", keep_optimizer=False)
    nnc_adapters.decompress(tmp_path / "trained.nnr", tmp_path / "out.safetensors", into=tmp_path / "fresh.safetensors")
    found = safetensors.numpy.load_file(tmp_path / "out.safetensors")
    np.testing.assert_array_equal(found["weight.exp_avg"], fresh["weight.exp_avg"])
    np.testing.assert_array_equal(found["bias"], trained["bias"])
