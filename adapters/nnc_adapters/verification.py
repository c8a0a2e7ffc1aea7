"""Judging a bitstream by the model it was made from."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

import nnc_core
from nnc_adapters import registry
from nnc_adapters.api import decoded_bytes
from nnc_adapters.base import Options
from nnc_adapters.comparison import (
    MIN_SQNR,
    TensorComparison,
    TopologyVerdict,
    compare,
    compare_tensor,
    compare_topology,
    decibel,
    judge,
)
from nnc_adapters.containers import plain
from nnc_adapters.remote import reaching
from nnc_adapters.reports import Meter, Watched, passing
from nnc_adapters.sharded.names import is_sharded
from nnc_adapters.shared.files import about, size_of
from nnc_adapters.shared.masks import with_pruning_topology
from nnc_core import NnrFile, Rule
from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.lazy import LazyMapping
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel, Topology
from nnc_core.planner.statistics import is_vector
from nnc_core.records import dataclass

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["VerifyReport", "compared", "report", "verify"]

_BAD_TOPOLOGY = ("different", "cannot be restored")


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` found: ``tensors`` in the order of the model, and ``topology_problem`` where it has one.

    ``sqnr_db`` is that of all weights together, from their summed squares, None if all tensors are exact; vectors,
    which are coded more finely and can be of any scale, count only if there is nothing else. ``worst`` names the tensor
    with the lowest of its own.
    """

    accepted: bool
    topology: TopologyVerdict
    topology_problem: str | None
    sqnr_db: float | None
    worst: str | None
    tensors: tuple[TensorComparison, ...]


@reaching(["original", "compressed"])
def verify(
    original: str | Path,
    compressed: str | Path,
    *,
    min_sqnr: float = MIN_SQNR,
    keep_optimizer: bool = True,
    opaque: bool = False,
    strip_debug: bool = False,
    drop_masked: bool = False,
    rules: Iterable[Rule] = (),
    threads: int | None = None,
    executor: Executor | None = None,
    meter: Meter | None = None,
    limits: Limits | None = None,
) -> VerifyReport:
    """Compare the NNR bitstream ``compressed`` with the model it was made from, and restore it in a temporary folder.

    Not acceptable are a tensor below ``min_sqnr`` decibels, zeros that became something else, changes of what must be
    exact, values that are no longer finite, tensors that are missing or have another shape, and a topology that differs
    or from which no model can be restored. ``rules`` are those that the model was compressed with: what they quantize
    may change. ``compressed`` may also be a container of NNR, or a sharded model, whose files an ``executor`` compares
    in other processes or on other machines. The other arguments are those of `compress`.

    Raises what `compress` and `decompress` raise if one of the two cannot be read.
    """
    original, compressed = Path(original), Path(compressed)
    if is_sharded(compressed):
        from nnc_adapters.sharded import verify as verify_files

        return verify_files(
            original,
            compressed,
            executor=executor,
            min_sqnr=min_sqnr,
            keep_optimizer=keep_optimizer,
            opaque=opaque,
            strip_debug=strip_debug,
            drop_masked=drop_masked,
            rules=rules,
            threads=threads,
            meter=meter,
            limits=limits,
        )
    if executor is not None:
        raise ModelError("is not a sharded model: several workers can compare only those", file=str(compressed))
    bounds = (limits or Limits()).following(size_of(original))
    options = Options(bounds, keep_optimizer, opaque, strip_debug=strip_debug)
    with about(compressed), plain(compressed, options.limits) as path, nnc_core.open(path, limits=limits) as file:
        with about(original):
            adapter = registry.find(original)
            options = replace(options, chosen=_besides(adapter.read(original, options), file))
            model = adapter.read(original, options)
            model = with_pruning_topology(model, adapter.masks(model.tensors), drop=drop_masked)
        return report(*compared(model, file, options, min_sqnr, tuple(rules), threads, meter))


def compared(
    model: SourceModel,
    file: NnrFile,
    options: Options,
    min_sqnr: float,
    rules: Sequence[Rule],
    threads: int | None = None,
    meter: Meter | None = None,
    prefix: str = "",
) -> tuple[TopologyVerdict, str | None, tuple[TensorComparison, ...]]:
    """What `report` needs: a model beside its bitstream. Rules know its tensors by their names with a ``prefix``."""
    verdict: TopologyVerdict = compare_topology(model.topology, file.topology)
    with file.decoding_ahead(threads) as decoded:
        watched = Watched(decoded, passed=passing(meter, "comparing", decoded_bytes(file)))
        found = _Compared(model, watched)
        problem = None if file.topology is None else _restore(file.topology, found, options)
        tensors = tuple(judge(each, model, min_sqnr, rules, prefix) for each in found.all())
    return "cannot be restored" if problem else verdict, problem, tensors


def _besides(model: SourceModel, names: Iterable[str]) -> frozenset[str]:
    """The tensors of a bitstream that a model has only where a rule asked for them."""
    return frozenset(name for name in names if name not in model.tensors)


def report(topology: TopologyVerdict, problem: str | None, tensors: tuple[TensorComparison, ...]) -> VerifyReport:
    """The verdict on what was compared."""
    accepted = topology not in _BAD_TOPOLOGY and all(t.problem is None for t in tensors)
    noisy = [t for t in tensors if t.sqnr_db is not None and not t.exact]
    weights = [t for t in noisy if not is_vector(t.shape)] or noisy
    total = decibel(sum(t.energy for t in weights), sum(t.error_energy for t in weights)) if weights else None
    worst = min(noisy, key=lambda t: t.sqnr_db or -math.inf, default=None)
    return VerifyReport(accepted, topology, problem, total, worst.name if worst else None, tensors)


class _Compared(LazyMapping[NDArray[Any]]):
    """Decoded tensors that are compared with the model's as they pass, so that each is decoded once."""

    def __init__(self, model: SourceModel, decoded: Mapping[str, NDArray[Any]]) -> None:
        self._original = model.tensors
        self._decoded = decoded
        self._passed: dict[str, TensorComparison] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        array = self._decoded[name]
        if name in self._original and name not in self._passed:
            self._passed[name] = compare_tensor(name, self._original[name], array)
        return array

    def _names(self) -> Collection[str]:
        return self._decoded

    def all(self) -> Iterator[TensorComparison]:
        """The comparison of every tensor, in the model's order, then those that only the bitstream has."""
        for name in (*self._original, *(name for name in self._decoded if name not in self._original)):
            yield self._passed.get(name) or compare(name, self._original, self._decoded)


def _restore(topology: Topology, tensors: Mapping[str, NDArray[Any]], options: Options) -> str | None:
    """Write the model that the bitstream restores to, and read it; what prevents that, if anything."""
    try:
        adapter = registry.adapter(topology.storage_format)
    except UnsupportedError as error:
        return str(error)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "model" + adapter.default_suffix(topology))
            adapter.write(tensors, topology, path, options)
            restored = adapter.read(path, replace(options, chosen=frozenset(tensors), only=True)).tensors
    except ModelError as error:
        return error.message
    # Not the topologies: those of some formats have checksums of the weights.
    return None if restored.keys() == tensors.keys() else "the restored model has other tensors"
