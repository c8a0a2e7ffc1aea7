"""``nnr_layer_parameter_set_unit_header()`` and ``nnr_layer_parameter_set_payload()``."""

from __future__ import annotations

from nnc_core.records import dataclass
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.driver import Elements, Syntax
from nnc_core.syntax.performance_maps import (
    MAP_COUNTS,
    MapCounts,
    PruningEntry,
    SparsificationEntry,
    UnificationEntry,
    pruning_performance_map,
    sparsification_performance_map,
    unification_performance_map,
)
from nnc_core.tables.code_points import QUANTIZED

_RULE = "performance-maps-size"


@dataclass(slots=True)
class LayerParameterSet:
    """``nnr_layer_parameter_set_unit_header()`` and ``nnr_layer_parameter_set_payload()``; ``None``: absent."""

    lps_self_contained_flag: bool = False
    lps_sparsification_flag: bool = False
    lps_pruning_flag: bool = False
    lps_unification_flag: bool = False
    lps_quantization_method_flags: int = 0
    lps_qp_density: int | None = None
    lps_quantization_parameter: int | None = None
    sparsification_performance_map: tuple[SparsificationEntry, ...] = ()
    pruning_performance_map: tuple[PruningEntry, ...] = ()
    unification_performance_map: tuple[UnificationEntry, ...] = ()
    map_counts: MapCounts = MAP_COUNTS[0]


def nnr_layer_parameter_set(s: Syntax, p: LayerParameterSet, ctx: SyntaxContext) -> None:
    """``nnr_layer_parameter_set_unit_header()`` (clause 6.3.3.4) and its payload (clause 6.3.4.4)."""
    e = Elements(s, p)
    e.flag("lps_self_contained_flag")
    s.reserved(7, "nnr_reserved_zero_7bits")
    s.reserved(1, "nnr_reserved_zero_1_bit")
    e.flag("lps_sparsification_flag")
    e.flag("lps_pruning_flag")
    e.flag("lps_unification_flag")
    e.u(3, "lps_quantization_method_flags")
    s.reserved(1, "nnr_reserved_zero_1bit")
    quantized = bool(p.lps_quantization_method_flags & QUANTIZED)
    e.u(3, "lps_qp_density", when=quantized)
    e.i(13, "lps_quantization_parameter", when=quantized)
    if p.lps_sparsification_flag or p.lps_pruning_flag or p.lps_unification_flag:
        p.map_counts = s.first_fit(MAP_COUNTS, p.map_counts, lambda counts: _maps(s, e, p, counts), _RULE)
    else:
        _maps(s, e, p, p.map_counts)


def _maps(s: Syntax, e: Elements, p: LayerParameterSet, counts: MapCounts) -> None:
    e.nested("sparsification_performance_map", sparsification_performance_map, counts, when=p.lps_sparsification_flag)
    e.nested("pruning_performance_map", pruning_performance_map, counts, when=p.lps_pruning_flag)
    e.nested("unification_performance_map", unification_performance_map, counts, when=p.lps_unification_flag)
    s.byte_alignment()
