"""``nnr_model_parameter_set_payload()``."""

from __future__ import annotations

from nnc_core.records import dataclass
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.driver import Elements, Syntax
from nnc_core.syntax.performance_maps import (
    MAP_COUNTS,
    DecompositionEntry,
    MapCounts,
    PruningEntry,
    SparsificationEntry,
    UnificationEntry,
    decomposition_performance_map,
    pruning_performance_map,
    sparsification_performance_map,
    unification_performance_map,
)
from nnc_core.tables.code_points import QUANTIZED, GeneralProfileIdc

_RULE = "performance-maps-size"


@dataclass(slots=True)
class ModelParameterSet:
    """``nnr_model_parameter_set_payload()``; ``None`` for what is absent."""

    topology_carriage_flag: bool = False
    mps_sparsification_flag: bool = False
    mps_pruning_flag: bool = False
    mps_unification_flag: bool = False
    mps_decomposition_performance_map_flag: bool = False
    mps_quantization_method_flags: int = 0
    mps_topology_indexed_reference_flag: bool = False
    base_model_id_present_flag: bool = False
    validation_set_performance_present_flag: bool = False
    metric_type_performance_map_valid_flag: bool = False
    mps_parent_signalling_enabled_flag: bool = False
    nnr_pre_flag: bool = False
    base_model_id: str | None = None
    performance_metric_type: str | None = None
    mps_qp_density: int | None = None
    mps_quantization_parameter: int | None = None
    sparsification_performance_map: tuple[SparsificationEntry, ...] = ()
    pruning_performance_map: tuple[PruningEntry, ...] = ()
    unification_performance_map: tuple[UnificationEntry, ...] = ()
    decomposition_performance_map: tuple[DecompositionEntry, ...] = ()
    validation_set_performance: float | None = None
    map_counts: MapCounts = MAP_COUNTS[0]


def nnr_model_parameter_set_payload(s: Syntax, p: ModelParameterSet, ctx: SyntaxContext) -> None:
    """``nnr_model_parameter_set_payload()`` (clause 6.3.4.3)."""
    e = Elements(s, p)
    e.flag("topology_carriage_flag")
    e.flag("mps_sparsification_flag")
    e.flag("mps_pruning_flag")
    e.flag("mps_unification_flag")
    e.flag("mps_decomposition_performance_map_flag")
    e.u(3, "mps_quantization_method_flags")
    e.flag("mps_topology_indexed_reference_flag")
    _tool_set(s, e, p, ctx)
    quantized = bool(p.mps_quantization_method_flags & QUANTIZED)
    e.u(3, "mps_qp_density", when=quantized)
    e.i(13, "mps_quantization_parameter", when=quantized)
    if _has_maps(p):
        p.map_counts = s.first_fit(MAP_COUNTS, p.map_counts, lambda counts: _maps(s, e, p, counts), _RULE)
    else:
        _maps(s, e, p, p.map_counts)


def _tool_set(s: Syntax, e: Elements, p: ModelParameterSet, ctx: SyntaxContext) -> None:
    """The elements that ``general_profile_idc`` 1 has where 0 has reserved bits, down to the texts."""
    extended = ctx.general_profile_idc == GeneralProfileIdc.EXTENDED
    if not extended:
        s.reserved(7, "nnr_reserved_zero_7bits")
    e.flag("base_model_id_present_flag", when=extended)
    e.flag("validation_set_performance_present_flag", when=extended)
    e.flag("metric_type_performance_map_valid_flag", when=extended)
    e.flag("mps_parent_signalling_enabled_flag", when=extended)
    e.flag("nnr_pre_flag", when=p.mps_parent_signalling_enabled_flag)
    if extended:
        if not p.mps_parent_signalling_enabled_flag:
            s.reserved(1, "nnr_reserved_zero_1bit")
        s.reserved(2, "nnr_reserved_zero_2bits")
    longest = ctx.limits.name_length
    e.st("base_model_id", longest, when=p.base_model_id_present_flag)
    measured = p.validation_set_performance_present_flag or p.metric_type_performance_map_valid_flag
    e.st("performance_metric_type", longest, when=measured)


def _has_maps(p: ModelParameterSet) -> bool:
    return (
        p.mps_sparsification_flag
        or p.mps_pruning_flag
        or p.mps_unification_flag
        or p.mps_decomposition_performance_map_flag
    )


def _maps(s: Syntax, e: Elements, p: ModelParameterSet, counts: MapCounts) -> None:
    e.nested("sparsification_performance_map", sparsification_performance_map, counts, when=p.mps_sparsification_flag)
    e.nested("pruning_performance_map", pruning_performance_map, counts, when=p.mps_pruning_flag)
    e.nested("unification_performance_map", unification_performance_map, counts, when=p.mps_unification_flag)
    decomposed = p.mps_decomposition_performance_map_flag
    e.nested("decomposition_performance_map", decomposition_performance_map, counts, when=decomposed)
    e.flt("validation_set_performance", when=p.validation_set_performance_present_flag)
    s.byte_alignment()
