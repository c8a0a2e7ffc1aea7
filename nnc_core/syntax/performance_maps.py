"""Performance maps: how good the network is when more of it is left out (clause 6.3.4.3; in NNR_MPS and NNR_LPS).

They inform applications and never influence decoding. A map is a tuple of entries. Its count elements may stand for
the number of entries or for one more, see `MapCounts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeVar

from nnc_core.records import dataclass
from nnc_core.syntax.driver import POSITIVE, Elements, Indexed, Syntax


class MapCounts(NamedTuple):
    """By how much the count elements exceed what follows them: entries of a map, classes of an entry, dimensions.

    The text prints "count - 1" as the last index of some loops where the semantics speak of a number, and decoders
    differ. Nothing published settles it.
    """

    entries: int = 1
    classes: int = 0
    dimensions: int = 1


MAP_COUNTS: Final = tuple(
    MapCounts(entries, classes, dimensions) for classes in (0, 1) for entries in (1, 0) for dimensions in (1, 0)
)
"""All readings; the one that the known decoders share comes first."""


@dataclass(slots=True)
class SparsificationEntry:
    """One entry of ``sparsification_performance_map()``; class accuracies in ascending order of classes."""

    sparsification_threshold: float = 0.0
    non_zero_ratio: float = 0.0
    spm_nn_accuracy: float = 0.0
    spm_class_bitmask: int = 0
    spm_nn_class_accuracy: tuple[float, ...] = ()


@dataclass(slots=True)
class PruningEntry:
    """One entry of ``pruning_performance_map()``; class accuracies in ascending order of classes."""

    pruning_ratio: float = 0.0
    ppm_nn_accuracy: float = 0.0
    ppm_class_bitmask: int = 0
    ppm_nn_class_accuracy: tuple[float, ...] = ()


@dataclass(slots=True)
class UnificationEntry:
    """One entry of ``unification_performance_map()``; class accuracies in ascending order of classes."""

    reshaped_tensor_dimensions: tuple[int, ...] = ()
    super_block_dimensions: tuple[int, ...] = ()
    block_dimensions: tuple[int, ...] = ()
    unification_threshold: float = 0.0
    upm_nn_accuracy: float = 0.0
    upm_class_bitmask: int = 0
    upm_nn_class_accuracy: tuple[float, ...] = ()


@dataclass(slots=True)
class DecompositionEntry:
    """One entry of ``decomposition_performance_map()``."""

    mse_threshold: float = 0.0
    dpm_nn_accuracy: float = 0.0
    nn_reduction_ratio: float = 0.0
    dpm_nn_class_accuracy: tuple[float, ...] = ()


EntryT = TypeVar("EntryT", SparsificationEntry, PruningEntry, UnificationEntry, DecompositionEntry)


def sparsification_performance_map(
    s: Syntax, entries: Iterable[SparsificationEntry], counts: MapCounts
) -> tuple[SparsificationEntry, ...]:
    """``sparsification_performance_map()``."""
    return _entries(s, "spm_count_thresholds", tuple(entries), SparsificationEntry, _sparsification, counts)


def _sparsification(s: Syntax, entry: SparsificationEntry, counts: MapCounts) -> None:
    e = Elements(s, entry)
    e.flt("sparsification_threshold")
    e.flt("non_zero_ratio")
    e.flt("spm_nn_accuracy")
    classes = _count(s, 8, "spm_count_classes", entry.spm_nn_class_accuracy, counts.classes, 32)
    e.ue(7, "spm_class_bitmask")
    e.array("spm_nn_class_accuracy", classes, s.flt, 0.0)


def pruning_performance_map(s: Syntax, entries: Iterable[PruningEntry], counts: MapCounts) -> tuple[PruningEntry, ...]:
    """``pruning_performance_map()``."""
    return _entries(s, "ppm_count_pruning_ratios", tuple(entries), PruningEntry, _pruning, counts)


def _pruning(s: Syntax, entry: PruningEntry, counts: MapCounts) -> None:
    e = Elements(s, entry)
    e.flt("pruning_ratio")
    e.flt("ppm_nn_accuracy")
    classes = _count(s, 8, "ppm_count_classes", entry.ppm_nn_class_accuracy, counts.classes, 32)
    e.ue(7, "ppm_class_bitmask")
    e.array("ppm_nn_class_accuracy", classes, s.flt, 0.0)


def unification_performance_map(
    s: Syntax, entries: Iterable[UnificationEntry], counts: MapCounts
) -> tuple[UnificationEntry, ...]:
    """``unification_performance_map()``."""
    return _entries(s, "upm_count_thresholds", tuple(entries), UnificationEntry, _unification, counts)


def _unification(s: Syntax, entry: UnificationEntry, counts: MapCounts) -> None:
    e = Elements(s, entry)
    extra = counts.dimensions
    given = len(entry.reshaped_tensor_dimensions) + extra
    dimensions = max(0, s.ue(1, "count_reshaped_tensor_dimension", given) - extra)
    s.expect(dimensions, 8, "count_reshaped_tensor_dimension")
    e.array("reshaped_tensor_dimensions", dimensions, lambda name, size: s.ue(7, name, size, POSITIVE), 1)
    s.byte_alignment()
    dimensions = _count(s, 8, "count_super_block_dimension", entry.super_block_dimensions, extra, 8)
    e.array("super_block_dimensions", dimensions, lambda name, size: s.u(8, name, size), 0)
    dimensions = _count(s, 8, "count_block_dimension", entry.block_dimensions, extra, 8)
    e.array("block_dimensions", dimensions, lambda name, size: s.u(8, name, size), 0)
    e.flt("unification_threshold")
    e.flt("upm_nn_accuracy")
    classes = _count(s, 8, "upm_count_classes", entry.upm_nn_class_accuracy, counts.classes, 32)
    e.ue(7, "upm_class_bitmask")
    e.array("upm_nn_class_accuracy", classes, s.flt, 0.0)


def decomposition_performance_map(
    s: Syntax, entries: Iterable[DecompositionEntry], counts: MapCounts
) -> tuple[DecompositionEntry, ...]:
    """``decomposition_performance_map()``."""
    return _entries(s, "dpm_count_thresholds", tuple(entries), DecompositionEntry, _decomposition, counts)


def _decomposition(s: Syntax, entry: DecompositionEntry, counts: MapCounts) -> None:
    e = Elements(s, entry)
    e.flt("mse_threshold")
    e.flt("dpm_nn_accuracy")
    e.flt("nn_reduction_ratio")
    classes = _count(s, 16, "dpm_count_classes", entry.dpm_nn_class_accuracy, counts.classes, 32)
    e.array("dpm_nn_class_accuracy", classes, s.flt, 0.0)


def _entries(
    s: Syntax,
    name: str,
    given: tuple[EntryT, ...],
    record: Callable[[], EntryT],
    table: Callable[[Syntax, EntryT, MapCounts], None],
    counts: MapCounts,
) -> tuple[EntryT, ...]:
    """The entries of a map: those given are written, otherwise new ones are filled."""
    count = _count(s, 8, name, given, counts.entries, 64)
    entries = given if len(given) == count else tuple(record() for _ in range(count))
    for i, entry in enumerate(entries):
        table(Indexed(s, i), entry, counts)
    return entries


def _count(s: Syntax, bits: int, name: str, given: tuple[Any, ...], extra: int, least: int) -> int:
    """The number of items that follow, of ``least`` bits each; the element may say ``extra`` more."""
    count = max(0, s.u(bits, name, len(given) + extra) - extra)
    s.expect(count, least, name)
    return count
