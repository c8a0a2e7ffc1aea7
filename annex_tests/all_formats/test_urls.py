"""URLs in place of paths, by fsspec's memory and local file systems: the guarantees are those of files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nnc_adapters
from annex_tests.sharded.conftest import contents, layer, write_checkpoint
from annex_tests.support.program import nnc
from nnc_adapters.cli.errors import ExitCode
from nnc_core import MissingDependencyError, ModelError

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # those of fsspec are not ours

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, with the digits model."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    system.pipe_file("/bucket/digits.onnx", DIGITS.read_bytes())
    yield system
    system.store.clear()


def files(system: Any) -> set[str]:
    return set(system.find("/"))


def test_a_model_goes_there_and_back(memory: Any, tmp_path: Path) -> None:
    report = nnc_adapters.compress("memory://bucket/digits.onnx", "memory://bucket/digits.nnr")
    assert report.bytes_before == DIGITS.stat().st_size
    nnc_adapters.compress(DIGITS, tmp_path / "local.nnr")
    assert memory.cat_file("/bucket/digits.nnr") == (tmp_path / "local.nnr").read_bytes()
    restored = nnc_adapters.decompress("memory://bucket/digits.nnr", "memory://bucket/again.onnx")
    assert restored.target == "memory://bucket/again.onnx"
    nnc_adapters.decompress(tmp_path / "local.nnr", tmp_path / "again.onnx")
    assert memory.cat_file("/bucket/again.onnx") == (tmp_path / "again.onnx").read_bytes()
    assert nnc_adapters.verify("memory://bucket/digits.onnx", "memory://bucket/digits.nnr").accepted
    assert nnc_adapters.load_tensors("memory://bucket/digits.nnr").keys()


def test_commands_take_urls_where_they_take_files(memory: Any, tmp_path: Path) -> None:
    model, bitstream = "memory://bucket/digits.onnx", "memory://bucket/out/digits.nnr"
    assert nnc("compress", model, "-o", bitstream).exit_code == 0
    assert nnc("verify", model, bitstream).exit_code == 0
    assert nnc("verify", DIGITS, bitstream).exit_code == 0
    assert "FLOAT" in nnc("inspect", bitstream).stdout
    assert nnc("validate", bitstream).exit_code == 0
    assert nnc("-t", bitstream).exit_code == 0
    assert bitstream in nnc("-l", bitstream).stdout
    assert nnc("compress", model, "--output-dir", tmp_path / "here").exit_code == 0
    assert (tmp_path / "here" / "digits.nnr").read_bytes() == memory.cat_file("/bucket/out/digits.nnr")
    assert nnc("decompress", bitstream, "-o", tmp_path / "digits.onnx").exit_code == 0


def test_the_url_of_a_file_is_its_path(tmp_path: Path) -> None:
    nnc_adapters.compress(DIGITS.as_uri(), (tmp_path / "a b.nnr").as_uri())
    assert nnc("inspect", (tmp_path / "a b.nnr").as_uri()).exit_code == 0
    assert nnc("decompress", (tmp_path / "a b.nnr").as_uri()).exit_code == 0
    assert (tmp_path / "a b.onnx").is_file()
    with pytest.raises(FileExistsError):
        nnc_adapters.compress(DIGITS, (tmp_path / "a b.nnr").as_uri())


def test_what_is_there_stays_without_force(memory: Any) -> None:
    memory.pipe_file("/bucket/digits.nnr", b"mine")
    with pytest.raises(FileExistsError, match=r"memory://bucket/digits\.nnr exists"):
        nnc_adapters.compress(DIGITS, "memory://bucket/digits.nnr")
    assert nnc("compress", DIGITS, "-o", "memory://bucket/digits.nnr").exit_code == ExitCode.FILE
    assert memory.cat_file("/bucket/digits.nnr") == b"mine"
    nnc_adapters.compress(DIGITS, "memory://bucket/digits.nnr", force=True)
    assert nnc_adapters.verify(DIGITS, "memory://bucket/digits.nnr").accepted


def test_nothing_partial_is_left(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = files(memory)
    memory.pipe_file("/bucket/bad.onnx", DIGITS.read_bytes()[:500])
    with pytest.raises(ModelError, match=r"memory://bucket/bad\.onnx"):
        nnc_adapters.compress("memory://bucket/bad.onnx", "memory://bucket/bad.nnr")
    memory.rm("/bucket/bad.onnx")

    def full(*arguments: Any) -> None:
        raise OSError("the place is full")

    monkeypatch.setattr("nnc_adapters.remote.shutil.copyfileobj", full)
    with pytest.raises(OSError, match="the place is full"):
        nnc_adapters.compress(DIGITS, "memory://bucket/digits.nnr")
    assert files(memory) == before


def test_folders_go_there_and_back(memory: Any, tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "llama", [layer(1), layer(2)])
    memory.put(f"{checkpoint}/", "/bucket/llama/", recursive=True)
    nnc_adapters.compress("memory://bucket/llama", "memory://bucket/llama.nnr", sharded=True)
    nnc_adapters.compress(checkpoint, tmp_path / "here", sharded=True)
    there = {
        name.removeprefix("/bucket/llama.nnr/"): memory.cat_file(name) for name in memory.find("/bucket/llama.nnr")
    }
    assert there == contents(tmp_path / "here")
    assert nnc("inspect", "memory://bucket/llama.nnr").stdout.count("of-00002.nnr") == 2
    assert nnc("verify", checkpoint, "memory://bucket/llama.nnr").exit_code == 0
    nnc_adapters.decompress("memory://bucket/llama.nnr", tmp_path / "back")
    assert contents(tmp_path / "back").keys() == contents(checkpoint).keys()
    memory.pipe_file("/bucket/llama.nnr/stale", b"")
    nnc_adapters.compress(checkpoint, "memory://bucket/llama.nnr", sharded=True, force=True)
    assert "/bucket/llama.nnr/stale" not in files(memory)


def test_the_index_comes_last_and_without_it_nothing_stays(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = write_checkpoint(tmp_path / "llama", [layer(1), layer(2)])
    stored: list[str] = []

    def store(system: Any, source: Path, path: str) -> None:
        if path.endswith("model.nnr.index.json"):
            raise OSError("the place is full")
        stored.append(path)
        system.pipe_file(path, source.read_bytes())

    monkeypatch.setattr("nnc_adapters.remote._store", store)
    before = files(memory)
    with pytest.raises(OSError, match="the place is full"):
        nnc_adapters.compress(checkpoint, "memory://bucket/llama.nnr", sharded=True)
    assert len(stored) == 5
    assert files(memory) == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("inspect", "memory://bucket/nothing.nnr"), ExitCode.FILE, "memory://bucket/nothing.nnr: No such file"),
        (("inspect", "nowhere://bucket/x.nnr"), ExitCode.FILE, "cannot be reached"),
        (("compress", "memory://bucket/digits.onnx"), ExitCode.USAGE, "give --output"),
        (("compress", "memory://bucket/digits.onnx", "-o", "x.nnr", "--rm"), ExitCode.USAGE, "--rm removes files"),
        (("compress", "x.onnx", "--plan", "memory://plan.json"), ExitCode.USAGE, "has to be a file"),
        (("diff", "memory://bucket/digits.onnx", "b", "-o", "c"), ExitCode.USAGE, "has to be a file"),
        (("decompress", "memory://bucket/digits.onnx", "-o", "x.onnx"), ExitCode.FILE, "memory://bucket/digits.onnx"),
    ],
    ids=str,
)
def test_mistakes_are_told(
    memory: Any, tmp_path: Path, arguments: tuple[str, ...], code: ExitCode, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = nnc(*arguments)
    assert done.exit_code == code, done.output
    assert words in done.output.replace("\n", " ")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="name it"):
        nnc_adapters.compress("memory://bucket/digits.onnx")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingDependencyError, match=r"nnc-suite\[remote\]"):
        nnc_adapters.compress("memory://bucket/digits.onnx", tmp_path / "x.nnr")
