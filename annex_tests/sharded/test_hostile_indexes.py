"""Indexes that lie: nothing is read or written outside the folder, and all end in a typed error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nnc_adapters
from nnc_adapters import sharded
from nnc_core import ModelError

from .conftest import contents

Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    nnc_adapters.compress(checkpoint, tmp_path / "out", sharded=True)
    return tmp_path / "out"


def rewritten(folder: Path, change: Change) -> None:
    index = json.loads((folder / sharded.INDEX).read_text())
    change(index)
    (folder / sharded.INDEX).write_text(json.dumps(index))


CHANGES: dict[str, Change] = {
    "a version that is not known": lambda i: i.update(nnc_index=2),
    "no version": lambda i: i.pop("nnc_index"),
    "no shards": lambda i: i.pop("shards"),
    "shards that are a number": lambda i: i.update(shards=5),
    "a bitstream outside": lambda i: i["shards"][0].update(file="../llama/config.json"),
    "a file that is restored outside": lambda i: i["shards"][0].update(restores="../evil.safetensors"),
    "a file that is restored at the root": lambda i: i["shards"][0].update(restores="/tmp/evil.safetensors"),
    "a kept file outside": lambda i: i["kept"].update({"../../x": i["kept"]["config.json"]}),
    "a file that is restored twice": lambda i: i["shards"][0].update(restores=i["shards"][1]["restores"]),
    "a file that is restored and kept": lambda i: i["shards"][0].update(restores="CONFIG.json"),
    "a digest that is not one": lambda i: i["shards"][0].update(sha256="0" * 63),
    "a size below zero": lambda i: i["shards"][0].update(size=-1),
    "a shape of texts": lambda i: i["shards"][0]["tensors"]["model.layers.0.weight"].update(shape=["x"]),
    "exact that is neither true nor false": lambda i: i["shards"][0].update(exact=1),
    "another place for a tensor": lambda i: i["weight_map"].update({"model.layers.0.weight": "x.nnr"}),
    "a tensor in two places": lambda i: i["shards"][1]["tensors"].update(i["shards"][0]["tensors"]),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_an_index_that_contradicts_itself_is_refused(folder: Path, tmp_path: Path, change: Change) -> None:
    rewritten(folder, change)
    before = contents(tmp_path)
    with pytest.raises(ModelError, match="not an index of bitstreams"):
        nnc_adapters.decompress(folder, tmp_path / "back")
    with pytest.raises(ModelError, match="not an index of bitstreams"):
        sharded.open_sharded(folder)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"nnc_index": 1, "nnc_index": 1}', "[" * 100_000], ids=repr)
def test_what_is_not_an_index_is_refused(folder: Path, text: str) -> None:
    (folder / sharded.INDEX).write_text(text)
    with pytest.raises(ModelError, match="not an index of bitstreams"):
        sharded.read_index(folder)


def test_a_bitstream_that_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    (folder / "model-00003-of-00004.nnr").unlink()
    with pytest.raises(ModelError, match=r"model-00003-of-00004\.nnr: the index lists this file"):
        nnc_adapters.decompress(folder, tmp_path / "back")


def test_a_file_that_is_kept_must_be_what_it_was(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"config\.json: is not the file that the index lists"):
        nnc_adapters.decompress(folder, tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_files_that_claim_to_be_exact_must_be_the_original(folder: Path, tmp_path: Path) -> None:
    rewritten(folder, lambda index: index["shards"][0].update(exact=True))
    with pytest.raises(ModelError, match="not the original"):
        nnc_adapters.decompress(folder, tmp_path / "back")
