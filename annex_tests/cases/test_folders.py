"""Folders as hubs, their caches and programs for training leave them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import nnc_adapters
from nnc_adapters.pytorch import PytorchAdapter
from nnc_adapters.shared.paths import files_below
from nnc_core.errors import ModelError

RNG = np.random.default_rng(5)
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 12345\n"
INDEX = "model.safetensors.index.json"


def weights(*names: str) -> bytes:
    """A file of safetensors with matrices of these names."""
    header, data = {}, b""
    for name in names:
        values = RNG.standard_normal((40, 30)).astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": [40, 30], "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


SHARDS = {
    "model-1-of-2.safetensors": weights("a"),
    "model-2-of-2.safetensors": weights("b"),
    INDEX: json.dumps({"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}).encode(),
}
FOLDERS = {
    "weights alone": ({"model.safetensors": weights("w")}, ["w"]),
    "weights and a text": ({"model.safetensors": weights("w"), "README.md": b"# A model"}, ["w"]),
    "an adapter": ({"adapter_config.json": b"{}", "adapter_model.safetensors": weights("w")}, ["w"]),
    "shards and all else": (SHARDS | {"config.json": b"{}", "README.md": b"# A", "code/x.py": b"import x"}, ["a", "b"]),
    "shards that are not there": (
        {"model.safetensors": weights("w"), "pytorch_model.bin.index.json": SHARDS[INDEX]},
        ["w"],
    ),
    "shards of a part": (
        {"model_index.json": b"{}"} | {f"unet/{name}": data for name, data in SHARDS.items()},
        ["unet.a", "unet.b"],
    ),
    "modules": (
        {"modules.json": b"[]", "model.safetensors": weights("w"), "2_Dense/model.safetensors": weights("linear")},
        ["2_Dense.linear", "w"],
    ),
    "arguments of a training": (
        # an object of a class, which no program needs to load the weights
        {"model.safetensors": weights("w"), "training_args.bin": b"\x80\x02cos\nsystem\nU\x01ax\x85R."},
        ["w"],
    ),
}


def made(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_comes_back_with_all_its_files(tmp_path: Path, kind: str) -> None:
    files, names = FOLDERS[kind]
    folder = made(tmp_path / "m", files)
    nnc_adapters.compress(folder, tmp_path / "m.nnr")
    assert sorted(nnc_adapters.load_tensors(tmp_path / "m.nnr")) == names
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out")
    restored = contents(tmp_path / "out")
    assert restored.keys() == files.keys()
    same = {name for name in files if restored[name] == files[name]}
    assert same == {name for name in files if not name.endswith(".safetensors")}


def cache(root: Path, files: dict[str, bytes]) -> Path:
    """The snapshot of a model in the cache of a hub: links to files that are called by what is in them."""
    model = root / "models--someone--something"
    snapshot = model / "snapshots" / "0123abcd"
    (model / "blobs").mkdir(parents=True)
    for number, (name, data) in enumerate(files.items()):
        blob = model / "blobs" / f"{number:040x}"
        blob.write_bytes(data)
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).symlink_to(os.path.relpath(blob, (snapshot / name).parent))
    return snapshot


def test_a_snapshot_in_the_cache_of_a_hub_is_read_with_its_parts(tmp_path: Path) -> None:
    files, names = FOLDERS["modules"]
    snapshot = cache(tmp_path, files)
    nnc_adapters.compress(snapshot, tmp_path / "m.nnr")
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out")
    assert sorted(PytorchAdapter().read(tmp_path / "out").tensors) == names
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()]


def test_in_the_cache_of_a_hub_the_snapshot_is_named(tmp_path: Path) -> None:
    snapshot = cache(tmp_path / "hub", FOLDERS["weights alone"][0])
    with pytest.raises(ModelError, match="name what is meant in it, such as snapshots/0123abcd"):
        nnc_adapters.compress(snapshot.parents[1], tmp_path / "m.nnr")


def test_a_folder_that_was_not_fetched_is_named(tmp_path: Path) -> None:
    folder = made(tmp_path / "m", {"config.json": b"{}", "model.safetensors": POINTER})
    with pytest.raises(ModelError, match=r"model\.safetensors is a Git LFS pointer"):
        nnc_adapters.compress(folder, tmp_path / "m.nnr")


def test_models_in_a_folder_are_named(tmp_path: Path) -> None:
    folder = made(tmp_path / "m", {"hparams.yaml": b"a: 1", "checkpoints/last.safetensors": weights("w")})
    with pytest.raises(ModelError, match=r"a folder without a model; .* such as checkpoints"):
        nnc_adapters.compress(folder, tmp_path / "m.nnr")


@pytest.mark.parametrize("graph", ["saved_model.pb", "graph.nnef", "config.json"])
def test_links_lead_below_the_folder_or_to_where_its_files_lie(tmp_path: Path, graph: str) -> None:
    snapshot = cache(tmp_path, {graph: b"", "below/x": b"1"})
    (snapshot / "again").symlink_to("below")
    assert [name for name, _ in files_below(snapshot, [snapshot / graph])] == [graph, "again/x", "below/x"]
    (snapshot / "below" / "y").symlink_to(__file__)
    with pytest.raises(ModelError, match="link out of the folder"):
        list(files_below(snapshot, [snapshot / graph]))


@pytest.mark.parametrize(("link", "target"), [("circle", "."), ("below/up", ".."), ("self", "self")])
def test_links_in_a_circle_are_refused(tmp_path: Path, link: str, target: str) -> None:
    made(tmp_path, {"x": b"1", "below/y": b"2"})
    (tmp_path / link).symlink_to(target)
    with pytest.raises(ModelError, match=r"a folder that it lies in|a link to nothing"):
        list(files_below(tmp_path))


def test_names_with_and_without_wrappers_fit_an_existing_file(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    state = {"0.weight": torch.randn(32, 24), "0.bias": torch.randn(32)}
    torch.save(state, tmp_path / "m.pt")
    wrapped = {"epoch": 3, "state_dict": {f"module.{name}": torch.zeros_like(t) for name, t in state.items()}}
    torch.save(wrapped, tmp_path / "wrapped.pt")
    nnc_adapters.compress(tmp_path / "m.pt", tmp_path / "m.nnr")
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out.pt", into=tmp_path / "wrapped.pt")
    restored = torch.load(tmp_path / "out.pt", weights_only=True)
    assert restored["epoch"] == 3
    assert torch.allclose(restored["state_dict"]["module.0.weight"], state["0.weight"], atol=0.1)
    nnc_adapters.compress(tmp_path / "out.pt", tmp_path / "n.nnr")
    nnc_adapters.decompress(tmp_path / "n.nnr", tmp_path / "back.pt", into=tmp_path / "m.pt")
    assert torch.allclose(torch.load(tmp_path / "back.pt")["0.weight"], state["0.weight"], atol=0.1)


def test_a_copy_of_a_folder_is_the_same_bitstream(tmp_path: Path) -> None:
    folder = made(tmp_path / "m", FOLDERS["shards and all else"][0])
    shutil.copytree(folder, tmp_path / "copy")
    nnc_adapters.compress(folder, tmp_path / "m.nnr")
    nnc_adapters.compress(tmp_path / "copy", tmp_path / "c.nnr")
    assert (tmp_path / "m.nnr").read_bytes() == (tmp_path / "c.nnr").read_bytes()
