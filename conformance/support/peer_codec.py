"""The public codec NNCodec, driven as a black box in an environment of its own (see ``make interop``).

Its driver is ``$NNC_SHARED/tools/peer.py``; the environment is ``.peer`` in the project, which ``make`` sets up.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.support.shared import SHARED
from nnc_core import CodingParameters

ROOT = Path(__file__).resolve().parents[2]
_PYTHON = ROOT / ".peer" / "bin" / "python"
_SESSION = Path(__file__).with_name("peer_session.py")
_DRIVER = SHARED / "tools" / "peer.py"


class PeerError(Exception):
    """The peer failed; the message is the last line that it said."""


def missing() -> str | None:
    """Why the peer cannot be run, or None if it can."""
    if not _DRIVER.is_file():
        return "no tools/peer.py: NNC_SHARED does not lead to one"
    return None if _PYTHON.is_file() else "the peer's environment is not set up (make .peer/.ready does that)"


def options(p: CodingParameters, *, row_skip: bool = False, codebook: int = 0) -> list[str]:
    """The driver's options that mean what ``p`` means; the peer does not choose by itself where to skip rows."""
    numbers = {"qp": p.qp, "nonweight-qp": p.nonweight_qp, "density": p.qp_density, "codebook": codebook}
    numbers |= {"unary": p.cabac_unary_length_minus1, "scan": p.scan_order}
    flags = {"no-dq": not p.dq_flag, "no-opt": not p.param_opt_flag, "row-skip": row_skip}
    return [f"--{name}={value}" for name, value in numbers.items()] + [f"--{name}" for name in flags if flags[name]]


_CPU_TIME = (
    "import runpy, sys, time; time.perf_counter = time.process_time; sys.argv = sys.argv[1:]; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
"""Runs the driver with CPU time in place of wall time."""


def command(what: str, source: Path, target: Path, *arguments: str) -> tuple[str, ...]:
    """The process that `run` starts."""
    return (str(_PYTHON), "-W", "ignore", "-c", _CPU_TIME, str(_DRIVER), what, str(source), str(target), *arguments)


def run(what: str, source: Path, target: Path, *arguments: str) -> dict[str, Any]:
    """``encode`` an .npz file or ``decode`` a bitstream; bytes, weights and peak_mib as the driver reports.

    ``cpu`` are its CPU seconds for coding, ``seconds`` those of wall time for the whole process.
    """
    # The peer's own choice of threads would make its timings incomparable.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    start = time.perf_counter()
    process = command(what, source, target, *arguments)
    done = subprocess.run(process, capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        # Only the message: the lines above it are the peer's source, which nobody here reads.
        raise PeerError(f"the peer cannot {what}: {said[-1]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**result, "cpu": result["seconds"], "seconds": seconds}


def decode(source: Path, target: Path) -> dict[str, NDArray[Any]]:
    """What the peer makes of a bitstream, by tensor name."""
    run("decode", source, target)
    with np.load(target) as archive:
        return {name: archive[name] for name in archive.files}


def session(what: str, files: list[tuple[Path, Path]], options: dict[str, Any], updates: bool) -> list[int]:
    """``encode`` .npz files or ``decode`` bitstreams in turn, as ``updates`` of each other; sizes in bytes."""
    job = files[0][1].with_suffix(".json")
    described = {"what": what, "files": [[str(f) for f in pair] for pair in files], "options": options}
    job.write_text(json.dumps({**described, "updates": updates}))
    command = [str(_PYTHON), "-W", "ignore", str(_SESSION), str(_DRIVER), str(job)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise PeerError(f"the peer cannot {what}: {said[-1]}")
    sizes: list[int] = json.loads(done.stdout.splitlines()[-1])
    return sizes
