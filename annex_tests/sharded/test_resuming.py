"""After a crash: what is finished stays, if it is what would be made now."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc_adapters
from nnc_adapters import sharded
from nnc_core import CodingParameters, ModelError

from .conftest import contents, layer, write_checkpoint, write_safetensors


class StoppedError(Exception):
    pass


def stopping_after(number: int, stage: str) -> Callable[[str, int, int], None]:
    calls: list[str] = []

    def meter(what: str, done: int, total: int) -> None:
        calls.append(what)
        if calls.count(stage) == number:
            raise StoppedError

    return meter


def inodes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.rglob("*") if path.suffix in (".nnr", ".safetensors")}


@pytest.fixture
def stopped(checkpoint: Path, tmp_path: Path) -> Path:
    """What a run left that stopped after two of four shards."""
    with pytest.raises(StoppedError):
        nnc_adapters.compress(checkpoint, tmp_path / "out", sharded=True, meter=stopping_after(2, "coding"))
    assert not (tmp_path / "out").exists()
    return tmp_path / "out.partial"


def test_finished_shards_are_kept_and_the_others_made(checkpoint: Path, stopped: Path, tmp_path: Path) -> None:
    before = inodes(stopped)
    assert len(before) == 2
    nnc_adapters.compress(checkpoint, tmp_path / "out", sharded=True)
    nnc_adapters.compress(checkpoint, tmp_path / "clean", sharded=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")
    assert before.items() <= inodes(tmp_path / "out").items()
    assert not stopped.exists()


@pytest.mark.parametrize("damage", ["shard", "receipt", "options", "source"])
def test_what_is_not_what_would_be_made_is_made_again(
    checkpoint: Path, stopped: Path, tmp_path: Path, damage: str
) -> None:
    parameters = None
    if damage == "options":
        parameters = CodingParameters(scan_order=1)
    elif damage == "source":
        write_safetensors(checkpoint / "model-00001-of-00004.safetensors", layer(0, 0.011))
    for file in stopped.iterdir():
        if damage == file.suffix.replace(".nnr", "shard").replace(".", ""):
            data = bytearray(file.read_bytes())
            data[len(data) // 2] ^= 1
            file.write_bytes(data)
    before = inodes(stopped)
    nnc_adapters.compress(checkpoint, tmp_path / "out", sharded=True, parameters=parameters)
    nnc_adapters.compress(checkpoint, tmp_path / "clean", sharded=True, parameters=parameters)
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")
    if damage != "source":  # whose other shards may be the same
        assert not before.items() & inodes(tmp_path / "out").items()


def test_what_another_model_left_does_not_get_into_the_output(stopped: Path, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", [layer(7)])
    (stopped / "stray.txt").write_text("stray")
    (stopped / ".nnc-0123456789abcdef.tmp").write_bytes(b"half")
    nnc_adapters.compress(other, tmp_path / "out", sharded=True)
    expected = {"model-00001-of-00001.nnr", sharded.INDEX, "config.json", "tokenizer/vocab.txt"}
    assert contents(tmp_path / "out").keys() == expected | {"model.safetensors.index.json"}


def test_restoring_goes_on_as_well(checkpoint: Path, tmp_path: Path) -> None:
    nnc_adapters.compress(checkpoint, tmp_path / "out", sharded=True)
    with pytest.raises(StoppedError):
        nnc_adapters.decompress(tmp_path / "out", tmp_path / "back", meter=stopping_after(3, "decoding"))
    before = inodes(tmp_path / "back.partial")
    assert len(before) == 3
    report = nnc_adapters.decompress(tmp_path / "out", tmp_path / "back")
    nnc_adapters.decompress(tmp_path / "out", tmp_path / "clean")
    assert contents(tmp_path / "back") == contents(tmp_path / "clean")
    assert before.items() <= inodes(tmp_path / "back").items()
    assert report.tensors == 12


KILLED = """
import os, signal, sys
import nnc_adapters

def meter(what, done, total):
    if what == "coding":
        os.kill(os.getpid(), signal.SIGKILL)

nnc_adapters.compress(sys.argv[1], sys.argv[2], sharded=True, meter=meter)
"""


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_a_killed_run_is_continued(checkpoint: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, checkpoint, tmp_path / "out"], check=False)
    assert done.returncode == -signal.SIGKILL
    before = inodes(tmp_path / "out.partial")
    assert len(before) == 1
    nnc_adapters.compress(checkpoint, tmp_path / "out", sharded=True)
    assert before.items() <= inodes(tmp_path / "out").items()
    assert nnc_adapters.verify(checkpoint, tmp_path / "out").accepted


def killed(*arguments: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class KillsOne(Executor):
    """Has the worker killed that takes the seventh task."""

    def __init__(self, pool: Executor) -> None:
        self.pool, self.count = pool, 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.count += 1
        return self.pool.submit(killed if self.count == 7 else fn, *args, **kwargs)


@pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL")
def test_a_killed_worker_is_named_and_costs_no_finished_work(checkpoint: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(ChildProcessError, match="the same command goes on from there"),
        sharded.process_executor(1) as pool,
    ):
        nnc_adapters.compress(checkpoint, tmp_path / "out", executor=KillsOne(pool))
    before = inodes(tmp_path / "out.partial")
    assert len(before) == 2
    nnc_adapters.compress(checkpoint, tmp_path / "out", sharded=True)
    assert before.items() <= inodes(tmp_path / "out").items()


def test_an_existing_folder_is_replaced_only_by_force(checkpoint: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine").write_text("mine")
    with pytest.raises(FileExistsError):
        nnc_adapters.compress(checkpoint, target, sharded=True)
    assert contents(target) == {"mine": b"mine"}
    assert not (tmp_path / "out.partial").exists()
    nnc_adapters.compress(checkpoint, target, sharded=True, force=True)
    assert "mine" not in contents(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["llama", "out"]


def test_a_folder_of_somebody_else_is_left_alone(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match="in the way"):
        nnc_adapters.compress(checkpoint, tmp_path / "out", sharded=True)
    assert contents(tmp_path / "out.partial") == {"mine": b"mine"}


def test_an_error_before_anything_is_finished_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not fit"):
        nnc_adapters.compress(checkpoint, tmp_path / "out", sharded=True, parameters=CodingParameters(target_size=10))
    assert [path.name for path in tmp_path.iterdir()] == ["llama"]


def test_a_changed_bitstream_is_not_restored(checkpoint: Path, tmp_path: Path) -> None:
    nnc_adapters.compress(checkpoint, tmp_path / "out", sharded=True)
    shard = tmp_path / "out" / "model-00002-of-00004.nnr"
    data = np.frombuffer(shard.read_bytes(), np.uint8).copy()
    data[-20] ^= 4
    shard.write_bytes(data.tobytes())
    with pytest.raises(ModelError, match="changed, or damaged"):
        nnc_adapters.decompress(tmp_path / "out", tmp_path / "back")
    with pytest.raises(ModelError, match="changed, or damaged"):
        nnc_adapters.verify(checkpoint, tmp_path / "out")
    assert not (tmp_path / "back").exists()
