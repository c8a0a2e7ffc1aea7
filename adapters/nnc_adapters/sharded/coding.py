"""From the files of a model to a folder of bitstreams."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from nnc_adapters import registry
from nnc_adapters.base import Options
from nnc_adapters.reports import CompressReport, Meter
from nnc_adapters.sharded.index import Content, Index, content_of
from nnc_adapters.sharded.names import INDEX
from nnc_adapters.sharded.planning import planned
from nnc_adapters.sharded.running import Finished, finished_in, run
from nnc_adapters.sharded.work import Coded, Source, code
from nnc_adapters.shared.files import replacing, size_of
from nnc_adapters.shared.logs import inform
from nnc_core import CodingParameters, Limits, ModelError, ModelPlan

__all__ = ["compress"]


def compress(
    source: str | Path,
    target: str | Path,
    *,
    executor: Executor | None = None,
    parameters: CodingParameters | None = None,
    plan: ModelPlan | None = None,
    keep_plan: Callable[[ModelPlan], None] | None = None,
    keep_optimizer: bool = True,
    opaque: bool = False,
    strip_debug: bool = False,
    drop_masked: bool = False,
    threads: int | None = None,
    force: bool = False,
    meter: Meter | None = None,
    limits: Limits | None = None,
) -> CompressReport:
    """Compress the model of several files at ``source``, a folder or an index, into the folder ``target``.

    Each file of weights becomes a bitstream that restores it, the others stay as they are; see the package. Files are
    read and written where ``executor`` runs tasks, which must see the same folders, each with so many ``threads``: one
    by default, or one for each core without an executor. Steps that depend on the whole model follow from the
    statistics that a first pass over the files finds, and targets from what the files measure, so the output is the
    same whoever does the work. It appears as ``target`` when it is complete. Until then what is finished is in a folder
    beside it, called the same with ``.partial``: after a crash the same call goes on from there, and keeps what was
    made of the same bytes in the same way. The rest as `nnc_adapters.compress`.
    """
    started, source, target = time.perf_counter(), Path(source).absolute(), Path(target).absolute()
    parameters, limits = parameters or CodingParameters(), limits or Limits()
    adapter = registry.find(source)
    reading = Options(limits, keep_optimizer, opaque, strip_debug=strip_debug)
    parts = adapter.parts(source, replace(reading, limits=limits.following(size_of(source))))
    if source.is_dir() and target.resolve().is_relative_to(source.resolve()):
        raise ModelError("cannot be written into the folder that it is made from", file=str(target))
    threads = threads or (None if executor is None else 1)
    how = (adapter.topology_storage_format, reading, drop_masked, threads)
    sources = [Source(parts.folder, part, *how) for part in parts.coded]
    with finished_in(target, force=force) as finished:
        whole = planned(sources, parameters, plan, executor, meter)
        coded = _coded(sources, parameters, whole.local, finished, executor, meter)
        kept = {name: _kept(parts.folder, name, finished) for name in parts.kept}
        _write_index(Index(target, tuple(each.shard for each in coded), kept), finished)
    if keep_plan is not None:
        keep_plan(whole.plan)
    before = sum(not each.new for each in coded)
    inform(__name__, "%s: %d of %d shards were finished before", target, before, len(coded))
    return CompressReport(
        bytes_before=sum(each.shard.original.size for each in coded) + sum(each.size for each in kept.values()),
        bytes_after=size_of(target),
        tensors=sum(len(each.shard.tensors) for each in coded),
        weights=sum(each.weights for each in coded),
        seconds=time.perf_counter() - started,
        payload_bytes=sum(each.payload_bytes for each in coded),
        warnings=tuple(_warnings(coded, parameters, whole.plan)),
    )


def _coded(
    sources: Sequence[Source],
    parameters: CodingParameters,
    plans: Sequence[ModelPlan],
    finished: Finished,
    executor: Executor | None,
    meter: Meter | None,
) -> list[Coded]:
    """The shards, in model order; the largest are started first."""
    files = [finished.folder / f"model-{n:05d}-of-{len(sources):05d}.nnr" for n in range(1, len(sources) + 1)]
    finished.names.update(file.name for file in files)
    order = sorted(range(len(sources)), key=lambda number: -sources[number].size)
    tasks = [(sources[number], parameters, plans[number], files[number]) for number in order]
    found: dict[int, Coded] = {}
    total, done = sum(source.size for source in sources), 0
    for place, coded in run(executor, code, tasks):
        found[order[place]] = coded
        done += sources[order[place]].size
        if meter is not None:
            meter("coding", done, total)
    return [found[number] for number in range(len(sources))]


def _kept(folder: Path, name: str, finished: Finished) -> Content:
    """Copy a file that has no weights."""
    if name in finished.names or name == INDEX:
        raise ModelError("has the name of a bitstream that is to be written", file=str(folder / name))
    finished.names.add(name)
    target = finished.folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("rb") as stream, replacing(target, force=True) as copy:
        shutil.copyfileobj(stream, copy)
    return content_of(target)


def _write_index(index: Index, finished: Finished) -> None:
    finished.names.add(INDEX)
    with replacing(finished.folder / INDEX, force=True) as stream:
        stream.write(index.to_json().encode())


def _warnings(coded: Sequence[Coded], parameters: CodingParameters, plan: ModelPlan) -> Iterator[str]:
    for rule in parameters.rules:
        if not any(map(rule.applies_to, plan.tensors)):
            yield f"the rule {rule.pattern!r} matches no tensor"
    for each in coded:
        yield from (f"{each.shard.restores}: {warning}" for warning in each.warnings)
