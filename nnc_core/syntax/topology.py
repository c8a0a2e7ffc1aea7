"""Topology units: header, payload, and the list of tensor names that data units may refer to."""

from __future__ import annotations

from dataclasses import field
from functools import partial

from nnc_core.records import dataclass
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.driver import Buffer, Elements, Syntax
from nnc_core.syntax.pruning import PruningTopologyContainer, nnr_pruning_topology_container
from nnc_core.tables.code_points import TopologyStorageFormat


@dataclass(slots=True)
class TopologyUnitHeader:
    """``nnr_topology_unit_header()``; values beyond the enumerations are reserved or private."""

    topology_storage_format: int = 0
    topology_compression_format: int = 0


@dataclass(slots=True)
class TopologyElementsIdsList:
    """``topology_elements_ids_list()``: names, or indices into the reference list."""

    topology_elem_id_list: tuple[str, ...] = ()
    topology_elem_id_index_list: tuple[int, ...] = ()


@dataclass(slots=True)
class TopologyUnitPayload:
    """``nnr_topology_unit_payload()``: what an NNR_TPL_REFLIST or NNR_TPL_PRUN has, or data in other terms."""

    topology_elements_ids_list: TopologyElementsIdsList = field(default_factory=TopologyElementsIdsList)
    pruning: PruningTopologyContainer = field(default_factory=PruningTopologyContainer)
    topology_data: Buffer = b""


def nnr_topology_unit_header(s: Syntax, h: TopologyUnitHeader, ctx: SyntaxContext) -> None:
    """``nnr_topology_unit_header()`` (clause 6.3.3.5)."""
    e = Elements(s, h)
    e.u(8, "topology_storage_format")
    e.u(8, "topology_compression_format")


def topology_elements_ids_list(s: Syntax, ids: TopologyElementsIdsList, indexed: bool, ctx: SyntaxContext) -> None:
    """``topology_elements_ids_list()`` (clause 6.3.4.5): at least two names, or indices in their place."""
    e = Elements(s, ids)
    given = len(ids.topology_elem_id_index_list if indexed else ids.topology_elem_id_list)
    count = 2 + s.ue(7, "count_topology_elements_minus2", given - 2)
    s.expect(count, 8, "count_topology_elements_minus2")
    ctx.limits.check("units", count, "count_topology_elements_minus2")
    if indexed:
        e.array("topology_elem_id_index_list", count, partial(s.ue, 7), 0)
        s.byte_alignment()
    else:
        s.byte_alignment()
        longest = ctx.limits.name_length
        e.array("topology_elem_id_list", count, lambda name, value: s.st(name, value, longest), "")


def nnr_topology_unit_payload(s: Syntax, p: TopologyUnitPayload, h: TopologyUnitHeader, ctx: SyntaxContext) -> None:
    """``nnr_topology_unit_payload()`` (clause 6.3.4.5), of data that are not compressed (any more)."""
    if h.topology_storage_format == TopologyStorageFormat.NNR_TPL_PRUN:
        nnr_pruning_topology_container(s, p.pruning, ctx)
    elif h.topology_storage_format == TopologyStorageFormat.NNR_TPL_REFLIST:
        topology_elements_ids_list(s, p.topology_elements_ids_list, False, ctx)
    else:
        Elements(s, p).bs("topology_data")
