"""What commands do where few people come: paths that no other test of the command line takes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

import nnc_core
from annex_tests.support.program import Nnc
from annex_tests.support.terminal import on_terminal


def test_a_terminal_is_shown_the_page_by_man(tmp_path: Path) -> None:
    viewer = tmp_path / "man"
    viewer.write_text('#!/bin/sh\nhead -n 1 "$1"\n')
    viewer.chmod(viewer.stat().st_mode | stat.S_IXUSR)
    code, shown = on_terminal(["man", "report"], "stdout", PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert code == 0
    assert shown.startswith(b".TH NNC-REPORT 1")
    assert shown.count(b"\n") == 1


def test_bins_of_a_damaged_payload_are_shown_up_to_the_damage(nnc: Nnc, tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0, 1, (16, 16)).astype(np.float32)
    data = bytearray(nnc_core.encode({"w": values}, qp=-20))
    data[-2:] = b"\xff\xff"
    path = tmp_path / "damaged.nnr"
    path.write_bytes(data)
    result = nnc("inspect", "--trace", "--bins", path)
    assert result.exit_code == 0
    assert "bins of w" in result.stdout
    assert "the bins end here: bit 1820: the codeword continues after the last tensor" in result.stdout


@pytest.mark.parametrize("command", ["compress", "decompress", "verify"])
def test_one_kind_of_workers_is_enough(nnc: Nnc, model: Path, bitstream: Path, command: str) -> None:
    files = {"compress": [model], "decompress": [bitstream], "verify": [model, bitstream]}[command]
    result = nnc(command, *files, "--workers", "2", "--dask", "localhost:1")
    assert result.exit_code == 2
    assert "--workers and --dask are mutually exclusive" in result.stderr


def test_workers_are_for_models_of_several_files(nnc: Nnc, model: Path, bitstream: Path) -> None:
    result = nnc("verify", model, bitstream, "--workers", "1")
    assert result.exit_code == 5
    assert "is not a sharded model" in result.stderr
