"""For each rule of the bitstream one that breaks exactly it (see `nnc_core.tables.rules`)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from conformance.support import every_unit, handmade
from conformance.support.every_unit import LAYER, LEVELS, MASK, NAMES, PAYLOAD, QUANTIZED, made, tensor
from nnc_core.bitstream import BitstreamWriter
from nnc_core.nnr_model import Topology
from nnc_core.syntax import (
    CompressedDataUnitHeader,
    InputParameters,
    IntegerCodebook,
    ModelParameterSet,
    SyntaxContext,
    TensorDimensionMapping,
    TopologyElementsIdsList,
    Writer,
    unit,
)
from nnc_core.syntax.layer_parameter_set import LayerParameterSet
from nnc_core.syntax.pruning import PrunedElement, PruningTopologyContainer, nnr_pruning_topology_container
from nnc_core.syntax.unit_types import UNIT_TYPES
from nnc_core.tables.code_points import (
    CompressedParameterTypes,
    NnrUnitType,
    PayloadType,
    PruningRepresentationType,
    TopologyStorageFormat,
)
from nnc_core.tables.entry_point import EntryPoint

STR = bytes.fromhex("00040201")
MPS = bytes.fromhex("0008060100400080")
UPDATE = bytes.fromhex("0008060108400080")
NDU = made(lambda w: w.data_unit(tensor(), PAYLOAD))[len(STR + MPS) :]
OTHER = made(lambda w: w.data_unit(tensor("v"), PAYLOAD))[len(STR + MPS) :]
TYPES = CompressedParameterTypes
NNEF = Topology(TopologyStorageFormat.NNR_TPL_NNEF, b"graph g")
CARRYING = replace(QUANTIZED, topology_carriage_flag=True)
INDEXED = replace(CARRYING, mps_topology_indexed_reference_flag=True)
BOOK = IntegerCodebook.from_values([-3, 0, 4], 1)
SEVERAL = {
    "nnr_multiple_topology_elements_present_flag": True,
    "topology_elements_ids_list": TopologyElementsIdsList(("u", "v")),
}
BLOCK = {**SEVERAL, "nnr_compressed_data_unit_payload_type": PayloadType.NNR_PT_BLOCK}
FACTOR = {
    "compressed_parameter_types": TYPES.NNR_CPT_DC,
    "decomposition_rank": 2,
    "g_number_of_rows": 2,
}


def topology(storage: int, payload: bytes, compression: int = 0) -> bytes:
    return unit(NnrUnitType.NNR_TPL, bytes([storage, compression]), payload)


def data_units(*headers: CompressedDataUnitHeader, mps: ModelParameterSet = QUANTIZED, tail: bytes = b"") -> bytes:
    """Data units as the syntax allows them, whatever the rules say."""

    def fill(writer: BitstreamWriter) -> None:
        for header in headers:
            writer.data_unit(header, PAYLOAD + tail)

    return made(fill, mps, sink=lambda violation: None)


class Forcing(Writer):
    """Writes other values, legal or not, for the elements in ``values``; what follows goes by the legal ones."""

    def __init__(self, values: dict[str, int]) -> None:
        super().__init__()
        self.values = values

    def u(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        super().u(bits, name, self.values.get(name, value))
        return value

    def ue(self, k: int, name: str, value: int = 0, valid: Sequence[int] = ()) -> int:
        super().ue(k, name, self.values.get(name, value), range(1 << 40))
        return value

    def ie(self, k: int, name: str, value: int = 0, valid: Sequence[int] = ()) -> int:
        super().ie(k, name, self.values.get(name, value), range(-(1 << 40), 1 << 40))
        return value

    def reserved(self, bits: int, name: str) -> None:
        self.u(bits, name)


def forced(values: dict[str, int], nnr_unit_type: NnrUnitType, header: Any, profile: int = 1) -> bytes:
    """A unit in which some elements of the header have other values."""
    writer = Forcing(values)
    UNIT_TYPES[nnr_unit_type].header.run(
        writer, header, SyntaxContext(profile, mps_parent_signalling_enabled_flag=True)
    )
    return unit(nnr_unit_type, writer.data(), PAYLOAD if nnr_unit_type == NnrUnitType.NNR_NDU else b"")


def bad(values: dict[str, int], header: CompressedDataUnitHeader) -> bytes:
    """A bitstream with a data unit in which some elements have other values."""
    return STR + UPDATE + forced(values, NnrUnitType.NNR_NDU, header)


def bad_container(values: dict[str, int], container: PruningTopologyContainer) -> bytes:
    """A bitstream with a pruning topology container in which some elements have other values."""
    writer = Forcing(values)
    nnr_pruning_topology_container(writer, container, SyntaxContext())
    return made(lambda w: None, CARRYING) + topology(5, writer.data())


def parts(counters: list[int], **changes: Any) -> bytes:
    """Parts of a data unit; the header of the last one has ``changes``."""
    headers = [tensor() for _ in counters[:-1]] + [tensor(**changes)]
    coded = [data_units(header)[len(STR + MPS) :] for header in headers]
    start = len(coded[0]) - len(PAYLOAD)
    return b"".join(
        unit(NnrUnitType.NNR_NDU, each[3:start], bytes([counter]), counter)
        for each, counter in zip(coded, counters, strict=True)
    )


def self_contained(writer: BitstreamWriter) -> None:
    writer.layer_parameter_set(replace(LAYER, lps_self_contained_flag=True))


def aggregate_of(units: bytes, *, count: int, types: tuple[int, ...] = ()) -> bytes:
    """An aggregate whose header says what it is told, whether right or wrong."""
    head = "0" * 8 + ("1" if types else "0") + "0" * 7 + format(count - 2, "016b")
    head += "".join(format(kind, "06b") + "0" * 34 for kind in types)
    head += "00000" * count + "1"
    head = head.ljust(-(-len(head) // 8) * 8, "0")
    return unit(NnrUnitType.NNR_AGG, int(head, 2).to_bytes(len(head) // 8, "big"), units)


def split(values: dict[str, int]) -> bytes:
    mapping = TensorDimensionMapping(1, (1,), (((0, 1),), ()))
    return bad(values, tensor(**SEVERAL, topology_tensor_dimension_mapping=mapping))


BOOKED = tensor(codebook_present_flag=True, integer_codebook=BOOK)
RAW = CompressedDataUnitHeader(PayloadType.NNR_PT_RAW_FLOAT, topology_elem_id="w", tensor_dimensions=(2, 3))
POINTS = (EntryPoint(9, 0, 0), EntryPoint(9, 0, 0))
TALL = CompressedDataUnitHeader(topology_elem_id="w", tensor_dimensions=(20, 2), scan_order=1, entry_points=POINTS)
UPDATED = tensor(
    parent_node_id_present_flag=True, parent_node_id_type=0, parent_device_id=0, parameter_id=0, put_node_depth=1
)


def payload_of_pruning(container: PruningTopologyContainer) -> bytes:
    writer = Writer()
    nnr_pruning_topology_container(writer, container, SyntaxContext())
    return writer.data()


def format_of(header: CompressedDataUnitHeader) -> dict[str, Any]:
    kept = ("nnr_compressed_data_unit_payload_type", "nnr_decompressed_data_format_present_flag")
    return {name: getattr(header, name) for name in (*kept, "nnr_decompressed_data_format")}


DICTIONARY = PruningTopologyContainer(
    PruningRepresentationType.NNR_TPL_DICT, True, dictionary=(PrunedElement("u", dim=(3,)),)
)
PRUNED = PruningTopologyContainer(prune_flag=True, prune_mask=MASK)
FORMATTED = tensor(nnr_decompressed_data_format_present_flag=True, nnr_decompressed_data_format=5)
INTEGERS = replace(FORMATTED, nnr_compressed_data_unit_payload_type=PayloadType.NNR_PT_INT)
MAPS = replace(every_unit.ALL_MAPS, mps_unification_flag=False)

BREAKING: dict[str, bytes] = {
    "truncated": STR + MPS + NDU[:-1],
    "unit-size": STR + MPS + b"\0\2\6",
    "unit-payload-size": STR + b"\0\x09" + MPS[2:] + b"\0",
    "start-unit-first": MPS,
    "one-start-unit": STR + MPS + STR,
    "model-parameter-set-first": STR + unit(NnrUnitType.NNR_LPS, b"\0\0\x80"),
    "one-model-parameter-set": STR + MPS + MPS,
    "reserved-unit-type": STR + MPS + unit(9, b"", b"?"),  # type: ignore[arg-type]
    "reserved-bits": STR + forced({"nnr_reserved_zero_2bits": 1}, NnrUnitType.NNR_MPS, replace(QUANTIZED)),
    "byte-alignment": STR + MPS[:-1] + b"\0",
    "parts-in-order": STR + MPS + parts([3, 1]),
    "parts-together": STR + MPS + parts([2]) + unit(63, b"", b"?"),  # type: ignore[arg-type]
    "parts-alike": STR + MPS + parts([2, 1], dq_flag=True),
    "parts-complete": STR + MPS + parts([3, 2]),
    "parts-of-a-kind": STR + unit(NnrUnitType.NNR_MPS, MPS[3:], b"", 2),
    "profile": b"\0\4\2\2",
    "qp-density": data_units(tensor(), mps=ModelParameterSet()),
    "self-contained-layer": made(self_contained),
    "reference-list-first": data_units(tensor(topology_elem_id_index=0), mps=INDEXED),
    "reference-index": made(lambda w: None, INDEXED, references=NAMES)
    + data_units(tensor(topology_elem_id_index=3), mps=INDEXED)[len(STR + MPS) :],
    "reference-list-size": made(lambda w: None, CARRYING) + topology(6, b"\x80\x80a\0b\0c\0"),
    "pruning-size": made(lambda w: None, CARRYING) + topology(5, payload_of_pruning(PRUNED) + b"\0"),
    "pruning-type": bad_container({"nnr_rep_type": 2}, PRUNED),
    "pruning-dimensions": bad_container({"dim[0][0]": 0}, DICTIONARY),
    "deflated-data": made(lambda w: None, CARRYING) + topology(1, zlib.compress(b"graph") + b"\0", 1),
    "topology-announced": made(lambda w: w.topology(NNEF)),
    "topology-before-data": data_units(tensor(), mps=CARRYING) + topology(1, b"graph"),
    "storage-format": made(lambda w: None, CARRYING) + topology(7, b"?"),
    "text": data_units(tensor("~")).replace(b"~", b"\xff"),
    "performance-maps-size": STR + forced({"spm_count_thresholds": 9}, NnrUnitType.NNR_MPS, MAPS),
    "aggregate-units": STR + MPS + aggregate_of(NDU + OTHER, count=3),
    "aggregate-types": STR + MPS + aggregate_of(NDU + OTHER, count=2, types=(5, 3)),
    "payload-type": bad({"nnr_compressed_data_unit_payload_type": 4}, tensor()),
    "tensor-once": STR + MPS + NDU + NDU,
    "block-names": bad({"nnr_compressed_data_unit_payload_type": 3}, tensor()),
    "parameter-types": bad(
        {"compressed_parameter_types": 10}, tensor(**BLOCK, compressed_parameter_types=TYPES.NNR_CPT_BI)
    ),
    "parent-type": bad({"parent_node_id_type": 3}, UPDATED),
    "codebook-size": bad({"codebook_size": 0}, BOOKED),
    "codebook-zero": bad({"codebook_centre_offset": 2}, BOOKED),
    "codebook-values": bad({"codebook_zero_value": (1 << 31) - 1}, BOOKED),
    "dimensions": bad({"tensor_dimensions[1]": 0}, tensor()),
    "dimensions-known": data_units(tensor(tensor_dimensions_flag=False)),
    "decomposition": bad({"g_number_of_rows": 5}, tensor(**FACTOR)),
    "factors-together": data_units(tensor("g", **FACTOR)),
    "tensor-split": split({"split_index[0]": 3}),
    "axis-exchange": split({"shift_value[0][0]": -1}),
    "dimension-shift": bad({"first_tensor_dimension_shift": 2}, tensor()),
    "scan-order": bad({"scan_order": 5}, tensor()),
    "entry-points": bad({"bit_offset_delta2[1]": -10}, TALL),
    "data-format": handmade.one_unit(handmade.payload_of(LEVELS * 2000, None), LEVELS.shape, **format_of(INTEGERS)),
    "raw-size": data_units(RAW),
    "golomb-prefix": bad({"tensor_dimensions[1]": (1 << 40) - 1}, tensor()),
    "element-range": data_units(tensor(cabac_unary_length_flag=False)),
    "codeword": data_units(tensor(), tail=b"\0"),
    "edition-2022": STR + MPS,
    "draft-3gpp": made(lambda w: w.layer_parameter_set(LayerParameterSet())),
}
CONTEXTS: dict[str, dict[str, Any]] = {
    "element-range": {"input_parameters": lambda name: InputParameters(cabac_unary_length_minus1=256)},
    "edition-2022": {"profile": "2022"},
    "draft-3gpp": {"profile": "3gpp"},
}
DECODED = ("codeword", "data-format")
"""What shows only when tensors are decoded."""
