"""The program as it behaves on a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PIPE = subprocess.PIPE


def on_terminal(arguments: list[str | Path], stream: str, **environment: str) -> tuple[int, bytes]:
    """Run the program with one of its streams on a terminal: its exit code, and what the terminal got."""
    pty = pytest.importorskip("pty", reason="the system has no pseudo-terminals")
    ours, theirs = pty.openpty()
    streams = {"stdout": PIPE, "stderr": PIPE, stream: theirs}
    command = [sys.executable, "-m", "nnc_adapters.cli", *arguments]
    with subprocess.Popen(command, env={**os.environ, **environment}, **streams) as process:
        os.close(theirs)
        got = b"".join(iter(lambda: _read(ours), b""))  # while it runs, since a terminal holds a few kilobytes only
        os.close(ours)
        process.communicate(timeout=120)
    return process.returncode, got


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how a terminal ends
        return b""
