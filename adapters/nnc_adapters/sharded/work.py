"""What workers do, each with one file of a model: everything here can be sent to another process or machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import nnc_core
from nnc_adapters import registry
from nnc_adapters.base import Options, Part
from nnc_adapters.reports import CompressReport
from nnc_adapters.sharded.index import Content, Shard, Stored, checked, content_of, described, shard_from
from nnc_adapters.sharded.running import RECEIPT
from nnc_adapters.shared import strict_json
from nnc_adapters.shared.files import about, replacing
from nnc_adapters.shared.lazy import LazyTensors
from nnc_core import CodingParameters, ModelError, ModelPlan, SourceModel
from nnc_core.nnr_model import ModelInfo
from nnc_core.planner.survey import Finding, survey
from nnc_core.planner.trials import Whole
from nnc_core.records import dataclass

__all__ = ["Coded", "Source", "Surveyed", "code", "measure", "restore", "survey_part"]


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a model, and how it is read; ``adapter`` is the storage format of its topology."""

    folder: Path
    part: Part
    adapter: int
    reading: Options
    drop_masked: bool
    threads: int | None

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self.folder / self.part.name

    @property
    def size(self) -> int:
        """The bytes of the file."""
        return self.path.stat().st_size

    def read(self, chosen: frozenset[str] = frozenset()) -> SourceModel:
        """The tensors of the file and what restores it; those that are ``chosen``, too."""
        from nnc_adapters.shared.masks import with_pruning_topology

        adapter = registry.adapter(self.adapter)
        with about(self.path):
            model = adapter.read_part(self.folder, self.part, self.options(chosen))
            masks = adapter.masks(model.tensors)
            return with_pruning_topology(model, masks, drop=self.drop_masked) if masks else model

    def options(self, chosen: frozenset[str] = frozenset()) -> Options:
        """How the file is read."""
        return replace(self.reading, limits=self.reading.limits.following(self.size), chosen=chosen)

    def coded_with(self, parameters: CodingParameters) -> SourceModel:
        """What is read to be coded: the tensors, too, that a rule has quantized."""
        from nnc_adapters.api import overruled

        return self.read(overruled(parameters, self.part.prefix))


class Surveyed(NamedTuple):
    """What was found in a file, by the names that tensors have in the whole model, and their roles."""

    findings: dict[str, Finding]
    info: ModelInfo


def survey_part(source: Source, parameters: CodingParameters) -> Surveyed:
    """Read a file once, and find what a plan needs to know of its tensors."""
    model = _with_prefix(source.coded_with(parameters), source.part.prefix)
    return Surveyed(survey(model, parameters, threads=source.threads), model.model_info)


def _with_prefix(model: SourceModel, prefix: str) -> SourceModel:
    """A model whose tensors have the names that they have in the whole; all that a plan asks for."""
    if not prefix:
        return model
    types, blocks = model.model_info.get("parameter_type", {}), model.model_info.get("block_identifier", {})
    info = ModelInfo(
        parameter_type={prefix + name: kind for name, kind in types.items()},
        block_identifier={prefix + name: prefix + block for name, block in blocks.items()},
    )
    tensors = LazyTensors({prefix + name: partial(model.tensors.__getitem__, name) for name in model.tensors})
    exact = {prefix + name: reason for name, reason in model.exact.items()}
    return replace(model, tensors=tensors, model_info=info, exact=exact)


def measure(source: Source, parameters: CodingParameters, plan: ModelPlan, what: str, *arguments: Any) -> Any:
    """Code tensors of a file as planned, and ask `Whole` for ``what`` that gives."""
    trials = Whole(source.coded_with(parameters), source.threads)
    return getattr(trials, what)(plan, *arguments)


class Coded(NamedTuple):
    """A shard, and what was told of its making."""

    shard: Shard
    weights: int
    payload_bytes: int
    warnings: tuple[str, ...]
    new: bool = True


def code(source: Source, parameters: CodingParameters, plan: ModelPlan, target: Path) -> Coded:
    """Write the bitstream of a file, unless that is finished: made of the same bytes, in the same way, and intact."""
    original = content_of(source.path)
    made_as = _made_as(source, plan, original)
    if (finished := _finished(target, made_as)) is not None:
        return finished
    report = _write(source, parameters, plan, target)
    reading = source.reading
    with nnc_core.open(target, limits=reading.limits) as file:
        tensors = {i.name: Stored(i.dtype, i.shape, i.size) for i in file.tensors.values()}
    exact = all(each.exact for each in plan.tensors.values()) and reading.keep_optimizer and not reading.strip_debug
    shard = Shard(target.name, content_of(target), source.part.name, original, source.part.prefix, exact, tensors)
    coded = Coded(shard, report.weights, report.payload_bytes or 0, report.warnings)
    _note(target, {**coded._asdict(), "shard": described(shard), "made_as": made_as})
    return coded


def _write(source: Source, parameters: CodingParameters, plan: ModelPlan, target: Path) -> CompressReport:
    from nnc_adapters.api import compress_model, payload_bytes

    with replacing(target, force=True) as stream:
        report = compress_model(
            source.coded_with(parameters),
            stream,
            plan=plan,
            threads=source.threads,
            limits=source.reading.limits,
            source=source.size,
        )
    return replace(report, payload_bytes=payload_bytes(target, source.reading.limits))


def _made_as(source: Source, plan: ModelPlan, original: Content) -> str:
    """A digest of all that decides what a bitstream is: the bytes it is made of, the plan, and how they are read."""
    reading = source.reading
    how = (nnc_core.__version__, source.part, reading.keep_optimizer, reading.opaque, reading.strip_debug)
    text = repr((how, source.drop_masked, original, plan.to_json()))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _receipt(target: Path) -> Path:
    return target.with_name(target.name + RECEIPT)


def _note(target: Path, receipt: Mapping[str, Any]) -> None:
    with replacing(_receipt(target), force=True) as stream:
        stream.write(json.dumps(receipt).encode())


def _noted(target: Path, made_as: str) -> dict[str, Any] | None:
    """What is known of a file that was finished in this way; None where it was not."""
    try:
        receipt: dict[str, Any] = strict_json.document(_receipt(target).read_bytes())
        return receipt if receipt["made_as"] == made_as else None
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _finished(target: Path, made_as: str) -> Coded | None:
    """What was finished before, if it was made in this way and is still what it was."""
    receipt = _noted(target, made_as)
    try:
        if receipt is None or content_of(target) != (shard := shard_from(receipt["shard"])).content:
            return None
        return Coded(shard, receipt["weights"], receipt["payload_bytes"], tuple(receipt["warnings"]), new=False)
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None


class Restored(NamedTuple):
    """A file that was restored: how many tensors and numbers were decoded for it."""

    tensors: int
    weights: int
    new: bool = True


def restore(folder: Path, shard: Shard, target: Path, options: Options, threads: int | None) -> Restored:
    """Restore the file of a shard, unless that is finished.

    `ModelError` where the bitstream is not the one that the index lists, and where a file that comes back exactly is
    not what it was.
    """
    path = folder / shard.file
    checked(path, shard.content)
    made_as = hashlib.sha256(repr((nnc_core.__version__, shard.content)).encode()).hexdigest()
    receipt = _noted(target, made_as)
    if receipt is not None and target.is_file() and asdict(content_of(target)) == receipt.get("content"):
        return Restored(receipt["tensors"], receipt["weights"], new=False)
    target.parent.mkdir(parents=True, exist_ok=True)
    restored = _restored(path, target, options, threads)
    content = content_of(target)
    if shard.exact and content != shard.original:
        raise ModelError("restores a file that is not the original, though all of it is exact", file=str(path))
    _note(target, {"made_as": made_as, "content": asdict(content), **restored._asdict()})
    return restored


def _restored(path: Path, target: Path, options: Options, threads: int | None) -> Restored:
    from nnc_adapters.reports import Watched

    options = replace(options, limits=options.limits.following(path.stat().st_size))
    with about(path), nnc_core.open(path, limits=options.limits) as file, file.decoding_ahead(threads) as decoded:
        if file.topology is None:
            raise ModelError("carries no topology, without which no file can be restored", file=str(path))
        tensors = Watched(decoded)
        registry.adapter(file.topology.storage_format).write(tensors, file.topology, target, options, force=True)
        return Restored(len(tensors), tensors.weights)
