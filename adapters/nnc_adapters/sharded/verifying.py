"""Judging a sharded model by the files that it was made from, each by itself."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import nnc_core
from nnc_adapters import registry
from nnc_adapters.base import Options
from nnc_adapters.comparison import MIN_SQNR, TensorComparison, TopologyVerdict
from nnc_adapters.reports import Meter
from nnc_adapters.sharded.index import Index, Shard, checked, content_of, read_index
from nnc_adapters.sharded.running import run
from nnc_adapters.sharded.work import Source
from nnc_adapters.shared.files import about, size_of
from nnc_adapters.verification import VerifyReport, compared, report
from nnc_core import Limits, Rule

__all__ = ["verify"]


class _Outcome(NamedTuple):
    topology: TopologyVerdict
    problem: str | None
    tensors: tuple[TensorComparison, ...]


def verify(
    original: str | Path,
    compressed: str | Path,
    *,
    executor: Executor | None = None,
    min_sqnr: float = MIN_SQNR,
    keep_optimizer: bool = True,
    opaque: bool = False,
    strip_debug: bool = False,
    drop_masked: bool = False,
    rules: Iterable[Rule] = (),
    threads: int | None = None,
    meter: Meter | None = None,
    limits: Limits | None = None,
) -> VerifyReport:
    """Compare the sharded model ``compressed`` with the model it was made from, file by file.

    The files of both must be the same ones, bitstreams those that the index lists, and what is kept as it is equal.
    Otherwise as `nnc_adapters.verify`.
    """
    original, limits = Path(original).absolute(), limits or Limits()
    index, adapter = read_index(Path(compressed).absolute(), limits), registry.find(original)
    reading = Options(limits, keep_optimizer, opaque, strip_debug=strip_debug)
    parts = adapter.parts(original, replace(reading, limits=limits.following(size_of(original))))
    threads = threads or (None if executor is None else 1)
    how = (adapter.topology_storage_format, reading, drop_masked, threads)
    sources = {part.name: Source(parts.folder, part, *how) for part in parts.coded}
    problem = _differing(index, parts.folder, [*sources], parts.kept)
    pairs = [(sources[shard.restores], shard) for shard in index.shards if shard.restores in sources]
    tasks = [(source, index.folder, shard, min_sqnr, tuple(rules)) for source, shard in pairs]
    total, done, found = sum(source.size for source, _ in pairs), 0, {}
    for number, outcome in run(executor, _compared, tasks):
        found[number] = outcome
        done += pairs[number][0].size
        if meter is not None:
            meter("comparing", done, total)
    return _report(problem, [found[number] for number in range(len(pairs))])


def _differing(index: Index, folder: Path, coded: list[str], kept: Iterable[str]) -> str | None:
    """What is wrong with the files, if anything is."""
    if {shard.restores for shard in index.shards} != set(coded) or set(index.kept) != set(kept):
        mine = {*coded, *kept} ^ {*(shard.restores for shard in index.shards), *index.kept}
        return f"the files are not those of the model: {', '.join(sorted(mine)[:5])}"
    for name, content in index.kept.items():
        checked(index.folder / name, content)
        if content_of(folder / name) != content:
            return f"{name} is not that of the model"
    return None


def _compared(source: Source, folder: Path, shard: Shard, min_sqnr: float, rules: tuple[Rule, ...]) -> _Outcome:
    path = folder / shard.file
    checked(path, shard.content)
    with about(path), nnc_core.open(path, limits=source.reading.limits) as file:
        chosen = frozenset(name for name in file if name not in source.read().tensors)
        model = source.read(chosen=chosen)
        options = source.options(chosen)
        return _Outcome(*compared(model, file, options, min_sqnr, rules, source.threads, prefix=shard.prefix))


def _report(problem: str | None, found: list[_Outcome]) -> VerifyReport:
    problem = problem or next((each.problem for each in found if each.problem), None)
    verdicts = [each.topology for each in found]
    order: tuple[TopologyVerdict, ...] = ("cannot be restored", "different", "not carried")
    otherwise: TopologyVerdict = "different" if problem else "equal"
    worst = next((verdict for verdict in order if verdict in verdicts), otherwise)
    return report(worst, problem, tuple(tensor for each in found for tensor in each.tensors))
