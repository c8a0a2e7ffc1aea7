"""Through the codec and back: only coded values change, and PyTorch runs what comes out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import nnc_adapters
import nnc_core

ROOT = Path(__file__).resolve().parents[2]


def through(path, target=None, **kwargs):
    """Compress and decompress; gives the restored file and the decoded tensors."""
    bitstream = path.with_name("m.nnr")
    nnc_adapters.compress(path, bitstream, force=True)
    report = nnc_adapters.decompress(bitstream, target or path.with_name("restored"), force=True, **kwargs)
    return report.target, nnc_core.decode(bitstream.read_bytes())


def check_archive(path):
    """The checksums of every member are right."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def same_but_coded(torch, before, after, decoded):
    for name, tensor in before.items():
        if name in decoded:
            expected = torch.from_numpy(decoded[name]).reshape(tensor.shape).to(tensor.dtype)
            torch.testing.assert_close(after[name], expected, rtol=0, atol=0)
        else:
            torch.testing.assert_close(after[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_state_dict_loads_and_predicts_as_the_decoded_weights_say(torch, save, network, image, tmp_path, legacy):
    restored, decoded = through(save(network.state_dict(), tmp_path / "m.pt", legacy=legacy))
    state = torch.load(restored, weights_only=True)
    same_but_coded(torch, network.state_dict(), state, decoded)
    assert state._metadata == network.state_dict()._metadata
    network.load_state_dict(state)
    after = network(image)
    expected = {n: torch.from_numpy(decoded[n]) if n in decoded else t for n, t in network.state_dict().items()}
    network.load_state_dict(expected)
    assert torch.equal(after, network(image))
    if not legacy:
        check_archive(restored)


def test_a_checkpoint_of_parallel_training_keeps_everything_but_weights(torch, save, network, tmp_path):
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.randn(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    path = save({"epoch": 7, "model": state, "optimizer": optimizer.state_dict()}, tmp_path / "m.pt")
    restored, decoded = through(path)
    checkpoint = torch.load(restored, weights_only=True)
    assert list(checkpoint) == ["epoch", "model", "optimizer"]
    assert set(decoded) <= set(state)
    same_but_coded(torch, state, checkpoint["model"], decoded)
    for key, entry in optimizer.state_dict()["state"].items():
        for name, tensor in entry.items():
            assert torch.equal(checkpoint["optimizer"]["state"][key][name], tensor)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_what_an_optimizer_keeps_can_be_left_behind(torch, save, network, tmp_path, legacy):
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.5)
    network(torch.randn(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    checkpoint = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7}
    path = save(checkpoint, tmp_path / "m.pt", legacy=legacy)
    kept = nnc_adapters.compress(path, tmp_path / "kept.nnr")
    left = nnc_adapters.compress(path, tmp_path / "left.nnr", keep_optimizer=False)
    assert left.weights == kept.weights
    assert left.bytes_after < kept.bytes_after - 4 * left.weights
    restored = nnc_adapters.decompress(tmp_path / "left.nnr", tmp_path / "restored.pt").target
    decoded = nnc_core.decode((tmp_path / "left.nnr").read_bytes())
    after = torch.load(restored, weights_only=True)
    same_but_coded(torch, checkpoint["model"], after["model"], decoded)
    assert after["optimizer"]["param_groups"] == checkpoint["optimizer"]["param_groups"]
    for key, entry in checkpoint["optimizer"]["state"].items():
        for name, tensor in entry.items():
            expected = torch.zeros_like(tensor) if tensor.shape else tensor
            assert torch.equal(after["optimizer"]["state"][key][name], expected), name
    if not legacy:
        check_archive(restored)
    optimizer.load_state_dict(after["optimizer"])
    optimizer.step()


def test_an_optimizer_is_left_behind_only_where_no_weight_shares_its_storage(torch, save, tmp_path):
    weights = torch.randn(40)
    state = {0: {"same": weights, "part": weights[:20], "own": torch.randn(40), "counts": torch.arange(40)}}
    path = save({"w": weights, "optimizer": {"state": state, "param_groups": []}}, tmp_path / "m.pt")
    nnc_adapters.compress(path, tmp_path / "m.nnr", keep_optimizer=False)
    after = torch.load(nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "r.pt").target, weights_only=True)
    own = after["optimizer"]["state"][0].pop("own")
    assert not own.any()
    assert torch.equal(after["w"], weights)
    for name, tensor in after["optimizer"]["state"][0].items():
        assert torch.equal(tensor, state[0][name]), name


def test_what_was_restored_has_the_topology_of_its_original(torch, save, network, adapter, tmp_path):
    path = save(network.state_dict(), tmp_path / "m.pt")
    restored, decoded = through(path)
    assert decoded
    assert restored.read_bytes() != path.read_bytes()
    assert adapter.read(restored).topology == adapter.read(path).topology


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("how", ["script", "freeze"])
def test_torchscript_runs_with_the_decoded_weights(torch, save, network, image, tmp_path, how):
    made = torch.jit.script(network)
    torch.jit.save(torch.jit.freeze(made) if how == "freeze" else made, tmp_path / "m.pt")
    restored, decoded = through(tmp_path / "m.pt")
    check_archive(restored)
    loaded = torch.jit.load(restored)
    if how == "script":
        same_but_coded(torch, network.state_dict(), loaded.state_dict(), decoded)
        network.load_state_dict(loaded.state_dict())
        assert torch.equal(network(image), loaded(image))
    error = (loaded(image) - torch.jit.load(tmp_path / "m.pt")(image)).abs().max()
    assert 0 < error < 0.3


def test_an_exported_program_runs_with_the_decoded_weights(torch, save, network, image, tmp_path):
    torch.export.save(torch.export.export(network, (image,)), tmp_path / "m.pt2")
    restored, decoded = through(tmp_path / "m.pt2")
    check_archive(restored)
    program = torch.export.load(restored)
    same_but_coded(torch, network.state_dict(), program.state_dict, decoded)
    network.load_state_dict(program.state_dict)
    assert torch.equal(program.module()(image), network(image))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_safetensors_load_with_the_decoded_weights(torch, safetensors, network, tmp_path, dtype):
    state = {name: tensor.to(getattr(torch, dtype)) for name, tensor in network.state_dict().items()}
    state["index"] = torch.arange(1000)
    safetensors.save_file(state, tmp_path / "m.safetensors", metadata={"format": "pt"})
    restored, decoded = through(tmp_path / "m.safetensors")
    same_but_coded(torch, state, safetensors.load_file(restored), decoded)
    np.testing.assert_array_equal(decoded["index"], np.arange(1000))


@pytest.fixture
def shards(torch, safetensors, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    state = {f"l{i}.weight": torch.randn(20, 30) for i in range(4)}
    state["l0.bias"] = torch.randn(20)
    names = {name: f"model-{1 + i // 3:05}-of-00002.safetensors" for i, name in enumerate(state)}
    for shard in sorted(set(names.values())):
        safetensors.save_file({n: state[n] for n in state if names[n] == shard}, folder / shard)
    index = {"metadata": {"total_size": 9680}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text('{"model_type": "small"}')
    (folder / "tokenizer.model").write_bytes(b"\0\1")
    (folder / "notes.bin").write_bytes(b"not a file of weights")
    return folder, state


def test_a_folder_of_shards_becomes_one_again(torch, safetensors, shards, tmp_path, adapter, identical):
    folder, state = shards
    assert adapter.sniff(folder)
    restored, decoded = through(folder, tmp_path / "restored")
    assert {p.name for p in restored.iterdir()} == {p.name for p in folder.iterdir()}
    loaded = {}
    for shard in restored.glob("*.safetensors"):
        loaded |= safetensors.load_file(shard)
    same_but_coded(torch, state, loaded, decoded)
    assert (restored / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert set(decoded) == set(state)
    identical(folder)


def test_an_index_stands_for_its_shards(shards, tmp_path, adapter):
    folder, state = shards
    restored, decoded = through(folder / "model.safetensors.index.json", tmp_path / "restored")
    assert len(list(restored.iterdir())) == 3
    assert adapter.read(restored).tensors.keys() == decoded.keys() == state.keys()


def test_an_index_may_list_pickled_shards(torch, save, tmp_path, adapter, identical):
    folder = tmp_path / "shards"
    folder.mkdir()
    save({"a": torch.randn(20)}, folder / "pytorch_model-1.bin")
    save({"b": torch.randn(20)}, folder / "pytorch_model-2.bin", legacy=True)
    index = {"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert list(identical(folder).tensors) == ["a", "b"]


def test_shards_that_are_links_are_read(shards, tmp_path, adapter):
    folder, state = shards
    cache = tmp_path / "cache"
    cache.mkdir()
    for path in folder.iterdir():
        (cache / path.name).symlink_to(path)
    assert adapter.read(cache).tensors.keys() == state.keys()


def test_weights_go_into_an_existing_folder_of_shards(torch, safetensors, shards, tmp_path):
    folder, state = shards
    (tmp_path / "m.nnr").write_bytes(nnc_core.encode({"l0.weight": np.zeros((20, 30), np.float32)}))
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "new", into=folder)
    first = safetensors.load_file(tmp_path / "new" / "model-00001-of-00002.safetensors")
    assert not first["l0.weight"].any()
    assert torch.equal(first["l1.weight"], state["l1.weight"])


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_weights_go_into_an_existing_file_in_its_data_type(torch, save, tmp_path, legacy):
    state = {"w": torch.randn(20).half(), "small": torch.randn(3), "n": 5, "x": torch.randn(20)}
    path = save({"state_dict": state}, tmp_path / "m.pt", legacy=legacy)
    new = {"w": np.full(20, 1e6, np.float32), "small": np.array([1, 2, 3], np.float32)}
    (tmp_path / "m.nnr").write_bytes(nnc_core.encode(new))
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "new.pt", into=path)
    loaded = torch.load(tmp_path / "new.pt", weights_only=True)["state_dict"]
    assert torch.equal(loaded["w"], torch.full((20,), 65504, dtype=torch.float16))
    torch.testing.assert_close(loaded["small"], torch.tensor([1.0, 2.0, 3.0]), rtol=0, atol=1e-4)
    assert torch.equal(loaded["x"], state["x"])
    assert loaded["n"] == 5


def test_a_tensor_that_an_existing_file_lacks_is_refused(torch, save, tmp_path):
    path = save({"w": torch.randn(20)}, tmp_path / "m.pt")
    (tmp_path / "m.nnr").write_bytes(nnc_core.encode({"v": np.ones(20, np.float32)}))
    with pytest.raises(nnc_core.ModelError, match="no such tensor"):
        nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "new.pt", into=path)


@pytest.mark.parametrize("array", [np.ones(21, np.float32), np.ones(20, np.int32)])
def test_a_tensor_that_does_not_fit_is_refused_and_nothing_is_written(torch, save, adapter, tmp_path, array):
    read = adapter.read(save({"w": torch.randn(20)}, tmp_path / "m.pt"))
    with pytest.raises(nnc_core.ModelError, match="'w'"):
        adapter.write({"w": array}, read.topology, tmp_path / "out.pt")
    with pytest.raises(nnc_core.ModelError, match="'w'"):
        adapter.write({}, read.topology, tmp_path / "out.pt")
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt"]


def test_an_existing_file_is_replaced_only_with_force(torch, save, adapter, tmp_path):
    path = save({"w": torch.randn(20)}, tmp_path / "m.pt")
    read = adapter.read(path)
    (tmp_path / "out.pt").write_text("mine")
    with pytest.raises(FileExistsError):
        adapter.write(read.tensors, read.topology, tmp_path / "out.pt")
    adapter.write(read.tensors, read.topology, tmp_path / "out.pt", force=True)
    assert (tmp_path / "out.pt").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("name", ["ResNet56_CIFAR100.pt", "resnet20_cifar10.th", "mtcnn_rnet.pt"])
def test_real_models_pass_through(torch, identical, shared_models, tmp_path, name):
    if not (shared_models / name).exists():
        pytest.skip(f"{name} is not among the shared models")
    path = tmp_path / name
    path.write_bytes((shared_models / name).read_bytes())
    identical(path)
    restored, decoded = through(path)
    before, after = (torch.load(p, weights_only=True, map_location="cpu") for p in (path, restored))
    if name.endswith(".th"):
        assert list(after) == list(before)
        assert after["best_prec1"] == before["best_prec1"]
        before, after = before["state_dict"], after["state_dict"]
    same_but_coded(torch, before, after, decoded)
    assert path.with_name("m.nnr").stat().st_size < path.stat().st_size / 3


def test_pytorch_is_not_needed_for_files(torch, save, tmp_path):
    path = save({"w": torch.randn(20)}, tmp_path / "m.pt")
    code = (
        "import sys; from pathlib import Path; from nnc_adapters.pytorch import PytorchAdapter as A;"
        "m = A().read(Path('m.pt')); A().write(m.tensors, m.topology, Path('out.pt'));"
        "sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    )
    paths = [str(ROOT), str(ROOT / "adapters"), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "out.pt").read_bytes() == path.read_bytes()


def test_a_pickled_module_is_refused_with_the_way_to_convert_it(torch, save, adapter, network, tmp_path):
    path = save(network, tmp_path / "m.pt")
    with pytest.raises(nnc_core.ModelError, match=r"Sequential, which could run code.*weights_only=False"):
        adapter.read(path)
