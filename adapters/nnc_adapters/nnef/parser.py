"""The package ``nnef``, which parses and checks graphs, in a process of its own.

Many a damaged graph makes it crash, and some small ones keep it busy for hours; neither must happen to the caller.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nnc_core.errors import MissingDependencyError, ModelError

SECONDS: Final = 60.0
_PROGRAM: Final = Path(__file__).with_name("_parse.py")


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a graph; of its inputs those that are single tensors, of its attributes those of a variable."""

    name: str
    inputs: dict[str, str]
    outputs: list[str]
    label: str = ""
    shape: tuple[int, ...] = ()


def operations(graph: str, quantization: str | None, seconds: float = SECONDS) -> list[Operation]:
    """The operations of a graph, in order.

    Raises `ModelError` where the package finds fault, crashes, or takes longer than ``seconds``,
    `MissingDependencyError` where it is not installed.
    """
    if importlib.util.find_spec("nnef") is None:
        raise MissingDependencyError("nnef", "nnef")
    answer = _ask({"path": sys.path, "graph": graph, "quantization": quantization}, seconds)
    if "error" in answer:
        raise ModelError(f"not an NNEF graph: {answer['error']}")
    return [Operation(**{**fields, "shape": tuple(fields["shape"])}) for fields in answer["operations"]]


def _ask(request: dict[str, Any], seconds: float) -> dict[str, Any]:
    # isolated: nothing is imported from the current folder
    command = [sys.executable, "-I", "-S", str(_PROGRAM)]
    try:
        done = subprocess.run(command, input=json.dumps(request).encode(), capture_output=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        raise ModelError(f"not an NNEF graph: it cannot be parsed in {seconds:g} seconds") from None
    if done.returncode:
        raise ModelError("not an NNEF graph: the parser crashes on it")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
