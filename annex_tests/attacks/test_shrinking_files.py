"""Files that another process makes shorter while they are read: an error of this suite, never a signal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import nnc_adapters
from annex_tests.support.every_format import MODELS, written
from nnc_adapters import registry
from nnc_core.errors import NncError


def halved(path: Path) -> None:
    """Make every file of a model shorter."""
    for file in [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]:
        os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_that_becomes_shorter_after_it_was_opened_is_read_or_refused(kind: str, tmp_path: Path) -> None:
    name, files = MODELS[kind]
    path = written(name, files(), tmp_path)
    before = {tensor: array.tobytes() for tensor, array in registry.find(path).read(path).tensors.items()}
    model = registry.find(path).read(path)
    halved(tmp_path)
    for tensor in before:
        try:
            array = model.tensors[tensor]
        except NncError:
            continue
        assert array.tobytes() == before[tensor]


SHORTENED = """
import os, shutil, sys
import nnc_core.stored as stored
from nnc_adapters.cli import main

read, fill = stored._piece, os.preadv
source, copy, *arguments = sys.argv[1:]

def shortening(place):
    left = place
    def counted(read):
        def reading(*of):
            nonlocal left
            left -= 1
            if left == 0:
                os.truncate(copy, os.stat(source).st_size // 8)
            return read(*of)
        return reading
    stored._piece, os.preadv = counted(read), counted(fill)

for place in (1, 3, 9, 30, 90):
    shutil.copy(source, copy)
    shortening(place)
    try:
        main([*arguments, "-o", copy + ".out", copy, "-f"])
        code = 0
    except SystemExit as end:
        code = end.code
    print(place, code, os.listdir(os.path.dirname(copy)), flush=True)
"""


@pytest.mark.parametrize("direction", ["compress", "decompress"])
def test_the_program_ends_with_an_error_when_its_input_becomes_shorter(direction: str, tmp_path: Path) -> None:
    source, folder = tmp_path / "m.safetensors", tmp_path / "copy"
    folder.mkdir()
    rng = np.random.default_rng(0)
    save_file({f"t{i:02}": rng.normal(size=(200, 80)).astype(np.float32) for i in range(40)}, source)
    if direction == "decompress":
        nnc_adapters.compress(source, source := tmp_path / "m.nnr")
    command = [sys.executable, "-c", SHORTENED, source, folder / source.name, direction, "--threads", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    endings = [line.split(maxsplit=2) for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert len(endings) == 5
    failed = [left for _, code, left in endings if code != "0"]
    assert {code for _, code, _ in endings} <= {"0", "3", "5"}
    assert len(failed) > 2
    assert failed[0] == str([source.name])
    assert "became shorter" in done.stderr
    assert str(folder / source.name) in done.stderr
