"""The program as the shell sees it: real processes, pipes and signals."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

NNC = [sys.executable, "-m", "nnc_adapters.cli"]
PIPE = subprocess.PIPE


def run(*arguments: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*NNC, *arguments], input=stdin, capture_output=True, check=True, timeout=120)


def test_a_bitstream_goes_through_pipes_unchanged(model: Path, bitstream: Path) -> None:
    coded = run("compress", model, "-o", "-")
    assert coded.stdout == bitstream.read_bytes()
    assert b"bits per weight" in coded.stderr


def test_reading_commands_take_a_bitstream_from_stdin(model: Path, bitstream: Path) -> None:
    data = bitstream.read_bytes()
    assert run("inspect", "-", stdin=data).stdout == run("inspect", bitstream).stdout
    assert run("verify", model, "-", stdin=data).returncode == 0
    restored, expected = model.with_name("restored.onnx"), bitstream.with_suffix(".onnx")
    run("decompress", "-", "-o", restored, stdin=data)
    run("decompress", bitstream)
    assert restored.read_bytes() == expected.read_bytes()


def test_there_is_no_progress_bar_without_a_terminal(model: Path) -> None:
    assert b"\x1b" not in run("compress", model).stderr


def test_a_reader_that_leaves_early_is_no_error_message(bitstream: Path) -> None:
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
