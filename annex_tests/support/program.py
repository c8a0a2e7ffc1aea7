"""The program ``nnc``, run inside the process of a test, or in one that can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from nnc_adapters.cli import main

Nnc = Callable[..., Result]
Killable = Callable[..., dict[str, Any]]
_ROOT = Path(__file__).resolve().parents[2]


def nnc(*arguments: object, stdin: bytes | None = None) -> Result:
    """Run it with these arguments."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin, prog_name="nnc")


def checked(*arguments: object, code: int = 0) -> Result:
    """Run it, and see that it ends with this exit code."""
    result = nnc(*arguments)
    assert result.exit_code == code, result.output
    return result


@contextmanager
def killable() -> Iterator[Killable]:
    """What runs it in another process, killed after so many seconds or not at all; see `killed_writer`."""
    paths = [str(_ROOT), str(_ROOT / "adapters"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command, pipe = [sys.executable, Path(__file__).with_name("killed_writer.py")], subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as server:

        def run(*arguments: object, seconds: float | None = None) -> dict[str, Any]:
            server.stdin.write(json.dumps({"arguments": [*map(str, arguments)], "seconds": seconds}) + "\n")
            server.stdin.flush()
            return json.loads(server.stdout.readline())

        yield run
        server.stdin.close()
