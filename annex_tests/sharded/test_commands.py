"""What is typed for models of several files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from annex_tests.support.program import Nnc
from nnc_adapters import sharded
from nnc_adapters.cli.errors import ExitCode

from .conftest import contents


@pytest.fixture
def folder(checkpoint: Path, nnc: Nnc) -> Path:
    done = nnc("compress", checkpoint, "--sharded")
    assert done.exit_code == 0, done.output
    return checkpoint.with_suffix(".nnr")


def test_a_folder_becomes_a_folder_beside_it_and_back(checkpoint: Path, folder: Path, nnc: Nnc) -> None:
    checkpoint.rename(checkpoint.with_name("original"))
    assert nnc("decompress", folder).exit_code == 0
    assert contents(checkpoint).keys() == contents(checkpoint.with_name("original")).keys()
    assert nnc("verify", checkpoint.with_name("original"), folder).exit_code == 0


def test_options_are_those_of_other_models(checkpoint: Path, nnc: Nnc, tmp_path: Path) -> None:
    plan, target = tmp_path / "plan.json", tmp_path / "small"
    options = ("--sharded", "--target-size", "25%", "--level", 8, "--save-plan", plan, "-o", target, "--json")
    done = nnc("compress", checkpoint, *options)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["tensors"] == 12
    again = nnc("compress", checkpoint, "--sharded", "--plan", plan, "-o", tmp_path / "again")
    assert again.exit_code == 0, again.output
    assert contents(target) == contents(tmp_path / "again")


def test_other_shards_are_not_to_be_looked_at_to_see_what_is_there(folder: Path, nnc: Nnc) -> None:
    for shard in folder.glob("*.nnr"):
        shard.rename(shard.with_suffix(".away"))
    done = nnc("inspect", folder)
    assert done.exit_code == 0, done.output
    assert all(f"model-0000{n}-of-00004.safetensors" in done.stdout for n in (1, 2, 3, 4))
    listed = json.loads(nnc("inspect", folder, "--json").stdout)
    assert listed == json.loads((folder / sharded.INDEX).read_text())


def test_a_tensor_is_found_in_its_shard(folder: Path, nnc: Nnc) -> None:
    done = nnc("inspect", folder / sharded.INDEX, "--tensor", "model.layers.2.weight")
    assert done.exit_code == 0, done.output
    assert "48x40" in done.stdout
    assert nnc("inspect", folder, "--tensor", "nothing").exit_code == ExitCode.USAGE


def test_shards_are_listed_and_tested(folder: Path, nnc: Nnc) -> None:
    assert nnc("-l", folder).stdout.count("-of-00004.nnr") == 4
    done = nnc("-t", folder)
    assert done.exit_code == 0
    assert done.output.count("sound") == 4
    shard = folder / "model-00002-of-00004.nnr"
    shard.write_bytes(shard.read_bytes()[:-1])
    done = nnc("-t", folder)
    assert done.exit_code == ExitCode.FILE
    assert "model-00002-of-00004.nnr: is not the file that the index lists" in done.output


def test_a_sharded_model_is_one_among_several(folder: Path, nnc: Nnc, tmp_path: Path) -> None:
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    folder.rename(shelf / "llama.nnr")
    (shelf / "alone.nnr").write_bytes((shelf / "llama.nnr" / "model-00001-of-00004.nnr").read_bytes())
    assert nnc("-l", shelf, "-r").stdout.count("-of-00004.nnr") == 4
    assert nnc("decompress", "-r", shelf, "--output-dir", tmp_path / "out").exit_code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["alone.safetensors", "llama"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("compress", "llama", "--workers", 2, "--dask", "tcp://127.0.0.1:1"), ExitCode.USAGE, "mutually exclusive"),
        (("compress", "llama", "--sharded"), ExitCode.FILE, "exists"),
        (("compress", "llama", "--sharded", "-o", "-"), ExitCode.FILE, "written to a folder"),
        (("decompress", "llama.nnr"), ExitCode.FILE, "exists"),
        (("decompress", "llama.nnr", "-o", "llama.nnr", "-f"), ExitCode.FILE, "input and output"),
        (("report", "llama.nnr"), ExitCode.FILE, "name one of them"),
        (("decompress", "llama.nnr", "--pruned", "-o", "x.npz"), ExitCode.FILE, "restored as it was"),
        (("verify", "llama", "llama.nnr/model-00001-of-00004.nnr", "--workers", 1), ExitCode.FILE, "not a sharded"),
        (("decompress", "llama.nnr/model-00001-of-00004.nnr", "--workers", 1), ExitCode.FILE, "not a sharded"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_mistakes_are_told(
    folder: Path, nnc: Nnc, arguments: tuple[Any, ...], code: ExitCode, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    before = contents(folder.parent)
    done = nnc(*arguments)
    assert (done.exit_code, done.exception is None or isinstance(done.exception, SystemExit)) == (code, True)
    assert words in done.output
    assert contents(folder.parent) == before


def test_damage_is_a_finding_of_verify(checkpoint: Path, folder: Path, nnc: Nnc) -> None:
    (checkpoint / "config.json").write_text("{}")
    done = nnc("verify", checkpoint, folder)
    assert done.exit_code == ExitCode.NEGATIVE_FINDING
    assert "config.json is not that of the model" in done.output
    (checkpoint / "more.txt").write_text("more")
    assert "not those of the model: more.txt" in nnc("verify", checkpoint, folder).output


def test_it_is_among_the_formats_and_in_the_help(nnc: Nnc) -> None:
    assert sharded.INDEX in nnc("formats").stdout
    for command in ("compress", "decompress", "verify"):
        assert all(option in nnc(command, "--help").stdout for option in ("--workers", "--dask", "--ray"))
