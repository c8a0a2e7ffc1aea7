"""``nnr_model_parameter_set_payload()``."""

from __future__ import annotations

from dataclasses import dataclass

from nnc_core.errors import UnsupportedError
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.driver import Syntax
from nnc_core.tables.code_points import GeneralProfileIdc, QuantizationMethodFlags

_QUANTIZED = QuantizationMethodFlags.NNR_QSU | QuantizationMethodFlags.NNR_QCB


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
    validation_set_performance: float | None = None


def nnr_model_parameter_set_payload(s: Syntax, p: ModelParameterSet, ctx: SyntaxContext) -> None:
    """``nnr_model_parameter_set_payload()``."""
    p.topology_carriage_flag = s.flag("topology_carriage_flag", p.topology_carriage_flag)
    p.mps_sparsification_flag = s.flag("mps_sparsification_flag", p.mps_sparsification_flag)
    p.mps_pruning_flag = s.flag("mps_pruning_flag", p.mps_pruning_flag)
    p.mps_unification_flag = s.flag("mps_unification_flag", p.mps_unification_flag)
    p.mps_decomposition_performance_map_flag = s.flag(
        "mps_decomposition_performance_map_flag", p.mps_decomposition_performance_map_flag
    )
    p.mps_quantization_method_flags = s.u(3, "mps_quantization_method_flags", p.mps_quantization_method_flags)
    p.mps_topology_indexed_reference_flag = s.flag(
        "mps_topology_indexed_reference_flag", p.mps_topology_indexed_reference_flag
    )
    if ctx.general_profile_idc == GeneralProfileIdc.EXTENDED:
        _extended(s, p, ctx)
    else:
        _base(s, p)
    quantized = bool(p.mps_quantization_method_flags & _QUANTIZED)
    p.mps_qp_density = s.u(3, "mps_qp_density", p.mps_qp_density or 0) if quantized else None
    qp = p.mps_quantization_parameter or 0
    p.mps_quantization_parameter = s.i(13, "mps_quantization_parameter", qp) if quantized else None
    _performance_maps(p)
    measured = p.validation_set_performance_present_flag
    performance = p.validation_set_performance or 0.0
    p.validation_set_performance = s.flt("validation_set_performance", performance) if measured else None
    s.byte_alignment()


def _base(s: Syntax, p: ModelParameterSet) -> None:
    """What ``general_profile_idc`` 0 has in the place of `_extended`; nothing of that is there."""
    s.reserved(7, "nnr_reserved_zero_7bits")
    p.base_model_id_present_flag = p.validation_set_performance_present_flag = False
    p.metric_type_performance_map_valid_flag = p.mps_parent_signalling_enabled_flag = p.nnr_pre_flag = False
    p.base_model_id = p.performance_metric_type = None


def _extended(s: Syntax, p: ModelParameterSet, ctx: SyntaxContext) -> None:
    """The elements that ``general_profile_idc`` 1 adds, down to the texts."""
    p.base_model_id_present_flag = s.flag("base_model_id_present_flag", p.base_model_id_present_flag)
    p.validation_set_performance_present_flag = s.flag(
        "validation_set_performance_present_flag", p.validation_set_performance_present_flag
    )
    p.metric_type_performance_map_valid_flag = s.flag(
        "metric_type_performance_map_valid_flag", p.metric_type_performance_map_valid_flag
    )
    p.mps_parent_signalling_enabled_flag = s.flag(
        "mps_parent_signalling_enabled_flag", p.mps_parent_signalling_enabled_flag
    )
    if p.mps_parent_signalling_enabled_flag:
        p.nnr_pre_flag = s.flag("nnr_pre_flag", p.nnr_pre_flag)
    else:
        p.nnr_pre_flag = False
        s.reserved(1, "nnr_reserved_zero_1bit")
    s.reserved(2, "nnr_reserved_zero_2bits")
    longest = ctx.limits.name_length
    based = p.base_model_id_present_flag
    p.base_model_id = s.st("base_model_id", p.base_model_id or "", longest) if based else None
    named = p.validation_set_performance_present_flag or p.metric_type_performance_map_valid_flag
    metric = p.performance_metric_type or ""
    p.performance_metric_type = s.st("performance_metric_type", metric, longest) if named else None


def _performance_maps(p: ModelParameterSet) -> None:
    if p.mps_sparsification_flag:
        raise UnsupportedError("sparsification_performance_map")
    if p.mps_pruning_flag:
        raise UnsupportedError("pruning_performance_map")
    if p.mps_unification_flag:
        raise UnsupportedError("unification_performance_map")
    if p.mps_decomposition_performance_map_flag:
        raise UnsupportedError("decomposition_performance_map")
