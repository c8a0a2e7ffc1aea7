"""The pruning topology container: which weights are gone (clause 6.3.4.5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from enum import IntEnum
from functools import partial
from typing import Final

from nnc_core.records import dataclass
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.driver import POSITIVE, Buffer, Elements, Indexed, Syntax
from nnc_core.tables.code_points import PruningRepresentationType


class DictionaryLayout(IntEnum):
    """Where ``byte_alignment()`` stands in a pruning dictionary, and whether identifiers precede all dimensions.

    Nothing published settles it.
    """

    ALIGNED_ENTRIES = 0
    ALIGNED_END = 1
    IDENTIFIERS_FIRST = 2


LAYOUTS: Final = tuple(DictionaryLayout)
"""All readings, in the order in which they are tried."""


@dataclass(slots=True)
class BitMask:
    """``bit_mask()``: ``count_bits`` bits, packed as they stand in the bitstream, the last byte filled with zeros."""

    count_bits: int = 0
    bit_mask_value: Buffer = b""


@dataclass(slots=True)
class PrunedElement:
    """An entry of the pruning dictionary: a tensor, by name or by index, and the dimensions it has after pruning."""

    element_id: str | None = None
    element_id_index: int | None = None
    dim: tuple[int, ...] = ()


@dataclass(slots=True)
class PruningTopologyContainer:
    """``nnr_pruning_topology_container()``; a mask or the dictionary counts where the flags say so."""

    nnr_rep_type: PruningRepresentationType = PruningRepresentationType.NNR_TPL_BMSK
    prune_flag: bool = False
    order_flag: bool = False
    sparse_flag: bool = False
    prune_mask: BitMask = field(default_factory=BitMask)
    dictionary: tuple[PrunedElement, ...] = ()
    sparse_mask: BitMask = field(default_factory=BitMask)
    layout: DictionaryLayout = DictionaryLayout.ALIGNED_ENTRIES


_EntryTable = Callable[[Syntax, PrunedElement, SyntaxContext], None]


def nnr_pruning_topology_container(s: Syntax, c: PruningTopologyContainer, ctx: SyntaxContext) -> None:
    """``nnr_pruning_topology_container()``."""
    e = Elements(s, c)
    e.code(2, "nnr_rep_type", PruningRepresentationType)
    e.flag("prune_flag")
    e.flag("order_flag")
    e.flag("sparse_flag")
    s.reserved(3, "nnr_reserved_zero_3bits")
    if c.prune_flag and c.nnr_rep_type == PruningRepresentationType.NNR_TPL_DICT:
        c.layout = s.first_fit(LAYOUTS, c.layout, partial(_dictionary_and_mask, s, c, ctx), "pruning-size")
        return
    if c.prune_flag:
        bit_mask(s, c.prune_mask, "prune")
    _sparse_mask(s, c)


def _dictionary_and_mask(s: Syntax, c: PruningTopologyContainer, ctx: SyntaxContext, layout: DictionaryLayout) -> None:
    pruning_dictionary(s, c, ctx, layout)
    _sparse_mask(s, c)


def _sparse_mask(s: Syntax, c: PruningTopologyContainer) -> None:
    if c.sparse_flag:
        bit_mask(s, c.sparse_mask, "sparse")


def bit_mask(s: Syntax, m: BitMask, kind: str) -> None:
    """``bit_mask()``; how many bits there are does not follow from the number of weights."""
    m.count_bits = s.u(32, f"count_bits[{kind}]", m.count_bits)
    m.bit_mask_value = s.mask(m.count_bits, f"bit_mask_value[{kind}]", m.bit_mask_value)
    s.byte_alignment()


def pruning_dictionary(s: Syntax, c: PruningTopologyContainer, ctx: SyntaxContext, layout: DictionaryLayout) -> None:
    """The dictionary of a container with ``nnr_rep_type`` NNR_TPL_DICT."""
    count = s.u(8, "count_ids", len(c.dictionary))
    s.expect(count, 8, "count_ids")
    if len(c.dictionary) != count:
        c.dictionary = tuple(PrunedElement() for _ in range(count))
    if layout == DictionaryLayout.IDENTIFIERS_FIRST:
        _each(s, c, ctx, _identifier)
        _each(s, c, ctx, _dimensions)
    else:
        aligned = layout == DictionaryLayout.ALIGNED_ENTRIES
        _each(s, c, ctx, *(_identifier, _dimensions, _alignment)[: 2 + aligned])
    if layout != DictionaryLayout.ALIGNED_ENTRIES:
        s.byte_alignment()


def _each(s: Syntax, c: PruningTopologyContainer, ctx: SyntaxContext, *tables: _EntryTable) -> None:
    for j, entry in enumerate(c.dictionary):
        for table in tables:
            table(Indexed(s, j), entry, ctx)


def _alignment(s: Syntax, entry: PrunedElement, ctx: SyntaxContext) -> None:
    s.byte_alignment()


def _identifier(s: Syntax, entry: PrunedElement, ctx: SyntaxContext) -> None:
    e, indexed = Elements(s, entry), ctx.mps_topology_indexed_reference_flag
    e.st("element_id", ctx.limits.name_length, when=not indexed)
    e.ue(7, "element_id_index", when=indexed)


def _dimensions(s: Syntax, entry: PrunedElement, ctx: SyntaxContext) -> None:
    count = ctx.limits.check("dimensions", s.ue(1, "count_dims", len(entry.dim)), "count_dims")
    Elements(s, entry).array("dim", count, lambda name, size: s.ue(7, name, size, POSITIVE), 1)
