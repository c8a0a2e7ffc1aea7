"""Several inputs, and what users of gzip and zstd expect of a program that compresses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import nnc_core
from annex_tests.support.program import Nnc


@pytest.fixture
def models(tmp_path: Path, model: Path) -> Path:
    """A folder with two models in folders of their own, and something else."""
    root = tmp_path / "models"
    for place in ("a/one.onnx", "b/c/two.onnx"):
        (root / place).parent.mkdir(parents=True)
        shutil.copy(model, root / place)
    (root / "README.md").write_text("not a model")
    return root


def test_several_models_become_bitstreams_in_one_folder(nnc: Nnc, models: Path, tmp_path: Path) -> None:
    sources = (models / "a/one.onnx", models / "b/c/two.onnx")
    result = nnc("compress", *sources, "--output-dir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["one.nnr", "two.nnr"]
    assert result.stderr.count("155868 to ") == 2
    assert str(sources[1]) in result.stderr


def test_folders_are_searched_and_mirrored_and_restored(nnc: Nnc, models: Path, tmp_path: Path) -> None:
    coded, restored = tmp_path / "coded", tmp_path / "restored"
    assert nnc("compress", "-r", models, "--output-dir", coded).exit_code == 0
    assert sorted(map(str, (p.relative_to(coded) for p in coded.rglob("*.*")))) == ["a/one.nnr", "b/c/two.nnr"]
    assert nnc("decompress", "-r", coded, "--output-dir", restored).exit_code == 0
    assert sorted(map(str, (p.relative_to(restored) for p in restored.rglob("*.*")))) == ["a/one.onnx", "b/c/two.onnx"]
    assert nnc("verify", models / "a/one.onnx", coded / "a/one.nnr").exit_code == 0


def test_outputs_lie_beside_their_inputs_without_a_folder(nnc: Nnc, models: Path) -> None:
    assert nnc("compress", "-r", models).exit_code == 0
    assert (models / "b/c/two.nnr").is_file()


def test_inputs_are_removed_when_their_outputs_are_there(nnc: Nnc, models: Path) -> None:
    assert nnc("compress", "-r", models, "--rm").exit_code == 0
    assert not list(models.rglob("*.onnx"))
    assert nnc("decompress", "--rm", models / "a/one.nnr").exit_code == 0
    assert [path.name for path in (models / "a").iterdir()] == ["one.onnx"]


def test_an_input_stays_where_something_went_wrong(nnc: Nnc, bitstream: Path) -> None:
    bitstream.write_bytes(bitstream.read_bytes()[:-100])
    assert nnc("decompress", "--rm", bitstream).exit_code == 3
    assert bitstream.exists()


@pytest.mark.parametrize("arguments", [["-o", "-"], ["-"]])
def test_nothing_is_removed_that_is_not_a_file(nnc: Nnc, model: Path, tmp_path: Path, arguments: list[str]) -> None:
    source = [] if arguments == ["-"] else [model]
    output = ["-o", tmp_path / "out.nnr"] if arguments == ["-"] else []
    result = nnc("compress", *source, *arguments, *output, "--rm")
    assert result.exit_code == 2
    assert "--rm" in result.stderr
    assert model.exists()


def test_an_error_does_not_keep_the_others_from_being_done(nnc: Nnc, models: Path, tmp_path: Path) -> None:
    result = nnc("compress", models / "README.md", models / "a/one.onnx", "--output-dir", tmp_path / "out", "--json")
    assert result.exit_code == 5
    assert "README.md" in result.stderr
    assert [Path(each["source"]).name for each in json.loads(result.stdout)] == ["one.onnx"]
    assert (tmp_path / "out/one.nnr").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["a.onnx", "b.onnx", "-o", "out.nnr"], "--output-dir"),
        (["a.onnx", "-o", "out.nnr", "--output-dir", "out"], "mutually exclusive"),
        (["a.onnx", "-"], "--output-dir"),
        (["-r", "."], "nothing to work on"),
        (["a.onnx", "b.onnx", "--dry-run"], "one model"),
    ],
)
def test_what_does_not_go_together_is_a_usage_error(
    nnc: Nnc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    result = nnc("compress", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize("command", [["decompress", "-t"], ["decompress", "--test"], ["-t"], ["--test"]])
def test_a_bitstream_is_tested_by_decoding_all_of_it(nnc: Nnc, bitstream: Path, command: list[str]) -> None:
    before = sorted(bitstream.parent.iterdir())
    assert "sound, 15 tensors" in nnc(*command, bitstream).stderr
    assert sorted(bitstream.parent.iterdir()) == before
    data = bytearray(bitstream.read_bytes())
    with nnc_core.open(bitstream) as file:
        unit = next(unit for unit in file.units if "hidden.weight" in unit.names)
    damaged = slice(unit.payload_offset + 100, unit.offset + unit.size)
    data[damaged] = bytes(len(data[damaged]))
    bitstream.write_bytes(data)
    assert nnc(*command, bitstream).exit_code == 3


@pytest.mark.parametrize("command", [["decompress", "-l"], ["-l"], ["--list"]])
def test_a_list_has_sizes_and_ratios(nnc: Nnc, bitstream: Path, command: list[str]) -> None:
    line = nnc(*command, bitstream).stdout.splitlines()[-1].split()
    assert int(line[0]) == bitstream.stat().st_size
    assert int(line[1]) == sum(array.nbytes for array in nnc_core.decode(bitstream).values())
    assert {"onnx", str(bitstream)} <= set(line)
    (found,) = [json.loads(nnc(*command, bitstream, "--json").stdout)]
    assert (found["compressed"], found["tensors"]) == (int(line[0]), 15)


def test_lists_and_tests_write_nothing(nnc: Nnc, bitstream: Path) -> None:
    for arguments in (["-t", "-l"], ["-t", "-o", "x"], ["-l", "--rm"]):
        assert nnc("decompress", *arguments, bitstream).exit_code == 2
