"""What a bitstream must obey beyond its grammar: one entry per rule (ISO/IEC 15938-17, clauses 6.3 and 6.4).

Clause numbers are those of the syntax tables. An ``example`` says in a few words what breaks the rule; the tests have
a bitstream that breaks exactly it.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Rule(NamedTuple):
    """A rule, and how to explain it.

    A decoder can go on where a ``lenient`` rule is broken, so readers do not look at those; validators do.
    """

    id: str
    clause: str
    sentence: str
    example: str
    lenient: bool = False


_RULES = (
    # The bitstream as a sequence of units.
    Rule(
        "truncated",
        "6.3.1",
        "Every unit lies completely inside the bitstream, and every syntax element inside its unit.",
        "a file that was cut off",
    ),
    Rule(
        "unit-size",
        "6.3.2",
        "nnr_unit_size counts the bytes of the whole unit: size field, header and payload.",
        "a size smaller than the unit's own header",
    ),
    Rule(
        "unit-payload-size",
        "6.3.4.1",
        "A start unit or parameter set ends with its last syntax element.",
        "a byte after the byte_alignment() of a model parameter set",
    ),
    Rule("start-unit-first", "6.4.1", "A bitstream begins with an NNR_STR.", "a file that begins with an NNR_MPS"),
    Rule("one-start-unit", "6.4.1", "A bitstream has one NNR_STR.", "two bitstreams, one after the other"),
    Rule(
        "model-parameter-set-first",
        "6.4.1",
        "An NNR_MPS precedes the first NNR_LPS, NNR_NDU and NNR_AGG.",
        "a data unit right after the start unit",
    ),
    Rule("one-model-parameter-set", "6.4.1", "A bitstream has one NNR_MPS.", "two model parameter sets"),
    Rule(
        "reserved-unit-type",
        "6.4.3.1",
        "The unit types 7 to 31 are reserved; decoders skip such units.",
        "a unit of type 9",
        lenient=True,
    ),
    Rule("reserved-bits", "6.4", "Reserved bits are zero; decoders ignore them.", "a reserved bit that is 1", True),
    Rule(
        "byte-alignment",
        "6.3.5",
        "byte_alignment() is one bit equal to 1, then zeros up to the next byte.",
        "zeros up to the next byte",
    ),
    # Parts of units.
    Rule(
        "parts-in-order",
        "6.4.3.1",
        "partial_data_counter counts down from the number of parts to 1; 0 means that a unit is whole.",
        "part 1 after part 3",
    ),
    Rule("parts-together", "6.4.3.1", "The parts of a unit follow each other.", "a topology unit between two parts"),
    Rule(
        "parts-alike",
        "6.4.3.1",
        "All parts of a unit have the same type and the same header.",
        "two parts with different dq_flag",
    ),
    Rule("parts-complete", "6.4.3.1", "All parts of a unit are there.", "a bitstream that ends after part 2 of 3"),
    Rule(
        "parts-of-a-kind",
        "6.4.3.1",
        "Only topology, quantization and data units have several parts.",
        "a model parameter set with partial_data_counter 2",
        lenient=True,
    ),
    # Parameter sets and what refers to them.
    Rule("profile", "6.4.3.2", "general_profile_idc is 0 (2022 edition) or 1 (2024 edition).", "the value 2"),
    Rule(
        "qp-density",
        "6.4.4.3",
        "Quantized data need a qp_density from the model or layer parameter set in force.",
        "an NNR_PT_FLOAT although mps_quantization_method_flags is 0",
    ),
    Rule(
        "self-contained-layer",
        "6.4.3.4",
        "A layer parameter set with lps_self_contained_flag 1 stands in the aggregate unit that it serves.",
        "such a parameter set outside of any aggregate unit",
        lenient=True,
    ),
    # Topology and references.
    Rule(
        "reference-list-first",
        "6.4.3.7",
        "The reference list precedes what refers to it by index.",
        "an index although there is no NNR_TPL_REFLIST",
    ),
    Rule("reference-index", "6.4.3.7", "An index lies within the reference list.", "index 5 into a list of 2 names"),
    Rule("reference-list-size", "6.3.4.5", "A reference list fills its unit.", "a third name in a list of two"),
    Rule("pruning-size", "6.3.4.5", "A pruning topology container fills its unit.", "a byte after the last mask"),
    Rule("pruning-type", "6.4.4.5", "nnr_rep_type is NNR_TPL_BMSK or NNR_TPL_DICT.", "the value 2"),
    Rule("pruning-dimensions", "6.4.4.5", "The dimensions in a pruning dictionary are positive.", "the dimension 0"),
    Rule("deflated-data", "6.4.3.5", "NNR_DFL data are one zlib stream (RFC 1950).", "bytes after the zlib stream"),
    Rule(
        "topology-announced",
        "6.4.4.3",
        "topology_carriage_flag is 1 where the bitstream has topology units.",
        "a topology unit although the flag is 0",
        lenient=True,
    ),
    Rule(
        "topology-before-data",
        "6.4.1",
        "Topology and quantization units precede the data units that they describe.",
        "a topology unit after the last data unit",
        lenient=True,
    ),
    Rule(
        "storage-format",
        "6.4.3.5",
        "The storage formats 7 to 127 (5 to 127 for quantization) and compression formats 2 to 127 are reserved.",
        "topology_storage_format 7",
        lenient=True,
    ),
    Rule("text", "6.1", "Texts are UTF-8 and end with a zero byte inside their unit.", "a name with the byte 0xff"),
    Rule(
        "performance-maps-size",
        "6.3.4.3",
        "The counts of the performance maps are those of the entries that follow.",
        "a map with one entry more than its unit holds",
    ),
    # Aggregate units.
    Rule(
        "aggregate-units",
        "6.3.4.8",
        "The units in an aggregate fill it, and are as many as its header says.",
        "num_of_nnr_units_minus2 1 for two units",
    ),
    Rule(
        "aggregate-types",
        "6.4.3.8",
        "nnr_unit_type[i] of an aggregate is the type of the unit i in it.",
        "a data unit announced as a topology unit",
    ),
    # Data units.
    Rule("payload-type", "6.4.3.7", "nnr_compressed_data_unit_payload_type is at most 3.", "the value 4"),
    Rule("tensor-once", "6.4.3.7", "A tensor is coded once.", "two data units for one name"),
    Rule("block-names", "6.4.3.7", "A block has at least two names.", "an NNR_PT_BLOCK with a single name"),
    Rule(
        "parameter-types",
        "6.4.3.7",
        "A block has a name for each tensor that compressed_parameter_types tells of.",
        "a weight and a bias with the flags of local scaling and bias",
    ),
    Rule("parent-type", "6.4.3.7", "parent_node_id_type is at most 2.", "the value 3"),
    Rule("codebook-size", "6.4.3.7", "A codebook has at least one entry.", "codebook_size 0"),
    Rule(
        "codebook-zero",
        "6.4.3.7",
        "codebook_centre_offset leads to an entry of the codebook.",
        "the offset 2 for a codebook of 3 entries",
    ),
    Rule(
        "codebook-values",
        "6.4.3.7",
        "The entries of a codebook are 32-bit integers.",
        "codebook_delta_right that leads beyond 2**31 - 1",
    ),
    Rule("dimensions", "6.4.3.7", "A tensor has at least one dimension, and each is positive.", "the dimension 0"),
    Rule(
        "dimensions-known",
        "6.4.3.7",
        "Dimensions that are not in the data unit are known from outside, such as from the base model.",
        "tensor_dimensions_flag 0 in a bitstream on its own",
    ),
    Rule(
        "decomposition",
        "6.4.3.7",
        "decomposition_rank is positive, and g_number_of_rows divides the number of elements.",
        "12 elements in 5 rows",
    ),
    Rule(
        "factors-together",
        "6.4.3.7",
        "Two factors in units of their own follow each other, first G, then H.",
        "a single factor",
        lenient=True,
    ),
    Rule(
        "tensor-split",
        "6.4.3.7",
        "Tensors are cut along an axis that the coded one has, at ascending places within it.",
        "split_index 3 for an axis of 3 elements",
    ),
    Rule(
        "axis-exchange",
        "6.4.3.7",
        "shift_index and shift_index + shift_value are axes of the tensor.",
        "shift_value -1 for the first axis",
    ),
    Rule(
        "dimension-shift",
        "6.4.3.7",
        "first_tensor_dimension_shift is an axis of the tensor.",
        "the value 2 for a matrix",
    ),
    Rule("scan-order", "6.4.3.7", "scan_order is at most 4.", "the value 5"),
    Rule("entry-points", "6.4.3.7", "Bit offsets of entry points are not negative.", "a bit_offset_delta2 below 0"),
    Rule(
        "data-format",
        "6.4.3.7",
        "nnr_decompressed_data_format is at most 9, and the decoded values fit it.",
        "the value 2000 as int8",
    ),
    Rule("raw-size", "6.3.4.7", "NNR_PT_RAW_FLOAT has four bytes per element.", "23 bytes for 6 elements"),
    Rule(
        "golomb-prefix",
        "6.1",
        "An exponential-Golomb value has at most 32 zero bits in front.",
        "40 zero bits",
    ),
    Rule(
        "element-range",
        "6.4",
        "A syntax element takes only the values that its semantics define.",
        "an input parameter from outside that no bitstream could have",
    ),
    Rule(
        "edition-2022",
        "Annex",
        "The 2022 edition has general_profile_idc 0 and the decoded formats 0 and 1.",
        "general_profile_idc 1",
    ),
    Rule(
        "draft-3gpp",
        "3GPP draft",
        "The draft profile for phones has whole data units, alone or in blocks without decomposition.",
        "a layer parameter set",
    ),
    Rule(
        "codeword",
        "10.3",
        "The arithmetic codeword ends with a terminating bin, a stop bit and zero bits, exactly at the unit's end.",
        "a byte after the codeword",
    ),
)

RULES: Final = {rule.id: rule for rule in _RULES}
"""Every rule by its id."""

ELEMENTS: Final = {
    "general_profile_idc": "profile",
    "nnr_compressed_data_unit_payload_type": "payload-type",
    "nnr_multiple_topology_elements_present_flag": "block-names",
    "compressed_parameter_types": "parameter-types",
    "parent_node_id_type": "parent-type",
    "codebook_size": "codebook-size",
    "codebook_centre_offset": "codebook-zero",
    "codebook_delta_left": "codebook-values",
    "codebook_delta_right": "codebook-values",
    "count_tensor_dimensions": "dimensions",
    "tensor_dimensions": "dimensions",
    "decomposition_rank": "decomposition",
    "g_number_of_rows": "decomposition",
    "concatenation_axis_index": "tensor-split",
    "split_index": "tensor-split",
    "shift_index": "axis-exchange",
    "shift_value": "axis-exchange",
    "first_tensor_dimension_shift": "dimension-shift",
    "scan_order": "scan-order",
    "bit_offset_delta2": "entry-points",
    "nnr_decompressed_data_format": "data-format",
    "topology_elem_id_index": "reference-index",
    "topology_elem_id_index_list": "reference-index",
    "element_id_index": "reference-index",
    "nnr_rep_type": "pruning-type",
    "dim": "pruning-dimensions",
    "topology_data": "deflated-data",
    "quantization_data": "deflated-data",
    "topology_elem_id": "text",
    "topology_elem_id_list": "text",
    "element_id": "text",
    "base_model_id": "text",
    "performance_metric_type": "text",
}
"""The rule that a value of an element breaks, where it has one of its own."""
