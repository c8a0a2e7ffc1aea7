"""What commands say while they work: progress by bytes, decisions, or nothing."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc_adapters
import nnc_core
from annex_tests.support.program import Nnc
from annex_tests.support.terminal import on_terminal
from nnc_adapters import containers, convert, updates
from nnc_adapters import report as reports
from nnc_adapters.cli import main

Told = list[tuple[str, int, int]]
LONG = ("compress", "decompress", "verify", "convert", "embed", "extract", "diff", "patch", "report")


@pytest.mark.parametrize("name", LONG)
def test_every_long_command_has_the_same_switches(name: str) -> None:
    options = {option for param in main.commands[name].params for option in (*param.opts, *param.secondary_opts)}
    assert {"-q", "--quiet", "-v", "--verbose", "--progress", "--no-progress"} <= options


def work(model: Path, bitstream: Path, meter: Any) -> dict[str, Callable[[], object]]:
    """What takes long, by the stages that a meter is told."""
    folder = bitstream.parent
    other = folder / "other.onnx"
    nnc_adapters.decompress(bitstream, other)
    update, carried = folder / "u.nnr", folder / "carried.zip"
    containers.embed(bitstream, carried, per_tensor=True)
    updates.diff(other, model, update)
    return {
        "planning coding": lambda: nnc_adapters.compress(model, folder / "a.nnr", meter=meter),
        "decoding": lambda: nnc_adapters.decompress(bitstream, folder / "a.onnx", meter=meter),
        "comparing": lambda: nnc_adapters.verify(model, bitstream, meter=meter),
        "reading comparing": lambda: reports.report(bitstream, model, meter=meter),
        "embedding": lambda: containers.embed(bitstream, folder / "a.zip", per_tensor=True, meter=meter),
        "extracting": lambda: containers.extract(carried, folder / "b.nnr", meter=meter),
        "comparing changes": lambda: updates.diff(other, model, folder / "v.nnr", meter=meter),
        "patching": lambda: updates.patch(other, [update], folder / "p.onnx", meter=meter),
        "converting": lambda: convert.convert(model, folder / "c.onnx", into=other, check=False, meter=meter),
    }


def test_meters_are_told_bytes_up_to_the_total(model: Path, bitstream: Path) -> None:
    told: Told = []
    for stages, do in work(model, bitstream, lambda *step: told.append(step)).items():
        told.clear()
        do()
        assert {stage for stage, *_ in told} <= set(stages.split()), stages
        assert told, stages
        for stage in dict.fromkeys(stage for stage, *_ in told):
            steps = [(done, total) for each, done, total in told if each == stage]
            assert all(done <= total for done, total in steps)
            assert all(before[0] <= after[0] for before, after in pairwise(steps))
            assert steps[-1][0] >= 0.5 * steps[-1][1], stages


def test_what_is_decoded_is_counted_in_bytes_of_tensors(bitstream: Path) -> None:
    told: Told = []
    nnc_adapters.decompress(bitstream, meter=lambda *step: told.append(step))
    size = sum(array.nbytes for array in nnc_core.decode(bitstream).values())
    assert told[-1] == ("decoding", size, size)


def test_quiet_commands_print_nothing(nnc: Nnc, model: Path, bitstream: Path) -> None:
    for arguments in (["compress", model, "-f"], ["decompress", bitstream, "-f"], ["report", bitstream]):
        result = nnc(*arguments, "-q")
        assert (result.exit_code, result.output) == (0, "")
    assert nnc("compress", "-q", model.with_name("absent")).stderr.startswith("error: ")


def test_quiet_commands_print_results(nnc: Nnc, model: Path, bitstream: Path) -> None:
    assert "hidden.weight" in nnc("verify", "-q", model, bitstream).stdout


def test_verbose_commands_say_what_is_decided_and_why(nnc: Nnc, model: Path, bitstream: Path) -> None:
    told = nnc("compress", "-v", "-f", model, "--rule", "out=exact=1").stderr
    assert "model.onnx: read as onnx, 15 tensors" in told
    assert re.search(r"hidden\.weight: quantized in steps of [\d.e-]+ \(qp -\d+\), relative to its scale", told)
    assert re.search(r"out\.weight: exact, \w+, a rule", told)
    assert "to be written as" in nnc("decompress", "-v", bitstream).stderr
    assert "conv1.weight" not in nnc("compress", "-f", model).stderr


def test_verbose_conversions_name_the_evidence_of_each_pair(nnc: Nnc, model: Path, tmp_path: Path) -> None:
    result = nnc("convert", "-v", model, tmp_path / "out.onnx", "--into", model, "--no-check")
    assert result.exit_code == 0, result.output
    assert re.search(r"hidden\.weight: from hidden\.weight, by \w+", result.stderr)


def test_what_is_said_is_printable(nnc: Nnc, tmp_path: Path) -> None:
    first, second = ({"a\x1b[31mb": np.full((8, 8), value, np.float32)} for value in (1.5, 2.5))
    for name, arrays in (("one.nnr", first), ("two.nnr", second)):
        nnc_core.write(tmp_path / name, arrays, lossless=True)
    assert "\x1b" not in nnc("report", "-v", tmp_path / "one.nnr", "--markdown").output


def test_listeners_go_with_the_command(nnc: Nnc, model: Path) -> None:
    before = [list(logging.getLogger(name).handlers) for name in ("nnc_core", "nnc_adapters")]
    nnc("compress", "-vv", "-f", model)
    assert [logging.getLogger(name).handlers for name in ("nnc_core", "nnc_adapters")] == before
    assert logging.getLogger("nnc_core").level == logging.NOTSET


def test_the_libraries_are_silent_by_themselves() -> None:
    program = "import nnc_core, numpy; nnc_core.encode({'w': numpy.eye(3, dtype='f4')}); import logging;"
    program += "print([type(h).__name__ for h in logging.getLogger('nnc_core').handlers])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("['NullHandler']", "")


def test_programs_can_listen(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "nnc_core"):
        nnc_core.encode({"w": np.random.default_rng(0).normal(0, 1, (8, 8)).astype(np.float32)})
    assert any(record.getMessage().startswith("w: quantized") for record in caplog.records)


def told(*arguments: str | Path) -> bytes:
    """What the program writes to stderr, if that is a terminal."""
    code, got = on_terminal([*arguments], "stderr", TERM="xterm", COLUMNS="120")
    assert code == 0
    return got


def test_a_terminal_gets_bytes_with_speed_and_time(model: Path, bitstream: Path) -> None:
    got = told("compress", model, "-f")
    assert b"coding" in got
    assert re.search(rb"[\d.]+/[\d.]+ [kM]B", got)
    for switch in ("--no-progress", "-q"):
        assert b"\x1b" not in told("compress", model, "-f", switch)
    assert b"comparing" in told("verify", model, bitstream)


def test_progress_can_be_asked_for_without_a_terminal(model: Path) -> None:
    command = [sys.executable, "-m", "nnc_adapters.cli", "compress", "--progress", "-f", model]
    assert b"coding" in subprocess.run(command, capture_output=True, check=True).stderr
