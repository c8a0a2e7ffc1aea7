"""Weights from a model in one framework into the same network in another."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from math import prod
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

import nnc_core
from nnc_adapters import api, registry
from nnc_adapters.base import Adapter, Options
from nnc_adapters.convert import matching
from nnc_adapters.convert.mapping import Plan, check, converted, load, to_json
from nnc_adapters.convert.matching import By
from nnc_adapters.convert.network import Network, describe
from nnc_adapters.shared.files import about, check_free
from nnc_adapters.shared.lazy import LazyTensors
from nnc_core import CodingParameters, Limits, ModelError
from nnc_core.nnr_model import SourceModel

__all__ = ["By", "ConvertReport", "convert", "plan"]

_BITSTREAM = ".nnr"

MappingFile = str | Path | Mapping[str, Any]
"""A JSON file, or what is in it: ``{target name: source name, null, or {"from": ..., "transpose": [...]}}``."""


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What `convert` did: ``mapping`` is the mapping file that it used, ``kept`` the tensors that the target had
    already, ``unused`` those of the source that went nowhere."""

    target: Path
    tensors: int
    weights: int
    mapping: dict[str, Any]
    kept: list[str]
    unused: list[str]
    seconds: float


def convert(
    source: str | Path,
    target: str | Path,
    *,
    into: str | Path,
    mapping: MappingFile | None = None,
    by: By | None = None,
    parameters: CodingParameters | None = None,
    threads: int | None = None,
    force: bool = False,
    limits: Limits | None = None,
) -> ConvertReport:
    """Write the model ``into`` to ``target``, with the weights of ``source``, which has them for another framework.

    Each of the three is a model in any format, or an NNR bitstream (``.nnr``) of one; ``parameters`` say how a
    bitstream as ``target`` is coded. Which tensor is which says a ``mapping`` file, or it is found ``by`` names, order
    or structure; see `nnc_adapters.convert.matching.match`. Axes and gates are put in order for the framework.

    Raises `ModelError` where the models do not match or leave a doubt, `FileExistsError` where ``target`` exists and
    ``force`` is not given, and what `compress` and `decompress` raise.
    """
    started = time.perf_counter()
    target = Path(target)
    check_free(target, force=force)
    with _both(Path(source), Path(into), limits or Limits(), threads) as pair:
        found = pair.plan(mapping, by)
        pair.check(found)
        tensors = pair.converted(found)
        with _written(target, pair.target.file, parameters, threads, force) as path:
            options = Options(limits or Limits(), all_floats=True)
            api.write_into(pair.target.adapter, tensors, pair.target.file, path, options, force=force)
        return pair.report(target, found, time.perf_counter() - started)


def plan(
    source: str | Path,
    into: str | Path,
    *,
    mapping: MappingFile | None = None,
    by: By | None = None,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """The content of the mapping file that `convert` would use.

    A matrix for which ``flatten`` is ``[C, 0, 0]`` follows an image of C channels: `convert` wants the height and width
    it has where it is flattened, or false if it is not.
    """
    with _both(Path(source), Path(into), limits or Limits(), None) as pair:
        return to_json(pair.plan(mapping, by))


@dataclass(frozen=True)
class _Model:
    """A model whose floats are all among its tensors, and the file it was read from."""

    file: Path
    adapter: Adapter
    content: SourceModel
    limits: Limits

    @cached_property
    def network(self) -> Network:
        return describe(self.content, self.adapter, self.limits)


@dataclass(frozen=True)
class _Pair:
    """A source and a target."""

    source: _Model
    target: _Model

    def plan(self, file: MappingFile | None, by: By | None) -> Plan:
        if file is None:
            return matching.match(self.source.network, self.target.network, by)
        if by is not None:
            raise ValueError("a mapping says which tensor is which; there is nothing to find by other means")
        found = load(file)
        return matching.with_questions(found, self.source.network, self.target.network)

    def check(self, found: Plan) -> None:
        doubts = matching.unanswered(found)
        if doubts:
            raise ModelError(
                f"{', '.join(doubts)} may take a flattened image, whose channels come first in one framework and last "
                'in the other; the mapping must say "flatten": [C, H, W], or false (--print-map shows where)'
            )
        check(found, self.source.network, self.target.network)

    def converted(self, found: Plan) -> Mapping[str, NDArray[Any]]:
        networks, tensors = (self.source.network, self.target.network), self.source.content.tensors
        return LazyTensors(
            {
                name: partial(converted, entry, self.target.network.parameters[name], *networks, tensors)
                for name, entry in found.items()
                if entry is not None
            }
        )

    def report(self, target: Path, found: Plan, seconds: float) -> ConvertReport:
        entries = {name: entry for name, entry in found.items() if entry is not None}
        used = {source for entry in entries.values() for source in entry.sources}
        weights = sum(prod(self.target.network.parameters[name].shape) for name in entries)
        unused = [name for name in self.source.network.parameters if name not in used]
        kept = [name for name in found if name not in entries]
        return ConvertReport(target, len(entries), weights, to_json(found), kept, unused, seconds)


@contextmanager
def _both(source: Path, into: Path, limits: Limits, threads: int | None) -> Iterator[_Pair]:
    with _opened(source, limits, threads) as given, _opened(into, limits, threads) as wanted:
        yield _Pair(given, wanted)


@contextmanager
def _opened(path: Path, limits: Limits, threads: int | None) -> Iterator[_Model]:
    """The model in a file, or the one that a bitstream restores to: small tensors are in its topology."""
    if path.suffix.lower() != _BITSTREAM:
        yield _read(path, limits)
        return
    with about(path), nnc_core.open(path, limits=limits) as file:
        topology = file.topology
    if topology is None:
        raise ModelError("carries no topology: what its tensors are to the network is not known", file=str(path))
    with tempfile.TemporaryDirectory() as folder:
        adapter = registry.adapter(topology.storage_format)
        restored = Path(folder, "model" + adapter.default_suffix(topology))
        with about(path):
            api.decompress(path, restored, threads=threads, limits=limits)
        yield _read(restored, limits)


def _read(path: Path, limits: Limits) -> _Model:
    adapter = registry.find(path)
    with about(path):
        return _Model(path, adapter, adapter.read(path, Options(limits, all_floats=True)), limits)


@contextmanager
def _written(
    target: Path, like: Path, parameters: CodingParameters | None, threads: int | None, force: bool
) -> Iterator[Path]:
    """Where a model like that in ``like`` is to be written: ``target``, or where it is compressed from."""
    if target.suffix.lower() != _BITSTREAM:
        yield target
        return
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder, "model" + "".join(like.suffixes))
        yield model
        api.compress(model, target, parameters=parameters, threads=threads, force=force)
