"""Dask and Ray with local clusters: a worker is killed in the middle, and the output is that of one machine.

Runs in an environment of its own: ``make test-ecosystem``.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc_adapters
from annex_tests.sharded.conftest import contents, write_checkpoint
from annex_tests.support.program import checked, nnc
from nnc_adapters import sharded

psutil = pytest.importorskip("psutil", reason="Dask is not installed (make test-ecosystem does that)")
pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="there is no SIGKILL"),
    pytest.mark.filterwarnings("ignore"),  # those of clusters are not ours
]

_SHARDS = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards that take a second each, so that somebody can come between."""
    rng = np.random.default_rng(2)
    shards = [
        {f"l{n}.weight": (rng.standard_normal((1500, 1000)) * 0.02 * n).astype(np.float32)}
        for n in range(1, _SHARDS + 1)
    ]
    return write_checkpoint(tmp_path_factory.mktemp("model") / "llama", shards)


@pytest.fixture(scope="module")
def alone(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one machine makes of it."""
    target = tmp_path_factory.mktemp("alone") / "out"
    nnc_adapters.compress(checkpoint, target, sharded=True)
    return contents(target)


@contextmanager
def nothing_left() -> Iterator[None]:
    """No process outlives its cluster, but the one that Python keeps for shared memory."""
    yield
    deadline = time.monotonic() + 20
    while (left := list(filter(is_at_work, psutil.Process().children(recursive=True)))) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not left


def is_at_work(process: Any) -> bool:
    try:
        return "tracker" not in " ".join(process.cmdline())
    except psutil.Error:  # it has ended
        return False


@contextmanager
def started(name: str) -> Iterator[None]:
    """A cluster that this machine is too small or too slow for is a reason to skip its tests."""
    try:
        yield
    except Exception as error:  # each has its own
        pytest.skip(f"{name} does not start here: {error}")


class Killer:
    """A meter that kills one of the ``victims`` when the first shard is finished, while others are in work."""

    def __init__(self, victims: Callable[[], list[int]]) -> None:
        self.victims, self.killed = victims, 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        deadline = time.monotonic() + 20
        while stage in ("coding", "decoding") and not self.killed and done < total and time.monotonic() < deadline:
            for pid in self.victims()[:1]:
                os.kill(pid, signal.SIGKILL)
                self.killed = pid


def check(checkpoint: Path, folder: Path, alone: dict[str, bytes], pool: Executor, victims: Any) -> None:
    for work in (compressed, restored):
        killer = Killer(victims)
        work(checkpoint, folder, alone, pool, killer)
        assert killer.killed


def compressed(checkpoint: Path, folder: Path, alone: dict[str, bytes], pool: Executor, killer: Killer) -> None:
    nnc_adapters.compress(checkpoint, folder / "out", executor=pool, meter=killer)
    assert contents(folder / "out") == alone


def restored(checkpoint: Path, folder: Path, alone: dict[str, bytes], pool: Executor, killer: Killer) -> None:
    nnc_adapters.decompress(folder / "out", folder / "back", executor=pool, meter=killer)
    nnc_adapters.decompress(folder / "out", folder / "again")
    assert contents(folder / "back") == contents(folder / "again")


@pytest.fixture
def dask_cluster() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="Dask is not installed (make test-ecosystem does that)")
    with nothing_left():
        with started("Dask"):
            cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
        with cluster:
            yield cluster


def test_dask_makes_what_one_machine_makes(
    checkpoint: Path, alone: dict[str, bytes], tmp_path: Path, dask_cluster: Any
) -> None:
    def working() -> list[int]:
        return [w.process.process.pid for w in dask_cluster.workers.values() if w.process and w.process.process]

    with sharded.dask_executor(dask_cluster.scheduler_address) as pool:
        check(checkpoint, tmp_path, alone, pool, working)
    checked("compress", checkpoint, "--dask", dask_cluster.scheduler_address, "-o", tmp_path / "typed")
    assert contents(tmp_path / "typed") == alone
    checked("verify", checkpoint, tmp_path / "typed", "--dask", dask_cluster.scheduler_address)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray = pytest.importorskip("ray", reason="Ray is not installed (make test-ecosystem does that)")
    with nothing_left():
        with started("Ray"):
            ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield
        ray.shutdown()


def test_ray_makes_what_one_machine_makes(
    checkpoint: Path, alone: dict[str, bytes], tmp_path: Path, ray_cluster: None
) -> None:
    def working() -> list[int]:
        titles = {process.pid: process.name() for process in psutil.Process().children(recursive=True)}
        return [pid for pid, title in titles.items() if title.startswith("ray::_outcome")]

    with sharded.ray_executor("auto") as pool:
        check(checkpoint, tmp_path, alone, pool, working)
    checked("compress", checkpoint, "--ray", "auto", "-o", tmp_path / "typed")
    assert contents(tmp_path / "typed") == alone


def test_errors_of_workers_come_as_they_are(checkpoint: Path, tmp_path: Path, ray_cluster: None) -> None:
    nnc_adapters.compress(checkpoint, tmp_path / "out", sharded=True)
    (tmp_path / "out" / "model-00002-of-00006.nnr").write_bytes(b"damaged")
    done = nnc("decompress", tmp_path / "out", "-o", tmp_path / "b", "--ray", "auto")
    assert done.exit_code == 5
    assert "model-00002-of-00006.nnr: is not the file that the index lists" in done.output
