"""Every command that takes long shows how far it is, in bytes with speed and time, where a person looks on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import nnc_adapters
from annex_tests.support.terminal import on_terminal
from nnc_adapters import containers, updates

STAGES = {
    "compress {model} -o {new}.nnr": "coding",
    "decompress {coded} -o {new}.onnx": "decoding",
    "verify {model} {coded}": "comparing",
    "report {coded} {model} -o {new}.html": "comparing",
    "embed {coded} -o {new}.zip": "embedding",
    "extract {carried} -o {new}.nnr": "extracting",
    "diff {other} {model} -o {new}.nnr": "comparing",
    "patch {other} {update} -o {new}.onnx": "patching",
    "convert {model} {new}.onnx --into {other} --no-check": "converting",
    "decompress -t {coded}": "testing",
}


@pytest.fixture
def files(model: Path, bitstream: Path, tmp_path: Path) -> dict[str, Path]:
    found = {name: tmp_path / name for name in ("new", "carried.zip", "other.onnx", "update.nnr")}
    nnc_adapters.decompress(bitstream, found["other.onnx"])
    containers.embed(bitstream, found["carried.zip"], per_tensor=True)
    updates.diff(found["other.onnx"], model, found["update.nnr"])
    return {"model": model, "coded": bitstream} | {Path(name).stem: path for name, path in found.items()}


@pytest.mark.parametrize("command", STAGES, ids=lambda command: command.partition(" {")[0])
def test_a_terminal_gets_bytes_speed_and_time(files: dict[str, Path], command: str) -> None:
    arguments: list[str | Path] = [*command.format(**files).split()]
    code, shown = on_terminal(arguments, "stderr", TERM="xterm", COLUMNS="120")
    assert code == 0, shown
    text = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.decode())
    assert STAGES[command] in text
    assert re.search(r"[\d.]+/[\d.]+ [kM]B +([\d.]+ [kM]B/s|\?) +[\d-]:[\d-]{2}:[\d-]{2}", text), text
