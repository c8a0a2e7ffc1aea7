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
    result = subprocess.run(command, env={**os.environ, **environment}, timeout=120, **streams)
    os.close(theirs)
    got = b""
    try:
        while piece := os.read(ours, 4096):
            got += piece
    except OSError:  # how a terminal ends
        pass
    os.close(ours)
    return result.returncode, got
