"""From units to tensors: decode and reconstruct (ISO/IEC 15938-18, module `coder`)."""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.native import reconstruct
from nnc_core.approximator.reference import reconstruct_codebook, step_size
from nnc_core.bitstream import Bitstream, UnitRecord
from nnc_core.entropy.native import Decoder
from nnc_core.entropy.parameters import TensorParameters
from nnc_core.errors import BitstreamError, ElementValueError, PayloadError, TruncatedError, UnsupportedError
from nnc_core.syntax.data_unit import CompressedDataUnitHeader, coded_shapes, is_decomposed
from nnc_core.syntax.driver import Buffer
from nnc_core.tables.code_points import DecompressedDataFormat, GeneralProfileIdc, PayloadType
from nnc_core.tables.entry_point import EntryPoint

# The least probable symbol has 2 of at most 511 parts of the range: no bin costs less than 1 / 177 of a bit.
_MOST_BINS_PER_BYTE = 8 * 177

_PAYLOAD = "nnr_compressed_data_unit_payload"
_MOST_AXES = 64 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 32

_DTYPES: dict[int, type[np.generic]] = {
    DecompressedDataFormat.INT32: np.int32,
    DecompressedDataFormat.FLOAT32: np.float32,
    DecompressedDataFormat.INT2: np.int8,
    DecompressedDataFormat.INT3: np.int8,
    DecompressedDataFormat.INT4: np.int8,
    DecompressedDataFormat.INT8: np.int8,
    DecompressedDataFormat.INT16: np.int16,
    DecompressedDataFormat.INT64: np.int64,
    DecompressedDataFormat.FLOAT16: np.float16,
    DecompressedDataFormat.FLOAT64: np.float64,
}


class CodedTensor(NamedTuple):
    """The decoded integers of a tensor, in the shape they are coded in, and their step size; None for integers."""

    levels: NDArray[np.int32]
    step: float | None


def output_dtype(h: CompressedDataUnitHeader) -> np.dtype[Any]:
    """What a tensor is returned as: what ``nnr_decompressed_data_format`` asks for, if it is of the coded kind."""
    default = np.int32 if h.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_INT else np.float32
    wanted = np.dtype(_DTYPES.get(-1 if (f := h.nnr_decompressed_data_format) is None else f, default))
    return wanted if wanted.kind == np.dtype(default).kind else np.dtype(default)


def output_shape(unit: UnitRecord) -> tuple[int, ...]:
    """The shape that `decode_unit` returns: that of the tensor, or of the factor that stands in for it."""
    h = unit.data_header
    return coded_shapes(h, unit.context)[0] if is_decomposed(h) else h.tensor_dimensions


def read_qp(bitstream: Bitstream, unit: UnitRecord) -> int | None:
    """The quantization parameter of a unit with one quantized tensor, from the first bins of its payload."""
    if unit.data_header.nnr_compressed_data_unit_payload_type != PayloadType.NNR_PT_FLOAT:
        return None
    density, base = bitstream.quantization(unit)
    return base + Decoder(bitstream.payload(unit)[:16]).iae(6 + density)


def decode_unit(bitstream: Bitstream, unit: UnitRecord) -> NDArray[Any]:
    """Decode and reconstruct the tensor of a data unit.

    Raises a `BitstreamError` that names unit and tensor for a damaged payload, `UnsupportedError` for what needs other
    units, or tools that are not implemented.
    """
    h = unit.data_header
    try:
        if h.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_RAW_FLOAT:
            tensor: NDArray[Any] = np.frombuffer(bitstream.payload(unit), "<f4").astype(np.float32)
            tensor = tensor.reshape(_shape(unit))
        else:
            tensor = _reconstruct(decode_levels(bitstream, unit), h)
        if h.first_tensor_dimension_shift and not is_decomposed(h):
            tensor = np.moveaxis(tensor, 0, h.first_tensor_dimension_shift)
        return _converted(tensor, output_dtype(h))
    except BitstreamError as error:
        error.unit, error.tensor = unit.index, unit.names[0]
        error.element = error.element or _PAYLOAD
        error.bit_offset = _place(bitstream, unit, error.element)
        raise


def _place(bitstream: Bitstream, unit: UnitRecord, element: str) -> int:
    """Where in the unit an element of its header starts, or else its payload, in bits."""
    places = {traced.name: traced.bit_offset for traced in bitstream.trace(unit)}
    return places.get(element, 8 * (unit.payload_offset - unit.offset))


def _check_supported(h: CompressedDataUnitHeader) -> None:
    if len(h.tensor_dimensions) > _MOST_AXES:
        raise UnsupportedError(f"{len(h.tensor_dimensions)} dimensions")
    if h.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_BLOCK:
        raise UnsupportedError("NNR_PT_BLOCK")
    if h.nnr_multiple_topology_elements_present_flag:
        raise UnsupportedError("topology_tensor_dimension_mapping")
    if h.temporal_context_modeling_flag:
        raise UnsupportedError("temporal_context_modeling_flag")
    if h.codebook_present_flag and h.dq_flag:
        raise UnsupportedError("codebook_present_flag together with dq_flag")


def _shape(unit: UnitRecord) -> tuple[int, ...]:
    """The shape that the tensor is coded in."""
    _check_supported(unit.data_header)
    return coded_shapes(unit.data_header, unit.context)[0]


def decode_levels(bitstream: Bitstream, unit: UnitRecord) -> CodedTensor:
    """Decode the integers of a data unit with one arithmetic-coded tensor."""
    h = unit.data_header
    shape = _shape(unit)
    payload = bitstream.payload(unit)
    parameters = _parameters(bitstream, h)
    rows, width = shape[0], prod(shape[1:])
    _check_plausible(rows, width, parameters, len(payload))
    decoder = Decoder(payload)
    step, qp_bits = None, 0
    if h.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_FLOAT:
        density, base = bitstream.quantization(unit)
        qp_bits = 6 + density
        step = _step(base + decoder.iae(qp_bits), density)
    if _uses_history(payload, qp_bits, min(rows, width), parameters):
        raise UnsupportedError("hist_dep_sig_prob_enabled_flag")
    levels, _, entry_points = decoder.tensor(rows, width, parameters)
    consumed = decoder.finish()
    if consumed != len(payload):
        raise PayloadError(f"{len(payload) - consumed} bytes follow the codeword")
    _check_entry_points(h, entry_points, parameters.dq_flag)
    return CodedTensor(levels.reshape(shape), step)


def _check_entry_points(h: CompressedDataUnitHeader, found: list[EntryPoint], dq_flag: bool) -> None:
    """Hold the header's list, which others start from, against what was passed; a single row or column has none."""
    for j, (told, true) in enumerate(zip(h.entry_points, found, strict=False)):
        if told[:2] != true[:2] or (dq_flag and told.dq_state != true.dq_state):
            raise PayloadError(f"{told} is wrong", element=f"cabac_offset[{j}]", expected=f"{true}")


def _uses_history(payload: Buffer, qp_bits: int, least: int, p: TensorParameters) -> bool:
    """Look ahead at ``hist_dep_sig_prob_enabled_flag``: without the history, the tensor would look damaged."""
    extended = p.general_profile_idc == GeneralProfileIdc.EXTENDED
    if not (extended and p.parent_node_id_present_flag and least > 1 and p.codebook_size != 1):
        return False
    decoder = Decoder(payload[:16])
    decoder.iae(qp_bits)
    return decoder.iae(1) != 0


def _reconstruct(coded: CodedTensor, h: CompressedDataUnitHeader) -> NDArray[Any]:
    if coded.step is None:
        return coded.levels
    if h.integer_codebook is None:
        return reconstruct(coded.levels, coded.step)
    book = h.integer_codebook
    try:
        return reconstruct_codebook(coded.levels, book.values(), book.zero_offset, coded.step)
    except ValueError as error:
        raise PayloadError(str(error)) from None


def _parameters(bitstream: Bitstream, h: CompressedDataUnitHeader) -> TensorParameters:
    book = h.integer_codebook
    return TensorParameters(
        general_profile_idc=bitstream.general_profile_idc,
        cabac_unary_length_minus1=h.cabac_unary_length_minus1,
        # Integers are not quantized, whatever the flag says.
        dq_flag=h.dq_flag and h.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_FLOAT,
        scan_order=h.scan_order,
        parent_node_id_present_flag=h.parent_node_id_present_flag,
        codebook_size=book.codebook_size if book else 0,
        codebook_zero_offset=book.zero_offset if book else 0,
    )


def _check_plausible(rows: int, width: int, p: TensorParameters, size: int) -> None:
    """Refuse dimensions that ``size`` payload bytes cannot fill, before memory is taken for them."""
    extended = p.general_profile_idc == GeneralProfileIdc.EXTENDED
    if extended and p.codebook_size == 1:
        return
    bins = rows if extended and min(rows, width) > 1 else rows * width  # a row can be skipped with one bin
    if bins > _MOST_BINS_PER_BYTE * (size + 8):
        raise TruncatedError(f"{rows} x {width} elements in {size} payload bytes")


def _step(qp: int, qp_density: int) -> float:
    try:
        return step_size(qp, qp_density)
    except ValueError as error:
        raise ElementValueError(str(error), element="qp") from None


def _converted(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    if array.dtype == dtype:
        return np.ascontiguousarray(array)
    if dtype.kind == "i":
        bounds = np.iinfo(dtype)
        if array.min() < bounds.min or array.max() > bounds.max:
            raise ElementValueError(f"integers do not fit {dtype}", element="nnr_decompressed_data_format")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(dtype)
    if dtype == np.float16:
        # What was quantized was a half; the nearest multiple of the step may lie beyond all halves.
        beyond = np.isinf(converted) & np.isfinite(array)
        converted[beyond] = np.copysign(np.finfo(dtype).max, array[beyond])
    return converted
