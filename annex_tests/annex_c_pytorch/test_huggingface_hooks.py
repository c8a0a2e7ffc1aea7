"""The hooks for safetensors and transformers, as far as they need neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc_adapters
import nnc_core
from nnc_adapters import huggingface, sharded
from nnc_core import CodingParameters, MissingDependencyError, ModelError

LOSSLESS = CodingParameters(lossless=True)
RNG = np.random.default_rng(4)
ARRAYS = {
    "layer.weight": (RNG.standard_normal((48, 32)) * 0.02).astype(np.float32),
    "layer.bias": np.zeros(5, np.float32),
    "counts": np.arange(300, dtype=np.int64).reshape(3, 100),
    "half": RNG.standard_normal((20, 20)).astype(np.float16),
}


def test_arrays_come_back_with_their_names_types_and_metadata(tmp_path: Path) -> None:
    report = huggingface.save_file(ARRAYS, tmp_path / "w.nnr", {"by": "hand"}, parameters=LOSSLESS)
    assert report.bytes_after == (tmp_path / "w.nnr").stat().st_size
    found = huggingface.load_file(tmp_path / "w.nnr", "np")
    assert list(found) == list(ARRAYS)
    assert all(found[n].dtype == a.dtype and np.array_equal(found[n], a) for n, a in ARRAYS.items())  # type: ignore[attr-defined]
    nnc_adapters.decompress(tmp_path / "w.nnr", tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"] == {"format": "pt", "by": "hand"}


def test_weights_are_quantized_unless_asked_otherwise(tmp_path: Path) -> None:
    huggingface.save_file(ARRAYS, tmp_path / "w.nnr")
    weight = huggingface.load_file(tmp_path / "w.nnr", "np")["layer.weight"]
    assert 0 < np.abs(weight - ARRAYS["layer.weight"]).max() < 0.002
    with nnc_core.open(tmp_path / "w.nnr") as file:
        assert np.array_equal(file.get_tensor("layer.weight"), weight)


def test_an_existing_file_stays_without_force(tmp_path: Path) -> None:
    (tmp_path / "w.nnr").write_text("mine")
    with pytest.raises(FileExistsError):
        huggingface.save_file(ARRAYS, tmp_path / "w.nnr")
    assert (tmp_path / "w.nnr").read_text() == "mine"
    huggingface.save_file(ARRAYS, tmp_path / "w.nnr", force=True)
    assert huggingface.load_file(tmp_path / "w.nnr", "np").keys() == ARRAYS.keys()


def test_what_safetensors_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="safetensors has no place"):
        huggingface.save_file({"text": np.array(["a"])}, tmp_path / "w.nnr")
    with pytest.raises(ValueError, match="expected 'pt' or 'np'"):
        huggingface.load_file(tmp_path / "w.nnr", "jax")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_tensors_of_pytorch_come_back_as_such(torch: Any, tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(20, 30).t(),
        "b": torch.randn(40, 10).to(torch.bfloat16),
        "c": torch.nn.Parameter(torch.randn(3)),
        "d": torch.arange(10),
        "e": torch.randn(32).to(torch.float8_e4m3fn),
    }
    huggingface.save_file(tensors, tmp_path / "w.nnr", parameters=LOSSLESS)
    found = huggingface.load_file(tmp_path / "w.nnr")
    assert {name: tensor.dtype for name, tensor in found.items()} == {n: t.dtype for n, t in tensors.items()}
    assert all(found[name].to(torch.float32).equal(tensors[name].to(torch.float32)) for name in tensors)


class Pretrained:
    """What transformers call a model, as far as the hooks ask."""

    def __init__(self, torch: Any, state: dict[str, Any]) -> None:
        self.torch, self.state = torch, state

    def save_pretrained(self, folder: Path, **options: Any) -> None:
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(options))
        for number, (name, tensor) in enumerate(self.state.items()):
            self.torch.save({name: tensor}, folder / f"pytorch_model-{number}.bin")

    class config_class:  # noqa: N801
        @staticmethod
        def from_pretrained(folder: Path) -> Any:
            return json.loads((folder / "config.json").read_text())

    @classmethod
    def from_pretrained(cls, folder: None, *, config: Any, state_dict: Any, **options: Any) -> Any:
        return config, state_dict, options


def test_models_are_saved_in_shards_and_loaded(torch: Any, tmp_path: Path) -> None:
    state = {"a.weight": torch.randn(20, 30), "b.weight": torch.randn(30, 10), "b.bias": torch.randn(10)}
    huggingface.save_pretrained(Pretrained(torch, state), tmp_path / "m.nnr", parameters=LOSSLESS, size="1GB")
    assert [path.name for path in tmp_path.iterdir()] == ["m.nnr"]
    assert len(sharded.read_index(tmp_path / "m.nnr").shards) == 3
    config, found, options = huggingface.from_pretrained(Pretrained, tmp_path / "m.nnr", dtype="float32")
    assert config == {"size": "1GB"}
    assert options == {"dtype": "float32"}
    assert found.keys() == state.keys()
    assert all(found[name].equal(state[name]) for name in state)


def test_a_model_that_is_not_there_is_looked_for_on_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingDependencyError, match="huggingface_hub"):
        huggingface.from_pretrained(Pretrained, "org/model")
    monkeypatch.chdir(tmp_path)
    huggingface.save_file(ARRAYS, "w.nnr")
    with pytest.raises(ModelError, match=r"no config\.json beside it or in it"):
        huggingface.from_pretrained(Pretrained, "w.nnr")
