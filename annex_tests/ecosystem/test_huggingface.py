"""A tiny Llama through transformers: saved, compressed and loaded again, without any network.

Runs in an environment of its own: ``make test-ecosystem``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"

import nnc_adapters
from nnc_adapters import huggingface, sharded
from nnc_core import CodingParameters, ModelError

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (make test-ecosystem does that)"
)
pytestmark = pytest.mark.filterwarnings("ignore")  # those of transformers are not ours

LOSSLESS = CodingParameters(lossless=True)


@pytest.fixture(scope="module")
def llama() -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(3)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.LlamaConfig(vocab_size=128, tie_word_embeddings=True, **sizes)
    return transformers.LlamaForCausalLM(config).eval()


def same(one: Any, other: Any) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and first[name].equal(second[name]) for name in first
    )


def outputs(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(torch.arange(12).reshape(1, 12)).logits


@pytest.fixture(scope="module")
def saved(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("saved") / "llama.nnr"
    huggingface.save_pretrained(llama, target, parameters=LOSSLESS, max_shard_size="100KB")
    return target


def test_a_saved_model_is_a_sharded_one_with_its_configuration(saved: Path) -> None:
    assert len(sharded.read_index(saved).shards) > 2
    assert (saved / "config.json").is_file()
    assert [path.name for path in saved.parent.iterdir()] == ["llama.nnr"]


@pytest.mark.parametrize("name", ["LlamaForCausalLM", "AutoModelForCausalLM"])
def test_a_saved_model_loads_as_it_was(llama: Any, saved: Path, name: str) -> None:
    loaded = huggingface.from_pretrained(getattr(transformers, name), saved)
    assert type(loaded) is type(llama)
    assert same(loaded, llama)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert loaded.generation_config.to_dict() == llama.generation_config.to_dict()


def test_a_quantized_model_answers_alike(llama: Any, tmp_path: Path) -> None:
    huggingface.save_pretrained(llama, tmp_path / "llama.nnr")
    before = outputs(llama)
    after = outputs(huggingface.from_pretrained(transformers.AutoModelForCausalLM, tmp_path / "llama.nnr"))
    assert 0 < float((after - before).norm() / before.norm()) < 0.03


def test_types_are_those_of_the_model(llama: Any, tmp_path: Path) -> None:
    import torch

    half = transformers.LlamaForCausalLM(llama.config).to(torch.bfloat16)
    huggingface.save_pretrained(half, tmp_path / "half.nnr", parameters=LOSSLESS)
    assert same(huggingface.from_pretrained(transformers.AutoModelForCausalLM, tmp_path / "half.nnr"), half)


def test_a_bitstream_beside_its_configuration_or_with_it_will_do(llama: Any, tmp_path: Path) -> None:
    llama.save_pretrained(tmp_path / "llama")
    nnc_adapters.compress(tmp_path / "llama", tmp_path / "whole.nnr", parameters=LOSSLESS)
    assert same(huggingface.from_pretrained(transformers.AutoModelForCausalLM, tmp_path / "whole.nnr"), llama)
    nnc_adapters.compress(tmp_path / "llama" / "model.safetensors", tmp_path / "llama" / "m.nnr", parameters=LOSSLESS)
    (tmp_path / "llama" / "model.safetensors").unlink()
    assert same(huggingface.from_pretrained(transformers.LlamaForCausalLM, tmp_path / "llama"), llama)


def test_the_cache_of_a_hub_will_do(llama: Any, saved: Path, tmp_path: Path) -> None:
    commit = "0123456789" * 4
    repository = tmp_path / "models--org--llama"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    (repository / "blobs").mkdir()
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    for number, file in enumerate(saved.iterdir()):
        blob = repository / "blobs" / f"{number:040d}"
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    loaded = huggingface.from_pretrained(transformers.AutoModelForCausalLM, "org/llama", cache_dir=tmp_path)
    assert same(loaded, llama)


def test_what_is_missing_is_named(llama: Any, tmp_path: Path) -> None:
    llama.config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"has 0 files that end in \.nnr"):
        huggingface.from_pretrained(transformers.AutoModelForCausalLM, tmp_path)


def test_safetensors_of_both_frameworks_are_alike(llama: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = {name: tensor.contiguous().clone() for name, tensor in llama.state_dict().items()}
    save_file(tensors, tmp_path / "theirs.safetensors", {"format": "pt", "by": "hand"})
    huggingface.save_file(tensors, tmp_path / "ours.nnr", {"by": "hand"}, parameters=LOSSLESS)
    found = huggingface.load_file(tmp_path / "ours.nnr")
    assert all(found[name].equal(tensors[name]) for name in tensors)
    nnc_adapters.decompress(tmp_path / "ours.nnr", tmp_path / "back.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert all(back[name].equal(tensors[name]) for name in tensors)
