"""The syntax elements that the syntax descriptions name, and the code points of those that have some."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path

import nnc_core.syntax
from nnc_core.tables.code_points import (
    AggregateUnitType,
    DecompressedDataFormat,
    GeneralProfileIdc,
    NnrUnitType,
    ParentNodeIdType,
    PayloadType,
    PruningRepresentationType,
    QuantizationStorageFormat,
    TopologyCompressionFormat,
    TopologyStorageFormat,
)

CODING = {"flag", "u", "i", "ue", "ie", "flt", "st", "bs", "code", "array", "reserved", "mask"}
"""The methods that pass an element."""
HELPERS = {"_count", "_entries", "_deltas"}
"""The functions of tables that pass elements by a name that they are given."""
_DRIVERS = ("driver", "reader", "writer", "sampler")

_ENUMERATIONS: Mapping[str, type[IntEnum]] = {
    "general_profile_idc": GeneralProfileIdc,
    "nnr_unit_type": NnrUnitType,
    "topology_storage_format": TopologyStorageFormat,
    "topology_compression_format": TopologyCompressionFormat,
    "quantization_storage_format": QuantizationStorageFormat,
    "quantization_compression_format": TopologyCompressionFormat,
    "nnr_rep_type": PruningRepresentationType,
    "nnr_aggregate_unit_type": AggregateUnitType,
    "nnr_compressed_data_unit_payload_type": PayloadType,
    "parent_node_id_type": ParentNodeIdType,
    "nnr_decompressed_data_format": DecompressedDataFormat,
}
_NUMBERS: Mapping[str, range] = {
    "scan_order": range(5),
    "mps_quantization_method_flags": range(4),
    "codebook_egk": range(16),
    "lps_qp_density": range(8),
}


def named_in_tables(methods: set[str] = CODING | HELPERS) -> set[str]:
    """The elements that the syntax tables name, or those that they pass by some ``methods``, from their source."""
    found: set[str] = set()
    for path in Path(nnc_core.syntax.__file__).parent.glob("*.py"):
        if path.stem in _DRIVERS:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and _called(node) in methods:
                found |= {name for argument in node.args if (name := _literal(argument))}
    return found


def _called(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _literal(argument: ast.expr) -> str:
    """A name that stands in the source, without the index in brackets."""
    if isinstance(argument, ast.JoinedStr):
        argument = argument.values[0]
    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
        return argument.value.partition("[")[0]
    return ""


def code_points() -> dict[str, dict[int, str]]:
    """By element, its code points and what they are called."""
    named = {element: {int(each): each.name for each in kind} for element, kind in _ENUMERATIONS.items()}
    numbered = {**_NUMBERS, **dict.fromkeys(sorted(named_in_tables({"flag"})), range(2))}
    return named | {element: {number: str(number) for number in numbers} for element, numbers in numbered.items()}
