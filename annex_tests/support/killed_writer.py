"""Runs the program ``nnc`` in processes that are killed; a server, so that each run need not import everything anew.

Every line of standard input is a JSON object: ``arguments`` of the program, and ``seconds`` until SIGKILL or null. It
is answered with ``killed`` and ``seconds``. The command ``external SOURCE TARGET`` restores an ONNX model with external
data, which the program does only for models over 2 GB.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import nnc_adapters.tensorflow.writer  # noqa: F401  (imported once, not in every process)
import nnc_core
from nnc_adapters import registry
from nnc_adapters.cli import main
from nnc_adapters.onnx import OnnxAdapter, reader, writer  # noqa: F401


def work(arguments: list[str]) -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if arguments[0] != "external":
        main(arguments, standalone_mode=False)
        return
    source, target = arguments[1:]
    with nnc_core.open(source) as file, file.decoding_ahead(1) as tensors:
        OnnxAdapter(single_file_bytes=0).write(tensors, file.topology, Path(target), force=True)


def run(arguments: list[str], seconds: float | None) -> dict[str, float | bool]:
    started = time.perf_counter()
    child = os.fork()
    if child == 0:
        try:
            work(arguments)
            os._exit(0)
        finally:
            os._exit(1)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)  # until it is waited for, no other process can have its number
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    if not killed and os.WEXITSTATUS(status):
        raise SystemExit(f"{arguments} failed")
    return {"killed": killed, "seconds": time.perf_counter() - started}


if __name__ == "__main__":
    registry.adapters()
    for line in sys.stdin:
        print(json.dumps(run(**json.loads(line))), flush=True)
