"""A data unit of one tensor from its levels, or from values as they are (clause 7.3.8)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.coder.dtypes import data_format
from nnc_core.coder.encoder import CodedUnit
from nnc_core.coder.payload import CodedTensor, Effort, encode_shortest
from nnc_core.coder.plan import TensorPlan
from nnc_core.entropy.parameters import parameters_of
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.tables.code_points import GeneralProfileIdc, PayloadType

__all__ = ["Format", "ask_for", "coded_unit", "effort_of", "header_of", "integer_unit", "raw_unit"]


class Format(NamedTuple):
    """What the parameter sets of the bitstream say about all tensors, and how many threads may share one of them."""

    qp_density: int
    general_profile_idc: int = GeneralProfileIdc.EXTENDED
    threads: int = 1


def header_of(unit: str, shape: tuple[int, ...], payload_type: PayloadType) -> CompressedDataUnitHeader:
    """The header of a ``unit`` of this name; how its levels are coded is added by `coded_unit`."""
    return CompressedDataUnitHeader(payload_type, topology_elem_id=unit, tensor_dimensions=shape)


def ask_for(header: CompressedDataUnitHeader, dtype: np.dtype[Any], form: Format) -> None:
    """Let the decoded tensor have this type, where the profile has a word for it."""
    wanted = data_format(dtype)
    if wanted is not None and form.general_profile_idc == GeneralProfileIdc.EXTENDED:
        header.nnr_decompressed_data_format_present_flag = True
        header.nnr_decompressed_data_format = wanted


def raw_unit(unit: str, values: NDArray[np.float32]) -> CodedUnit:
    """Values as they are."""
    header = header_of(unit, values.shape, PayloadType.NNR_PT_RAW_FLOAT)
    return CodedUnit(header, np.ascontiguousarray(values, "<f4").reshape(-1).view(np.uint8))


def integer_unit(
    unit: str, integers: NDArray[np.int32], plan: TensorPlan, form: Format, dtype: np.dtype[Any] | None = None
) -> CodedUnit:
    """Integers of at least one dimension, exactly; ``dtype`` is what they are decoded to, int32 otherwise."""
    header = header_of(unit, integers.shape, PayloadType.NNR_PT_INT)
    if dtype is not None:
        ask_for(header, dtype, form)
    return coded_unit(header, np.ascontiguousarray(integers.reshape(len(integers), -1)), plan, form)


def coded_unit(
    header: CompressedDataUnitHeader,
    levels: NDArray[np.int32],
    plan: TensorPlan,
    form: Format,
    cabac_unary_length_minus1: int | None = None,
) -> CodedUnit:
    """Levels, rows x width, under this header, which takes on what they are coded with."""
    unary = plan.cabac_unary_length_minus1 if cabac_unary_length_minus1 is None else cabac_unary_length_minus1
    book = header.integer_codebook
    parameters = parameters_of(
        form.general_profile_idc,
        unary,
        header.dq_flag,
        plan.scan_order if min(levels.shape) > 1 else 0,
        codebook_size=book.codebook_size if book else 0,
        codebook_zero_offset=book.zero_offset if book else 0,
    )
    quantized = header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_FLOAT
    header.cabac_unary_length_minus1 = unary
    header.scan_order = parameters.scan_order
    tensor = CodedTensor(levels, plan.qp if quantized else None)
    payload, (points,), _ = encode_shortest([tensor], [[parameters]], 6 + form.qp_density, effort_of(plan, form))
    header.entry_points = tuple(points)
    return CodedUnit(header, np.frombuffer(payload, np.uint8))


def effort_of(plan: TensorPlan, form: Format) -> Effort:
    """What is to be tried for a tensor."""
    return Effort(plan.param_opt_flag, plan.row_skip_enabled_flag, threads=form.threads)
