"""ONNX models as practitioners have them: weights of any operator, external data, reported files."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper

import nnc_adapters
from annex_tests.support.onnx_models import Read, arrays, case, floats, model_of, node, outputs, sqnr
from annex_tests.support.program import checked
from conformance.support.shared import SHARED
from nnc_adapters.base import Options
from nnc_adapters.onnx import OnnxAdapter
from nnc_core.errors import ModelError


@pytest.mark.parametrize("domain", ["com.microsoft", "com.example"])
@pytest.mark.parametrize("kind", ["FusedMatMul", "Attention", "Whatever"])
def test_weights_of_operators_outside_the_standard_are_coded_as_weights(tmp_path: Path, kind: str, domain: str) -> None:
    onnx.save(model_of([node(kind, ["x", "w"], ["y"], domain=domain)], {"w": floats(64, 64)}), tmp_path / "m.onnx")
    onnx.save(model_of([node("MatMul", ["x", "w"], ["y"])], {"w": floats(64, 64)}), tmp_path / "standard.onnx")
    sizes = [nnc_adapters.compress(tmp_path / f"{name}.onnx").bytes_after for name in ("m", "standard")]
    assert sizes[0] < sizes[1] + 200


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_models_that_onnxruntime_has_optimized_are_as_small_as_before(tmp_path: Path, level: str) -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v", "a"], ["d"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["d", "gamma", "beta", "mean", "variance"], ["u"]),
        node("Relu", ["u"], ["q"]),
        node("ReduceMean", ["q", "axes"], ["m"], keepdims=0),
        node("Gemm", ["m", "g", "o"], ["h"], transB=1),
        node("Relu", ["h"], ["k"]),
        node("Transpose", ["k"], ["t"], perm=[1, 0]),
        node("MatMul", ["p", "t"], ["y"]),
    ]
    tensors = {
        "w": floats(32, 16, 3, 3),
        "b": floats(32),
        "v": floats(32, 32, 3, 3),
        "a": floats(32),
        **{name: np.abs(floats(32)) for name in ("gamma", "beta", "mean", "variance")},
        "g": floats(64, 32),
        "o": floats(64),
        "p": floats(64, 64),
        "axes": np.array([2, 3]),
    }
    model = model_of(nodes, tensors)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 8, 8]))
    onnx.save(model, tmp_path / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), options, providers=["CPUExecutionProvider"])
    before, after = (nnc_adapters.compress(tmp_path / f"{name}.onnx").percent for name in ("m", "optimized"))
    assert after < before + 2


def test_documentation_is_left_behind_on_request_only(tmp_path: Path) -> None:
    model = model_of([node("MatMul", ["x", "w"], ["y"], doc_string="d" * 999)], {"w": floats(64, 64)})
    model.graph.node[0].metadata_props.add(key="stack_trace", value="s" * 999)
    model.graph.initializer[0].doc_string = "i" * 999
    model.metadata_props.add(key="classes", value="cat, dog")
    onnx.save(model, tmp_path / "m.onnx")
    kept, stripped = (OnnxAdapter().read(tmp_path / "m.onnx", Options(strip_debug=strip)) for strip in (False, True))
    assert kept.topology is not None
    assert stripped.topology is not None
    assert len(kept.topology.data) - len(stripped.topology.data) > 2997
    assert not kept.remarks
    assert "of documentation and metadata of nodes were dropped" in stripped.remarks[0]
    assert b"cat, dog" in stripped.topology.data
    checked("compress", tmp_path / "m.onnx", "--strip-debug")
    checked("verify", tmp_path / "m.onnx", tmp_path / "m.nnr", "--strip-debug")


def in_file(name: str, location: str, dims: Sequence[int], offset: int | None = None) -> TensorProto:
    tensor = TensorProto(name=name, data_type=1, dims=dims, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    if offset is not None:
        tensor.external_data.add(key="offset", value=str(offset))
    return tensor


def test_external_data_in_a_file_called_nnr_is_not_a_stub(tmp_path: Path, restored: Callable[..., Path]) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "c"], ["y"])]
    model = model_of(nodes, {"w": floats(64, 64)})
    model.graph.initializer.append(in_file("c", "nnr", [1]))
    (tmp_path / "nnr").write_bytes(np.float32(0.7).tobytes())
    assert arrays(restored(model))["c"] == np.float32(0.7)


def test_tensors_that_share_bytes_of_a_file_are_coded_once_and_share_them_again(
    tmp_path: Path, restored: Callable[..., Path]
) -> None:
    nodes = [node("Gather", ["e", "n"], ["g"]), node("MatMul", ["g", "f"], ["y"])]
    model = model_of(nodes, {})
    model.graph.initializer.extend([in_file("e", "w.bin", [512, 64]), in_file("f", "w.bin", [64, 512], 0)])
    (tmp_path / "w.bin").write_bytes(floats(512, 64).tobytes())
    onnx.save(model, tmp_path / "source.onnx")
    report = nnc_adapters.compress(tmp_path / "source.onnx")
    assert report.tensors == 1
    assert report.bytes_before == pytest.approx(512 * 64 * 4, rel=0.01)
    back = restored(model)
    places = [
        {e.key: e.value for e in t.external_data} for t in onnx.load(back, load_external_data=False).graph.initializer
    ]
    assert places[0] == places[1]
    assert sum(path.stat().st_size for path in back.parent.iterdir()) < 1.1 * 512 * 64 * 4
    found = arrays(back)
    np.testing.assert_array_equal(found["e"].reshape(-1), found["f"].reshape(-1))


def test_what_one_of_them_needs_holds_for_all_that_share_bytes(tmp_path: Path, read: Read) -> None:
    model = model_of([node("MatMul", ["x", "e"], ["h"]), node("Div", ["h", "f"], ["y"])], {})
    model.graph.initializer.extend([in_file("e", "w.bin", [64, 64]), in_file("f", "w.bin", [64, 64])])
    (tmp_path / "w.bin").write_bytes(floats(64, 64).tobytes())
    assert read(model).exact == {"e": "divisor in Div"}


def in_hub_cache(folder: Path, model: ModelProto) -> Path:
    """A model and its data as the cache of a hub has them: links in one folder to files in another."""
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    blobs, snapshot = folder / "hub" / "blobs", folder / "hub" / "snapshots" / "1"
    for path in (blobs, snapshot):
        path.mkdir(parents=True)
    for number, name in enumerate(("m.onnx", "m.onnx.data")):
        (folder / name).rename(blobs / str(number))
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    return snapshot / "m.onnx"


@pytest.mark.skipif(os.name != "posix", reason="links need privileges elsewhere")
def test_external_data_behind_links_lie_beside_the_model_that_is_linked(
    tmp_path: Path, restored: Callable[..., Path]
) -> None:
    weights = {"w": floats(64, 64)}
    path = in_hub_cache(tmp_path, model_of([node("MatMul", ["x", "w"], ["y"])], weights))
    assert sqnr(weights["w"], arrays(restored(path))["w"]) > 30


@pytest.mark.skipif(os.name != "posix", reason="links need privileges elsewhere")
def test_external_data_behind_links_lie_nowhere_else(tmp_path: Path) -> None:
    path = in_hub_cache(tmp_path, model_of([node("MatMul", ["x", "w"], ["y"])], {"w": floats(64, 64)}))
    (tmp_path / "hub" / "blobs" / "1").rename(tmp_path / "secret")
    (path.parent / "m.onnx.data").unlink()
    (path.parent / "m.onnx.data").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="leads out of the model's folder"):
        OnnxAdapter().read(path)


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_compressed_models_are_read_and_written(tmp_path: Path, suffix: str) -> None:
    module: Any = {"gz": gzip, "bz2": bz2, "xz": lzma}[suffix]
    data = model_of([node("MatMul", ["x", "w"], ["y"])], {"w": floats(64, 64)}).SerializeToString()
    (tmp_path / f"m.onnx.{suffix}").write_bytes(module.compress(data))
    checked("compress", tmp_path / f"m.onnx.{suffix}")
    checked("verify", tmp_path / f"m.onnx.{suffix}", tmp_path / "m.nnr")
    checked("decompress", tmp_path / "m.nnr", "-o", tmp_path / f"back.onnx.{suffix}")
    back = module.decompress((tmp_path / f"back.onnx.{suffix}").read_bytes())
    assert len(back) == len(data)
    assert onnx.ModelProto.FromString(back).graph.node == onnx.ModelProto.FromString(data).graph.node


FOLDER = SHARED / "cases" / "onnx"
FILES = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.onnx"))


@pytest.mark.parametrize("name", FILES)
def test_a_case_round_trips_and_is_no_larger_than_deflated(
    tmp_path: Path, restored: Callable[..., Path], name: str
) -> None:
    back = restored(case(name))
    folder = case(name).parent if "/" in name else None
    before = b"".join(p.read_bytes() for p in sorted(folder.iterdir())) if folder else case(name).read_bytes()
    assert (tmp_path / "coded.nnr").stat().st_size <= len(zlib.compress(before, 9)) + 200
    assert arrays(back).keys() == arrays(case(name)).keys()


@pytest.mark.parametrize("name", ["layerscale_1d_1e-6", "mixed_rows", "contrib_fusedmatmul", "sparse_2_4"])
def test_a_case_keeps_every_tensor_at_30_db(restored: Callable[..., Path], name: str) -> None:
    back = arrays(restored(case(f"{name}.onnx")))
    assert all(sqnr(array, back[key]) >= 30 for key, array in arrays(case(f"{name}.onnx")).items())


@pytest.mark.parametrize(
    "name", ["cast_mul_scale", "dequantize_com.microsoft", "eps_vector", "scaler_tiny_1d", "floor_table"]
)
def test_a_case_comes_back_bit_for_bit(restored: Callable[..., Path], name: str) -> None:
    back = arrays(restored(case(f"{name}.onnx")))
    for key, array in arrays(case(f"{name}.onnx")).items():
        np.testing.assert_array_equal(back[key], array, strict=True)


def test_the_angles_of_rotary_embeddings_are_right_at_large_positions(restored: Callable[..., Path]) -> None:
    original = case("rope_inv_freq_3d.onnx")
    feeds = {onnx.load(original).graph.input[0].name: np.arange(4090, 4100).reshape(1, 1, -1)}
    for expected, found in zip(outputs(original, feeds), outputs(restored(original), feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_masks_are_exact_and_small(tmp_path: Path, restored: Callable[..., Path]) -> None:
    mask = arrays(case("mask_neg_inf.onnx"))["m"]
    np.testing.assert_array_equal(arrays(restored(case("mask_neg_inf.onnx")))["m"], mask)
    assert (tmp_path / "coded.nnr").stat().st_size < 0.03 * mask.nbytes


def test_pruned_weights_stay_pruned(restored: Callable[..., Path]) -> None:
    original, back = (arrays(path)["W"] for path in (case("sparse_2_4.onnx"), restored(case("sparse_2_4.onnx"))))
    assert not back[original == 0].any()
