"""From a folder of bitstreams to the files that they were made of."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

from nnc_adapters.base import Options
from nnc_adapters.reports import DecompressReport, Meter
from nnc_adapters.sharded.index import Index, Shard, checked, read_index
from nnc_adapters.sharded.running import Finished, finished_in, run
from nnc_adapters.sharded.work import Restored, restore
from nnc_adapters.shared.files import replacing
from nnc_core import Limits

__all__ = ["decompress"]


def decompress(
    source: str | Path,
    target: str | Path,
    *,
    executor: Executor | None = None,
    opaque: bool = False,
    threads: int | None = None,
    force: bool = False,
    meter: Meter | None = None,
    limits: Limits | None = None,
) -> DecompressReport:
    """Restore the sharded model at ``source``, a folder or its index, as the folder ``target``.

    Each bitstream is first compared with its digest in the index, and a file that comes back exactly with that of the
    original: `ModelError` where they differ. Files are restored where ``executor`` runs tasks, and what is finished is
    kept after a crash, as in `compress`. The rest as `nnc_adapters.decompress`.
    """
    started = time.perf_counter()
    index, options = read_index(Path(source).absolute(), limits), Options(limits or Limits(), opaque=opaque)
    threads = threads or (None if executor is None else 1)
    with finished_in(Path(target).absolute(), force=force) as finished:
        restored = _restored(index, finished, options, threads, executor, meter)
        for name, content in index.kept.items():
            checked(index.folder / name, content)
            _copy(index.folder / name, name, finished)
    tensors, weights = sum(each.tensors for each in restored), sum(each.weights for each in restored)
    return DecompressReport(Path(target), tensors, weights, time.perf_counter() - started)


def _restored(
    index: Index,
    finished: Finished,
    options: Options,
    threads: int | None,
    executor: Executor | None,
    meter: Meter | None,
) -> list[Restored]:
    finished.names.update(shard.restores for shard in index.shards)
    shards: Sequence[Shard] = sorted(index.shards, key=lambda shard: -shard.content.size)
    tasks = [(index.folder, shard, finished.folder / shard.restores, options, threads) for shard in shards]
    total, done, found = sum(shard.original.size for shard in shards), 0, []
    for number, restored in run(executor, restore, tasks):
        found.append(restored)
        done += shards[number].original.size
        if meter is not None:
            meter("decoding", done, total)
    return found


def _copy(source: Path, name: str, finished: Finished) -> None:
    finished.names.add(name)
    target = finished.folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as stream, replacing(target, force=True) as copy:
        shutil.copyfileobj(stream, copy)
