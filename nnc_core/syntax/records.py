"""What the syntax tables hold: one record per table, with the standard's element names and inferred values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from nnc_core.entropy.parameters import EntryPoint
from nnc_core.limits import Limits
from nnc_core.syntax.codebook import IntegerCodebook
from nnc_core.syntax.elements import Buffer
from nnc_core.tables.code_points import CompressedParameterTypes, ParentNodeIdType, PayloadType

_WEIGHT_ONLY: Final = CompressedParameterTypes(0)


@dataclass(slots=True)
class UnitHeader:
    """``nnr_unit_size()`` and the part of ``nnr_unit_header()`` that all units share."""

    nnr_unit_size: int = 0
    nnr_unit_type: int = 0
    independently_decodable_flag: bool = True
    partial_data_counter_present_flag: bool = False
    partial_data_counter: int = 0


@dataclass(slots=True)
class StartUnitHeader:
    """``nnr_start_unit_header()``."""

    general_profile_idc: int = 1


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
    """``nnr_topology_unit_payload()``: the reference list of a NNR_TPL_REFLIST, or data in another format's terms."""

    topology_elements_ids_list: TopologyElementsIdsList = field(default_factory=TopologyElementsIdsList)
    topology_data: Buffer = b""


@dataclass(slots=True)
class QuantizationUnitHeader:
    """``nnr_quantization_unit_header()``; values beyond the enumerations are reserved or private."""

    quantization_storage_format: int = 0
    quantization_compression_format: int = 0


@dataclass(slots=True)
class QuantizationUnitPayload:
    """``nnr_quantization_unit_payload()``: data in another format's terms."""

    quantization_data: Buffer = b""


@dataclass(slots=True)
class TensorDimensionMapping:
    """``topology_tensor_dimension_mapping()``; ``shifts`` has pairs (``shift_index``, ``shift_value``) per tensor."""

    concatenation_axis_index: int = 0
    split_index: tuple[int, ...] = ()
    shifts: tuple[tuple[tuple[int, int], ...], ...] = ()


@dataclass(slots=True)
class CompressedDataUnitHeader:
    """``nnr_compressed_data_unit_header()``.

    What may come from outside the bitstream (`InputParameters`) has its value here all the same; the flags tell what
    was sent. ``None`` stands for what is absent. ``integer_codebook_h`` is the second codebook of a decomposed block.
    """

    nnr_compressed_data_unit_payload_type: PayloadType = PayloadType.NNR_PT_FLOAT
    nnr_multiple_topology_elements_present_flag: bool = False
    nnr_decompressed_data_format_present_flag: bool = False
    input_parameters_present_flag: bool = True
    topology_elements_ids_list: TopologyElementsIdsList = field(default_factory=TopologyElementsIdsList)
    topology_elem_id: str | None = None
    topology_elem_id_index: int | None = None
    node_id_present_flag: bool = False
    device_id: int | None = None
    parameter_id: int | None = None
    put_node_depth: int | None = None
    parent_node_id_present_flag: bool = False
    parent_node_id_type: ParentNodeIdType | None = None
    temporal_context_modeling_flag: bool = False
    parent_device_id: int | None = None
    parent_node_payload_sha256: int | None = None
    parent_node_payload_sha512: int | None = None
    codebook_present_flag: bool = False
    integer_codebook: IntegerCodebook | None = None
    dq_flag: bool = False
    nnr_decompressed_data_format: int | None = None
    tensor_dimensions_flag: bool = True
    cabac_unary_length_flag: bool = True
    compressed_parameter_types: CompressedParameterTypes = _WEIGHT_ONLY
    decomposition_rank: int | None = None
    g_number_of_rows: int | None = None
    tensor_dimensions: tuple[int, ...] = ()
    topology_tensor_dimension_mapping: TensorDimensionMapping | None = None
    cabac_unary_length_minus1: int = 9
    integer_codebook_h: IntegerCodebook | None = None
    first_tensor_dimension_shift: int = 0
    scan_order: int = 0
    entry_points: tuple[EntryPoint, ...] = ()


@dataclass(frozen=True, slots=True)
class InputParameters:
    """Input parameters of a tensor that reach the decoder by other ways than the data unit; ``None``: not known."""

    tensor_dimensions: tuple[int, ...] | None = None
    cabac_unary_length_minus1: int | None = None
    compressed_parameter_types: int | None = None
    decomposition_rank: int | None = None
    g_number_of_rows: int | None = None


def nothing_known(topology_elem_id: str) -> InputParameters | None:
    """Know no input parameters of any tensor."""
    return None


@dataclass(frozen=True, slots=True)
class SyntaxContext:
    """What a syntax table needs from other units and from outside the bitstream.

    ``topology_elements`` is the reference list that indices point into. ``input_parameters`` looks up what is known
    of a tensor by its name. ``factor_g`` is the header of the data unit just before, if that one holds the factor G of
    a decomposed tensor: the unit in hand then holds H.
    """

    general_profile_idc: int = 1
    mps_parent_signalling_enabled_flag: bool = False
    mps_topology_indexed_reference_flag: bool = False
    topology_elements: tuple[str, ...] = ()
    input_parameters: Callable[[str], InputParameters | None] = nothing_known
    factor_g: CompressedDataUnitHeader | None = None
    limits: Limits = field(default_factory=Limits)

    def with_parameters(self, mps: ModelParameterSet) -> SyntaxContext:
        """Take over what a model parameter set says."""
        return replace(
            self,
            mps_parent_signalling_enabled_flag=mps.mps_parent_signalling_enabled_flag,
            mps_topology_indexed_reference_flag=mps.mps_topology_indexed_reference_flag,
        )
