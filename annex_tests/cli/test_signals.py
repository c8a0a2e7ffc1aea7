"""A signal ends the program soon, whatever it is doing, and nothing unfinished stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no such signals")

STUCK = """
import sys, tempfile, threading, time
from pathlib import Path
from nnc_adapters.cli import signals
from nnc_adapters.shared.files import replacing, replacing_folder

target, patience, *numbers = sys.argv[1:]
signals._PATIENCE = float(patience)
never = threading.Lock()
never.acquire()
with (
    signals.ended_in_order(),
    tempfile.TemporaryDirectory(dir=target) as folder,
    replacing(Path(target, "file")) as stream,
    replacing_folder(Path(target, "folder")) as other,
):
    stream.write(b"part")
    (other / "part").touch()
    try:
        print("ready", flush=True)
        time.sleep(30)
    finally:
        print("unwinding", flush=True)
        never.acquire()
"""

WORKING = """
import os, sys, time
from nnc_adapters.cli.signals import Terminated, ended_in_order
from nnc_adapters.sharded import process_executor

if __name__ == "__main__":
    try:
        with ended_in_order(), process_executor(1) as pool:
            print(pool.submit(os.getpid).result(), flush=True)
            pool.submit(time.sleep, 60)
            time.sleep(60)
    except Terminated as end:
        sys.exit(end.exit_code)
"""


def _defaults() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def started(*command: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_defaults
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_program_that_is_stuck_while_it_ends_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    with started("-c", STUCK, tmp_path, "0.2") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(list(tmp_path.iterdir())) == 3
        process.send_signal(number)
        assert process.communicate(timeout=20) == ("unwinding\n", "")
    assert process.returncode == 128 + number
    assert not list(tmp_path.iterdir())


def test_a_second_signal_ends_the_program_at_once(tmp_path: Path) -> None:
    with started("-c", STUCK, tmp_path, "1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "unwinding\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())


def test_a_signal_that_is_ignored_goes_on_being_ignored() -> None:
    script = (
        "import os, signal; from nnc_adapters.cli.signals import ended_in_order\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "with ended_in_order(): os.kill(os.getpid(), signal.SIGHUP); print('goes on')"
    )
    with started("-c", script) as process:
        assert process.communicate(timeout=20) == ("goes on\n", "")
    assert process.returncode == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_workers_end_with_the_program(name: str, tmp_path: Path) -> None:
    (tmp_path / "working.py").write_text(WORKING)
    with started(tmp_path / "working.py") as process:
        assert process.stdout is not None
        worker = int(process.stdout.readline())
        process.send_signal(getattr(signal, name))
        assert process.wait(20) == (128 + signal.SIGTERM if name == "SIGTERM" else -signal.SIGKILL)
        for _ in range(200):
            if not _runs(worker):
                break
            time.sleep(0.05)
        else:
            os.kill(worker, signal.SIGKILL)
            pytest.fail("the worker goes on")


def _runs(process: int) -> bool:
    """Whether a process is there, and not one that has ended and nobody has asked about."""
    state = subprocess.run(["ps", "-o", "state=", "-p", str(process)], capture_output=True, text=True).stdout
    return state.strip()[:1] not in ("", "Z")
