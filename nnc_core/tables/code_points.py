"""Code points of ISO/IEC 15938-17, clause 6.4: the numbers that name things in the bitstream."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Final


class GeneralProfileIdc(IntEnum):
    """``general_profile_idc``: the tool set (2022 edition, or its 2024 extension)."""

    BASE = 0
    EXTENDED = 1


class NnrUnitType(IntEnum):
    """``nnr_unit_type``; 7..31 are reserved, 32..63 application-private."""

    NNR_STR = 0
    NNR_MPS = 1
    NNR_LPS = 2
    NNR_TPL = 3
    NNR_QNT = 4
    NNR_NDU = 5
    NNR_AGG = 6


class QuantizationMethodFlags(IntFlag):
    """``mps_quantization_method_flags``."""

    NNR_QSU = 1
    NNR_QCB = 2


QUANTIZED: Final = int(QuantizationMethodFlags.NNR_QSU | QuantizationMethodFlags.NNR_QCB)
"""The methods that have a ``qp_density``."""


class TopologyStorageFormat(IntEnum):
    """``topology_storage_format``; 7..127 are reserved, 128..255 application-private."""

    NNR_TPL_UNREC = 0
    NNR_TPL_NNEF = 1
    NNR_TPL_ONNX = 2
    NNR_TPL_PYT = 3
    NNR_TPL_TEF = 4
    NNR_TPL_PRUN = 5
    NNR_TPL_REFLIST = 6


class PruningRepresentationType(IntEnum):
    """``nnr_rep_type``: how a pruning topology container says what was pruned; 2 and 3 are reserved."""

    NNR_TPL_BMSK = 0
    NNR_TPL_DICT = 1


class AggregateUnitType(IntEnum):
    """``nnr_aggregate_unit_type``; 2..127 are reserved, 128..255 application-private."""

    NNR_AGG_GEN = 0
    NNR_AGG_SLF = 1


PRIVATE_TOPOLOGY = 128
"""The ``topology_storage_format`` of what this suite keeps beside a description that another format defines."""


class QuantizationStorageFormat(IntEnum):
    """``quantization_storage_format``; each number stands for the same framework as in `TopologyStorageFormat`."""

    NNR_QNT_UNREC = 0
    NNR_QNT_NNEF = 1
    NNR_QNT_ONNX = 2
    NNR_QNT_PYT = 3
    NNR_QNT_TEF = 4


class TopologyCompressionFormat(IntEnum):
    """``topology_compression_format`` and ``quantization_compression_format``."""

    NNR_PT_RAW = 0
    NNR_DFL = 1


class PayloadType(IntEnum):
    """``nnr_compressed_data_unit_payload_type``."""

    NNR_PT_INT = 0
    NNR_PT_FLOAT = 1
    NNR_PT_RAW_FLOAT = 2
    NNR_PT_BLOCK = 3


class ParentNodeIdType(IntEnum):
    """``parent_node_id_type``."""

    ICNN_NDU_ID = 0
    ICNN_NDU_PL_SHA256 = 1
    ICNN_NDU_PL_SHA512 = 2


class CompressedParameterTypes(IntFlag):
    """``compressed_parameter_types``: decomposition, local scaling, batch-norm, bias."""

    NNR_CPT_DC = 1
    NNR_CPT_LS = 2
    NNR_CPT_BN = 4
    NNR_CPT_BI = 8


class DecompressedDataFormat(IntEnum):
    """``nnr_decompressed_data_format``: the data type that a decoder should return."""

    INT32 = 0
    FLOAT32 = 1
    INT2 = 2
    INT3 = 3
    INT4 = 4
    INT8 = 5
    INT16 = 6
    INT64 = 7
    FLOAT16 = 8
    FLOAT64 = 9
