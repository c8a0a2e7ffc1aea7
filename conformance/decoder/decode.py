"""The decoding process: units in the order of the bitstream, tensors out of data units, a model out of tensors."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bits import BitReader
from .cabac import ArithmeticDecoder
from .code_points import (
    CPT_BI,
    CPT_BN,
    CPT_DC,
    CPT_LS,
    NNR_AGG,
    NNR_LPS,
    NNR_MPS,
    NNR_NDU,
    NNR_PT_BLOCK,
    NNR_PT_INT,
    NNR_PT_RAW_FLOAT,
    NNR_QNT,
    NNR_STR,
    NNR_TPL,
    TPL_PRUN,
    TPL_REFLIST,
)
from .errors import InvalidError
from .headers import Beside, Codebook, DataUnitHeader, nnr_compressed_data_unit_header
from .parameter_sets import Parameters, nnr_layer_parameter_set_payload, nnr_model_parameter_set_payload
from .quant_tensor import TensorParameters, quant_tensor
from .state import Node, State, Tensors, check_parent, node_after
from .topology import nnr_pruning_topology_container, topology_elements_ids_list

_BINS_PER_BYTE = 8 * 177  # no bin takes less than 1/177 of a bit
_LONGEST_TOPOLOGY = 1 << 28
_FORMATS = ("int32", "float32", "int8", "int8", "int8", "int8", "int16", "int64", "float16", "float64")


@dataclass
class Unit:
    """A unit: what stands in its header, and the bytes behind that."""

    unit_type: int
    counter: int
    reader: BitReader

    def rest(self) -> bytes:
        return self.reader.rest()


@dataclass
class Decoder:
    """Decodes one bitstream; ``state`` is what those before it left, ``beside`` what is sent in another way.

    After `decode`, ``tensors`` has those of the bitstream alone, and ``model_info`` what it says of the model.
    """

    state: State = field(default_factory=State)
    beside: Beside = field(default_factory=dict)
    model_info: dict[str, Any] = field(default_factory=dict)
    tensors: Tensors = field(default_factory=dict)
    _parameters: Parameters = field(default_factory=Parameters)
    _model_parameters: Parameters = field(default_factory=Parameters)
    _nodes: dict[str, Node] = field(default_factory=dict)
    _started: bool = False
    _has_mps: bool = False
    _open: tuple[int, int, bytes] | None = None
    _joined: bytes = b""
    _factor_g: tuple[Any, ...] | None = None

    def decode(self, data: bytes) -> Tensors:
        """The tensors of the model after the bitstream."""
        for unit in nnr_units(data):
            self._unit(unit)
        if not self._started:
            raise InvalidError("the bitstream has no start unit")
        if self._open:
            raise InvalidError("the last part of a unit is missing")
        self._apply()
        return self.state.model

    # --- units --------------------------------------------------------------------------------------------------------

    def _unit(self, unit: Unit) -> None:
        self._check_order(unit)
        if unit.unit_type == NNR_STR:
            self._parameters.general_profile_idc = unit.reader.u(8)
            self._start(unit)
        elif unit.unit_type == NNR_MPS:
            nnr_model_parameter_set_payload(unit.reader, self._parameters)
            self._has_mps, self._model_parameters = True, self._parameters
            if self._parameters.performance_maps:
                self.model_info["performance_maps"] = self._parameters.performance_maps
        elif unit.unit_type == NNR_LPS:
            unit.reader.u(8)  # lps_self_contained_flag, nnr_reserved_zero_7bits
            references = self._parameters.topology_elements
            model = replace(self._model_parameters, topology_elements=references)
            self._parameters = nnr_layer_parameter_set_payload(unit.reader, model)
        elif unit.unit_type in (NNR_TPL, NNR_QNT):
            self._description(unit)
        elif unit.unit_type == NNR_NDU:
            self._data_unit(unit)
        elif unit.unit_type == NNR_AGG:
            self._aggregate(unit)

    def _check_order(self, unit: Unit) -> None:
        if not self._started and unit.unit_type != NNR_STR:
            raise InvalidError("the bitstream does not begin with a start unit")
        if self._started and unit.unit_type == NNR_STR:
            raise InvalidError("the bitstream has two start units")
        if self._has_mps and unit.unit_type == NNR_MPS:
            raise InvalidError("the bitstream has two model parameter sets")
        if not self._has_mps and unit.unit_type in (NNR_LPS, NNR_NDU, NNR_AGG):
            raise InvalidError("the model parameter set is missing")
        if self._open and (unit.unit_type != self._open[0] or unit.counter != self._open[1] - 1):
            raise InvalidError("the parts of a unit do not follow each other")

    def _start(self, unit: Unit) -> None:
        if self._parameters.general_profile_idc > 1:
            raise InvalidError("general_profile_idc is reserved")
        if unit.reader.left:
            raise InvalidError("the start unit does not end with its last syntax element")
        self._started = True

    def _whole(self, unit: Unit, header: bytes) -> bytes | None:
        """The joined payload, once all parts of it are there; parts have equal headers."""
        if self._open and header != self._open[2]:
            raise InvalidError("the parts of a unit have different headers")
        payload = self._joined + unit.rest()
        more = unit.counter > 1
        self._open = (unit.unit_type, unit.counter, header) if more else None
        self._joined = payload if more else b""
        return None if more else payload

    def _description(self, unit: Unit) -> None:
        """A topology or quantization unit; what frameworks have in it is not for decoders of tensors."""
        storage_format, compression = unit.reader.u(8), unit.reader.u(8)
        payload = self._whole(unit, bytes([storage_format, compression]))
        if payload is None or unit.unit_type == NNR_QNT or storage_format not in (TPL_PRUN, TPL_REFLIST):
            return
        data = _inflated(payload) if compression == 1 else payload
        if storage_format == TPL_PRUN:
            self.model_info |= nnr_pruning_topology_container(data, self._parameters)
            return
        reader = BitReader(data)
        self._parameters.topology_elements = topology_elements_ids_list(reader, self._parameters, indexed=False)
        self.model_info["topology_elem_id_list"] = self._parameters.topology_elements
        if reader.left:
            raise InvalidError("a reference list does not fill its unit")

    def _aggregate(self, unit: Unit) -> None:
        """``nnr_aggregate_unit()``: which hints its header has is not certain; the units in it show that."""
        reader, before = unit.reader, self._parameters
        for contained in _contained(reader):
            self._unit(contained)
        self._parameters = replace(before, topology_elements=self._parameters.topology_elements)

    # --- data units ---------------------------------------------------------------------------------------------------

    def _data_unit(self, unit: Unit) -> None:
        start = unit.reader.position // 8
        known = {name: {"tensor_dimensions": tensor.shape} for name, tensor in self.state.model.items()}
        beside = {name: {**known.get(name, {}), **self.beside.get(name, {})} for name in {**known, **self.beside}}
        h = nnr_compressed_data_unit_header(unit.reader, self._parameters, beside, self._factor_g is not None)
        payload = self._whole(unit, unit.reader.data[start : unit.reader.position // 8])
        if payload is None:
            return
        if any(name in self.tensors for name in h.names) or len(set(h.names)) < len(h.names):
            raise InvalidError(f"{h.names[0]} is coded twice")
        self.tensors.update(self._decoded(h, payload))
        single = h.payload_type != NNR_PT_BLOCK and h.decomposed and self._factor_g is None
        self._factor_g = (h.tensor_dimensions, h.decomposition_rank, h.g_number_of_rows) if single else None

    def _decoded(self, h: DataUnitHeader, payload: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
        if h.payload_type == NNR_PT_RAW_FLOAT:
            tensors = {h.names[0]: _raw(h, payload)}
        else:
            tensors = dict(self._coded(h, payload))
        for name, values in _delivered(h, tensors):
            yield name, _converted(values, h)

    def _coded(self, h: DataUnitHeader, payload: bytes) -> Iterator[tuple[str, NDArray[Any]]]:
        """The tensors of an arithmetic-coded unit, in the order of the payload."""
        p, quantized = self._parameters, h.payload_type != NNR_PT_INT
        if quantized and p.qp_density is None:
            raise InvalidError("quantized data without a qp_density")
        members = self._members(h)
        _check_plausible(p, members, payload)
        d = ArithmeticDecoder(payload)
        tree, left = self.state.trees[p.nnr_pre_flag], {}
        for name, shape, book in members:
            node = tree.get(name, Node())
            check_parent(h, name, node)
            qp = p.quantization_parameter + d.iae(6 + (p.qp_density or 0)) if quantized else None
            levels = quant_tensor(d, self._tensor_parameters(h, shape, book, node))
            left[name] = node_after(h, node, levels, payload)
            yield name, _reconstructed(levels, qp, p.qp_density or 0, book).reshape(shape)
        d.terminate()
        self._nodes |= left

    def _members(self, h: DataUnitHeader) -> list[tuple[str, tuple[int, ...], Codebook | None]]:
        """Name, shape and codebook of each tensor that is coded in a unit, in the order of the payload."""
        shape = tuple(h.tensor_dimensions)
        if h.payload_type == NNR_PT_BLOCK:
            return _block(h)
        if h.decomposed:
            shape = h.factors[self._factor_g == (h.tensor_dimensions, h.decomposition_rank, h.g_number_of_rows)]
        elif s := h.first_tensor_dimension_shift:
            shape = (shape[s], *shape[:s], *shape[s + 1 :])
        return [(h.names[0], shape, h.codebook)]

    def _tensor_parameters(
        self, h: DataUnitHeader, shape: tuple[int, ...], book: Codebook | None, node: Node
    ) -> TensorParameters:
        extended = self._parameters.general_profile_idc == 1
        limited = book if extended else None
        if h.temporal_context_modeling_flag and node.levels is None:
            raise InvalidError("temporal contexts without an update before")
        return TensorParameters(
            rows=shape[0],
            width=prod(shape[1:]),
            general_profile_idc=self._parameters.general_profile_idc,
            dq_flag=h.dq_flag,
            scan_order=h.scan_order if len(shape) > 1 else 0,
            cabac_unary_length_minus1=h.cabac_unary_length_minus1,
            codebook_size=len(limited.values) if limited else 0,
            codebook_zero_offset=limited.zero_offset if limited else 0,
            parent_node_id_present_flag=h.parent_node_id_present_flag,
            base=node.levels if h.temporal_context_modeling_flag else None,
            history=node.history,
        )

    # --- the model ----------------------------------------------------------------------------------------------------

    def _apply(self) -> None:
        """Add the updates to the model (Part 18, 4.5.3); residuals first become updates (clause 9.1.6)."""
        state, residual = self.state, self._parameters.nnr_pre_flag
        updates = dict(self.tensors)
        if residual:
            predicted = {n: updates[n] + p if n in updates else p for n, p in state.predictions.items()}
            updates |= predicted
        state.trees[residual].update(self._nodes)
        is_update = {name for name in updates if name not in self._nodes or self._nodes[name].levels is not None}
        state.predictions = {name: updates[name] for name in updates if name in is_update}
        for name, update in updates.items():
            state.model[name] = state.model[name] + update if name in state.model else update


def nnr_units(data: bytes) -> Iterator[Unit]:
    """``nnr_unit()``: size, header and payload of one unit after another."""
    start = 0
    while start < len(data):
        reader = BitReader(data[start:])
        size = reader.u(31 if reader.flag() else 15)
        if size > len(data) - start or 8 * size <= reader.position:
            raise InvalidError("nnr_unit_size does not fit the bitstream")
        yield _unit(data[start : start + size], reader.position)
        start += size


def _unit(data: bytes, position: int) -> Unit:
    reader = BitReader(data)
    reader.position = position
    unit_type = reader.u(6)
    reader.flag()  # independently_decodable_flag
    counter = reader.u(8) if reader.flag() else 0
    return Unit(unit_type, counter, reader)


def _contained(reader: BitReader) -> list[Unit]:
    """The units in an aggregate: those of the first reading of the header with which they fill it."""
    reader.u(8)  # nnr_aggregate_unit_type
    entry_points = reader.flag()
    reader.u(7)
    count = reader.u(16) + 2
    types = [(reader.u(6), reader.u(34))[0] for _ in range(count)] if entry_points else []
    for bits, aligned in ((5, True), (6, True), (0, True), (5, False), (6, False), (0, False)):
        end = reader.position + bits * count
        start = end // 8 + 1 if aligned else -(-end // 8)
        try:
            units = list(nnr_units(reader.data[start:]))
        except InvalidError:
            continue
        if len(units) == count and (not types or types == [unit.unit_type for unit in units]):
            return units
    raise InvalidError("the units in an aggregate do not fit its header")


def _inflated(payload: bytes) -> bytes:
    """What a zlib stream (RFC 1950) holds."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(payload, _LONGEST_TOPOLOGY)
    except zlib.error as error:
        raise InvalidError(f"compressed data are damaged: {error}") from None
    if not inflater.eof or inflater.unused_data:
        raise InvalidError("compressed data are not one zlib stream")
    return data


def _raw(h: DataUnitHeader, payload: bytes) -> NDArray[np.float32]:
    if len(payload) != 4 * prod(h.tensor_dimensions):
        raise InvalidError("raw floats do not fill their unit")
    return np.frombuffer(payload, "<f4").astype(np.float32).reshape(h.tensor_dimensions)


def _block(h: DataUnitHeader) -> list[tuple[str, tuple[int, ...], Codebook | None]]:
    """The members of a block; names are in another order than tensors."""
    types = h.compressed_parameter_types
    for known in (types, _exchanged(types)):
        weights = ["G", "H"] if known & CPT_DC else ["weight"]
        scaling = ["scaling"] * bool(known & CPT_LS)
        batch_norm = ["beta", "gamma", "mean", "var"] * bool(known & CPT_BN)
        bias = ["bias"] * bool(known & CPT_BI)
        in_header = [*weights, *scaling, *batch_norm, *bias]
        if len(in_header) == len(h.names):
            break
    else:
        raise InvalidError("a block has not as many names as tensors")
    names = dict(zip(in_header, h.names, strict=True))
    shapes: dict[str, tuple[int, ...]] = {"weight": tuple(h.tensor_dimensions)}
    if "G" in names:
        shapes["G"], shapes["H"] = h.factors
    books = {"weight": h.codebook, "G": h.codebook, "H": h.codebook_h}
    vector = (h.tensor_dimensions[0],)
    return [(names[m], shapes.get(m, vector), books.get(m)) for m in [*scaling, *bias, *batch_norm, *weights]]


def _exchanged(types: int) -> int:
    """The other reading of ``compressed_parameter_types``, in which batch-norm and bias have changed places."""
    others = types & ~(CPT_BN | CPT_BI)
    return others | (CPT_BI if types & CPT_BN else 0) | (CPT_BN if types & CPT_BI else 0)


def _check_plausible(
    p: Parameters, members: list[tuple[str, tuple[int, ...], Codebook | None]], payload: bytes
) -> None:
    """Refuse dimensions that the payload cannot fill, before memory is taken for them."""
    bins = 0
    for _, shape, book in members:
        skipping = p.general_profile_idc == 1 and len(shape) > 1 and shape[0] > 1
        nothing = p.general_profile_idc == 1 and book is not None and len(book.values) == 1
        bins += 0 if nothing else shape[0] if skipping else prod(shape)
        if prod(shape) > 1 << 31:
            raise InvalidError("a tensor is too large")
    if bins > _BINS_PER_BYTE * (len(payload) + 8):
        raise InvalidError("the payload is too short for the tensor")


def _reconstructed(levels: NDArray[np.int32], qp: int | None, qp_density: int, book: Codebook | None) -> NDArray[Any]:
    """The values that the integers stand for (clause 9.3)."""
    if qp is None:
        return levels
    step = np.float32((2.0**qp_density + (qp & ((1 << qp_density) - 1))) * 2.0 ** ((qp >> qp_density) - qp_density))
    if book is None:
        return step * levels.astype(np.float32)
    places = levels.astype(np.int64) + book.zero_offset
    if places.min() < 0 or places.max() >= len(book.values):
        raise InvalidError("a level is beyond the codebook")
    return (np.float64(step) * np.array(book.values)[places]).astype(np.float32)


def _delivered(h: DataUnitHeader, tensors: Tensors) -> Iterator[tuple[str, NDArray[Any]]]:
    """The tensors as the model has them: shifted back, or cut up."""
    for name, values in tensors.items():
        if h.first_tensor_dimension_shift and values.ndim == len(h.tensor_dimensions) and not h.decomposed:
            tensors[name] = np.moveaxis(values, 0, h.first_tensor_dimension_shift)
    if h.concatenation_axis_index is None or h.decomposed:
        yield from tensors.items()
        return
    pieces = np.split(tensors[h.names[0]], h.split_index, h.concatenation_axis_index)
    for name, piece, shifts in zip(h.names, pieces, h.shifts, strict=True):
        for index, value in shifts:
            piece = np.swapaxes(piece, index, index + value)
        yield name, piece


def _converted(values: NDArray[Any], h: DataUnitHeader) -> NDArray[Any]:
    """The values in the type that ``nnr_decompressed_data_format`` asks for, if it is of the coded kind."""
    wanted = values.dtype if h.data_format is None else np.dtype(_FORMATS[h.data_format])
    if wanted.kind != values.dtype.kind:
        wanted = values.dtype
    if wanted.kind == "i" and not np.iinfo(wanted).min <= values.min() <= values.max() <= np.iinfo(wanted).max:
        raise InvalidError("integers do not fit nnr_decompressed_data_format")
    return np.ascontiguousarray(values.astype(wanted))


def described(model_info: Mapping[str, Any], prefix: str = "model_info/") -> dict[str, NDArray[Any]]:
    """What a bitstream says of the model beside its tensors, as arrays: int32, float32, or text."""
    found: dict[str, NDArray[Any]] = {}
    for key, value in model_info.items():
        if isinstance(value, list) and value and isinstance(value[0], list):
            value = {str(number): each for number, each in enumerate(value)}
        if isinstance(value, dict):
            found |= described(value, f"{prefix}{key}/")
        else:
            array = np.atleast_1d(np.asarray(value))
            kinds: dict[str, Any] = {"f": np.float32, "i": np.int32, "b": np.int32}
            found[prefix + key] = array.astype(kinds.get(array.dtype.kind, array.dtype))
    return found
