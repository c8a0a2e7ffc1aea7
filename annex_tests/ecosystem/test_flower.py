"""Federated learning over NNR in a real simulation of Flower: as accurate, at a fraction of the traffic.

Runs in an environment of its own: ``make test-ecosystem``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs() -> dict[str, list[dict[str, float]]]:
    pytest.importorskip("flwr", reason="Flower is not installed (make test-ecosystem does that)")
    pytest.importorskip("ray", reason="Flower's simulation is not installed (make test-ecosystem does that)")
    command = [sys.executable, str(ROOT / "examples" / "federated.py"), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
    except subprocess.TimeoutExpired:
        pytest.skip("the simulation takes longer than 240 seconds here")
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list[dict[str, float]]] = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def test_ten_rounds_are_as_accurate_as_without(runs: dict[str, list[dict[str, float]]]) -> None:
    plain, compressed = runs["plain"], runs["compressed"]
    assert [each["round"] for each in compressed] == list(range(11))
    assert compressed[-1]["accuracy"] > plain[-1]["accuracy"] - 0.01


def test_the_traffic_is_a_tenth_at_most(runs: dict[str, list[dict[str, float]]]) -> None:
    assert 0 < runs["compressed"][-1]["bytes"] < 0.1 * runs["plain"][-1]["bytes"]
