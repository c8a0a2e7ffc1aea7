"""The bitstream above the arithmetic coder: one function per syntax table, five drivers that run them.

A table (`nnr_compressed_data_unit_header`, ...) takes a driver, a record and, where it depends on other units, a
`SyntaxContext`. `Reader` fills the record, `Writer` makes bytes of it, `Sizer` counts its bits, `Tracer` reads and
keeps every element, `Sampler` fills it with legal random values.
"""

from __future__ import annotations

from nnc_core.syntax.aggregate import AggregateUnitHeader
from nnc_core.syntax.codebook import IntegerCodebook, integer_codebook
from nnc_core.syntax.context import InputParameters, SyntaxContext
from nnc_core.syntax.data_unit import (
    CompressedDataUnitHeader,
    TensorDimensionMapping,
    coded_shapes,
    element_names,
    nnr_compressed_data_unit_header,
)
from nnc_core.syntax.driver import Buffer, Syntax
from nnc_core.syntax.layer_parameter_set import LayerParameterSet
from nnc_core.syntax.model_parameter_set import ModelParameterSet, nnr_model_parameter_set_payload
from nnc_core.syntax.quantization import (
    QuantizationUnitHeader,
    QuantizationUnitPayload,
    nnr_quantization_unit_header,
    nnr_quantization_unit_payload,
)
from nnc_core.syntax.reader import Reader, TracedElement, Tracer
from nnc_core.syntax.sampler import Sampler, sample
from nnc_core.syntax.topology import (
    TopologyElementsIdsList,
    TopologyUnitHeader,
    TopologyUnitPayload,
    nnr_topology_unit_header,
    nnr_topology_unit_payload,
    topology_elements_ids_list,
)
from nnc_core.syntax.units import (
    StartUnitHeader,
    UnitHeader,
    nnr_start_unit_header,
    nnr_unit_header,
    nnr_unit_size,
    unit,
    unit_prefix,
)
from nnc_core.syntax.writer import Sizer, Writer

__all__ = [
    "AggregateUnitHeader",
    "Buffer",
    "CompressedDataUnitHeader",
    "InputParameters",
    "IntegerCodebook",
    "LayerParameterSet",
    "ModelParameterSet",
    "QuantizationUnitHeader",
    "QuantizationUnitPayload",
    "Reader",
    "Sampler",
    "Sizer",
    "StartUnitHeader",
    "Syntax",
    "SyntaxContext",
    "TensorDimensionMapping",
    "TopologyElementsIdsList",
    "TopologyUnitHeader",
    "TopologyUnitPayload",
    "TracedElement",
    "Tracer",
    "UnitHeader",
    "Writer",
    "coded_shapes",
    "element_names",
    "integer_codebook",
    "nnr_compressed_data_unit_header",
    "nnr_model_parameter_set_payload",
    "nnr_quantization_unit_header",
    "nnr_quantization_unit_payload",
    "nnr_start_unit_header",
    "nnr_topology_unit_header",
    "nnr_topology_unit_payload",
    "nnr_unit_header",
    "nnr_unit_size",
    "sample",
    "topology_elements_ids_list",
    "unit",
    "unit_prefix",
]
