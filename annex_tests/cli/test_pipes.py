"""The program as the shell sees it: real processes, pipes and signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc_core
from annex_tests.support.terminal import on_terminal
from nnc_adapters.cli import options

NNC = [sys.executable, "-m", "nnc_adapters.cli"]
PIPE = subprocess.PIPE


def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*NNC, *arguments], input=stdin, capture_output=True, check=True, timeout=120)


def test_a_bitstream_goes_through_pipes_unchanged(model: Path, bitstream: Path) -> None:
    coded = run("compress", model, "-o", "-")
    assert coded.stdout == bitstream.read_bytes()
    assert b"weights" in coded.stderr


def test_reading_commands_take_a_bitstream_from_stdin(model: Path, bitstream: Path) -> None:
    data = bitstream.read_bytes()
    assert run("inspect", "-", stdin=data).stdout == run("inspect", bitstream).stdout
    assert run("verify", model, "-", stdin=data).returncode == 0
    restored, expected = model.with_name("restored.onnx"), bitstream.with_suffix(".onnx")
    run("decompress", "-", "-o", restored, stdin=data)
    run("decompress", bitstream)
    assert restored.read_bytes() == expected.read_bytes()


def test_models_and_containers_go_through_pipes_as_well(model: Path, bitstream: Path) -> None:
    assert run("compress", "-", "-o", "-", stdin=model.read_bytes()).stdout == bitstream.read_bytes()
    run("decompress", bitstream)
    restored = run("decompress", "-", "-o", "-", stdin=bitstream.read_bytes())
    assert restored.stdout == bitstream.with_suffix(".onnx").read_bytes()
    assert restored.stderr.startswith(b"-: 15 tensors")
    run("embed", "-", "-o", bitstream.with_suffix(".zip"), stdin=bitstream.read_bytes())
    extracted = run("extract", "-", "-o", "-", stdin=bitstream.with_suffix(".zip").read_bytes())
    assert extracted.stdout == bitstream.read_bytes()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_named_pipe_is_read_like_a_file(bitstream: Path) -> None:
    pipe = bitstream.with_name("pipe")
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=[bitstream.read_bytes()])
    writer.start()
    assert run("inspect", pipe).stdout == run("inspect", bitstream).stdout
    writer.join()


def fails(*arguments: str | Path, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*NNC, *arguments], stderr=PIPE, timeout=120, **streams)


def test_a_folder_does_not_go_to_stdout(tmp_path: Path) -> None:
    graph = "version 1.0;\ngraph net(x) -> (y)\n{ x = external<scalar>(shape = [1]); y = relu(x); }\n"
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "graph.nnef").write_text(graph)
    run("compress", tmp_path / "net")
    result = fails("decompress", tmp_path / "net.nnr", "-o", "-", stdout=PIPE)
    assert (result.returncode, result.stdout) == (2, b"")
    assert b"several files, and cannot go to stdout" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no full device")
@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "--help"], ["formats"], ["formats", "--json"]])
def test_a_full_disk_behind_stdout_is_one_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        result = fails(*arguments, stdout=full)
    assert (result.returncode, result.stderr) == (5, b"error: No space left on device\n")


@pytest.mark.skipif(sys.platform == "win32", reason="the shell of the system cannot close streams")
def test_closed_streams_are_errors_only_where_they_are_used(model: Path, bitstream: Path) -> None:
    script = 'exec "$@" '
    for close, arguments, code in (
        (">&-", ["inspect", bitstream], 0),
        (">&-", ["compress", model, "-o", "-"], 5),
        ("<&-", ["inspect", "-"], 5),
        ("2>&-", ["inspect", bitstream.with_name("absent")], 5),
    ):
        result = subprocess.run(["sh", "-c", script + close, "sh", *NNC, *arguments], capture_output=True, timeout=120)
        assert result.returncode == code, result.stderr
        assert b"Traceback" not in result.stderr


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
@pytest.mark.parametrize("switches", [[], ["--trace"], ["--json"]])
def test_names_that_stdout_cannot_write_are_escaped(encoding: str, switches: list[str], tmp_path: Path) -> None:
    path = tmp_path / "m.nnr"
    path.write_bytes(nnc_core.encode({"\u6a21": np.ones((4, 4), np.float32)}))
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    result = subprocess.run([*NNC, "inspect", path, *switches], capture_output=True, env=environment, timeout=120)
    assert (result.returncode, result.stderr) == (0, b"")
    escaped = encoding != "utf-8" or switches == ["--json"]
    assert ("\\u6a21" if escaped else "\u6a21") in result.stdout.decode(encoding)


def test_there_is_no_progress_bar_without_a_terminal(model: Path) -> None:
    assert b"\x1b" not in run("compress", model).stderr


def test_a_dumb_terminal_gets_no_progress_bar_either(model: Path) -> None:
    _, smart = on_terminal(["compress", model], "stderr", TERM="xterm")
    _, dumb = on_terminal(["compress", model, "-f"], "stderr", TERM="dumb")
    assert b"compressing" in smart
    assert dumb.startswith(b"155868 to")


def test_a_terminal_gets_no_bitstream_unless_by_force(model: Path) -> None:
    assert on_terminal(["compress", model, "-o", "-"], "stdout") == (2, b"")
    code, got = on_terminal(["compress", model, "-o", "-", "-f", "--qp", "60"], "stdout")
    assert code == 0
    assert len(got) > 100


def test_a_table_can_be_read_on_a_narrow_terminal(model: Path, bitstream: Path) -> None:
    _, got = on_terminal(["inspect", bitstream], "stdout", COLUMNS="40")
    assert any(line.split()[-1:] == [b"hidden.weight"] for line in got.splitlines())


def test_a_reader_that_leaves_early_is_not_an_error(bitstream: Path) -> None:
    with subprocess.Popen([*NNC, "inspect", "--trace", bitstream], stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


def _heed_interrupts() -> None:
    """A shell lets what it runs in the background ignore interrupts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_ends_the_program_quietly() -> None:
    with subprocess.Popen(
        [*NNC, "inspect", "-"], stdin=PIPE, stdout=PIPE, stderr=PIPE, preexec_fn=_heed_interrupts
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(bytes(1 << 20))  # more than a pipe holds: when this is over, the program is reading
        process.stdin.flush()
        time.sleep(0.5)  # until it waits for more: a signal just before a system call would not end that call
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_the_end_by_a_signal_leaves_nothing_behind(name: str, tmp_path: Path) -> None:
    number = getattr(signal, name, None) or pytest.skip("the system has no such signal")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        [*NNC, "inspect", "-"],
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        env=environment,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(bytes(1 << 20))
        process.stdin.flush()
        while not any(tmp_path.rglob("stdin")):
            time.sleep(0.01)
        time.sleep(0.5)  # as above
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert process.stderr.read() == b""
    assert not list(tmp_path.iterdir())


def test_a_pipe_without_end_does_not_fill_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(options.shutil, "disk_usage", lambda _: usage(1 << 30, 1 << 30, 1 << 20))
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.write_bytes(bytes(100))
    with source.open("rb") as pipe, copy.open("wb") as stream, pytest.raises(OSError, match="all but filled the disk"):
        options._copy(pipe, stream, tmp_path)
