"""Whoever does the work, and however many: the same bytes, from one plan for the whole model."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc_adapters
import nnc_core
from nnc_adapters import api, sharded
from nnc_core import CodingParameters, ModelError, ModelPlan, Rule

from .conftest import contents, layer, write_checkpoint, write_safetensors

INDEX = sharded.INDEX


def compressed(source: Path, target: Path, **options: Any) -> dict[str, bytes]:
    nnc_adapters.compress(source, target, sharded=True, **options)
    return contents(target)


def test_processes_and_threads_write_what_one_thread_writes(checkpoint: Path, tmp_path: Path) -> None:
    alone = compressed(checkpoint, tmp_path / "alone", threads=1)
    with ThreadPoolExecutor(3) as pool:
        assert compressed(checkpoint, tmp_path / "threads", executor=pool) == alone
    with sharded.process_executor(2) as pool:
        assert compressed(checkpoint, tmp_path / "processes", executor=pool) == alone
        restored = nnc_adapters.decompress(tmp_path / "processes", tmp_path / "restored", executor=pool)
        assert nnc_adapters.verify(checkpoint, tmp_path / "processes", executor=pool).accepted
    assert restored.tensors == 12
    nnc_adapters.decompress(tmp_path / "alone", tmp_path / "again", threads=1)
    assert contents(tmp_path / "restored") == contents(tmp_path / "again")
    assert contents(tmp_path / "again").keys() == contents(checkpoint).keys()


def test_each_shard_is_planned_as_a_part_of_the_whole_model(checkpoint: Path, tmp_path: Path) -> None:
    plans: list[ModelPlan] = []
    compressed(checkpoint, tmp_path / "out", keep_plan=plans.append)
    whole, _ = api.predict(checkpoint)
    assert {name: plan.qp for name, plan in plans[0].tensors.items()} == {n: p.qp for n, p in whole.tensors.items()}
    alone, _ = api.predict(next(checkpoint.glob("model-00001*")))
    assert any(plan.qp != whole.tensors[name].qp for name, plan in alone.tensors.items())


@pytest.mark.parametrize(
    "targets",
    [{"target_size": "25%"}, {"sqnr": 30.0, "level": 9}, {"bits_per_weight": 5.0}, {"target_size": 12000, "level": 8}],
    ids=str,
)
def test_targets_are_met_by_the_whole_model(checkpoint: Path, tmp_path: Path, targets: dict[str, Any]) -> None:
    parameters = CodingParameters(**targets)
    alone = compressed(checkpoint, tmp_path / "alone", parameters=parameters)
    with ThreadPoolExecutor(2) as pool:
        assert compressed(checkpoint, tmp_path / "pool", parameters=parameters, executor=pool) == alone
    size = sum(len(data) for name, data in alone.items() if name.endswith(".nnr"))
    before = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors"))
    if target := targets.get("target_size"):
        most = before // 4 if target == "25%" else target
        assert 0.97 * most < size <= most
    if "sqnr" in targets:
        report = nnc_adapters.verify(checkpoint, tmp_path / "alone")
        assert report.sqnr_db is not None
        assert 30.0 <= report.sqnr_db < 30.5


def test_what_is_exact_comes_back_to_the_last_byte(checkpoint: Path, tmp_path: Path) -> None:
    compressed(checkpoint, tmp_path / "out", parameters=CodingParameters(lossless=True))
    nnc_adapters.decompress(tmp_path / "out", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(checkpoint)
    assert all(shard.exact for shard in sharded.read_index(tmp_path / "out").shards)


def test_a_shard_learns_from_the_others_what_must_be_exact(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    integers = {"layer.weight": rng.integers(-90, 90, (64, 32)).astype(np.int8)}
    scales = {"layer.scales": rng.random((64, 4)).astype(np.float32), **layer(1)}
    source = write_checkpoint(tmp_path / "quantized", [integers, scales])
    compressed(source, tmp_path / "out")
    with sharded.open_sharded(tmp_path / "out") as file:
        assert np.array_equal(file["layer.scales"], scales["layer.scales"])
    assert nnc_adapters.verify(source, tmp_path / "out").accepted


def test_an_index_of_shards_is_a_model_too(checkpoint: Path, tmp_path: Path) -> None:
    report = nnc_adapters.compress(checkpoint / "model.safetensors.index.json", tmp_path / "out", sharded=True)
    assert report.tensors == 12
    nnc_adapters.decompress(tmp_path / "out" / INDEX, tmp_path / "back")
    expected = {name for name in contents(checkpoint) if name.startswith("model")}
    assert contents(tmp_path / "back").keys() == expected


def test_tensors_of_one_name_in_several_files_are_told_apart(tmp_path: Path) -> None:
    source = tmp_path / "diffusers"
    for name in ("unet", "vae"):
        (source / name).mkdir(parents=True)
        write_safetensors(source / name / "model.safetensors", layer(1))
    (source / "model_index.json").write_text("{}")
    for name in ("ema.safetensors", "model.safetensors"):
        write_safetensors(source / name, layer(2))
    rule = Rule.parse("^unet.*=exact=1")
    compressed(source, tmp_path / "out", parameters=CodingParameters(rules=(rule,)))
    with sharded.open_sharded(tmp_path / "out") as file:
        assert np.array_equal(file["unet.model.layers.1.weight"], layer(1)["model.layers.1.weight"])
        assert not np.array_equal(file["vae.model.layers.1.weight"], layer(1)["model.layers.1.weight"])
        assert {"ema.safetensors.model.layers.2.weight", "model.safetensors.model.layers.2.weight"} < file.keys()
    assert nnc_adapters.verify(source, tmp_path / "out", rules=[rule]).accepted
    nnc_adapters.decompress(tmp_path / "out", tmp_path / "back")
    assert contents(tmp_path / "back").keys() == contents(source).keys()


def test_one_tensor_is_read_without_touching_other_bitstreams(checkpoint: Path, tmp_path: Path) -> None:
    compressed(checkpoint, tmp_path / "out")
    for shard in (tmp_path / "out").glob("model-0000[134]*"):
        shard.unlink()
    with sharded.open_sharded(tmp_path / "out") as file:
        assert len(file) == len(file.tensors) == 12
        name = "model.layers.1.weight"
        assert file.tensors[name].shape == file.get_slice(name).shape == (48, 40)
        assert np.allclose(file[name], layer(1, 0.03)[name], atol=0.01)
        assert np.array_equal(file.get_slice(name)[:2], file.get_tensor(name)[:2])
        with pytest.raises(ModelError, match="not the file that the index lists"):
            file["model.layers.0.weight"]
        with pytest.raises(KeyError):
            file["nothing"]


def test_each_bitstream_restores_its_file_by_itself(checkpoint: Path, tmp_path: Path) -> None:
    compressed(checkpoint, tmp_path / "out")
    nnc_adapters.decompress(tmp_path / "out", tmp_path / "back")
    nnc_adapters.decompress(tmp_path / "out" / "model-00002-of-00004.nnr", tmp_path / "one.safetensors")
    whole = contents(tmp_path / "back")["model-00002-of-00004.safetensors"]
    assert (tmp_path / "one.safetensors").read_bytes() == whole


def test_the_index_says_where_tensors_are_and_what_files_are(checkpoint: Path, tmp_path: Path) -> None:
    files = compressed(checkpoint, tmp_path / "out")
    index = json.loads(files[INDEX])
    assert index["weight_map"]["model.layers.2.weight"] == "model-00003-of-00004.nnr"
    assert index["metadata"]["total_size"] == sum(len(files[shard["file"]]) for shard in index["shards"])
    with nnc_core.open(tmp_path / "out" / "model-00003-of-00004.nnr") as file:
        assert index["shards"][2]["tensors"].keys() == file.keys()
        info = file.tensors["model.layers.2.weight"]
    described = index["shards"][2]["tensors"]["model.layers.2.weight"]
    assert described == {"dtype": info.dtype, "shape": list(info.shape), "size": info.size}
    assert files["config.json"] == b'{"model_type": "none"}'


def test_models_of_one_file_are_not_work_for_several_machines(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nor an index of shards"):
        compressed(next(checkpoint.glob("*.safetensors")), tmp_path / "out")
    with pytest.raises(ModelError, match="not made of files"):
        compressed(Path(__file__).parents[2] / "examples" / "digits.onnx", tmp_path / "out")
    with pytest.raises(ModelError, match="folder that it is made from"):
        compressed(checkpoint, checkpoint / "out")
    assert not list(tmp_path.glob("out*"))
