"""What a model is to the codec: tensors, their roles and a topology (ISO/IEC 15938-18, Table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from numpy.typing import NDArray

from nnc_core.tables.code_points import TopologyStorageFormat

ParameterType = Literal[
    "conv.weight",
    "fc.weight",
    "conv.bias",
    "fc.bias",
    "bn.beta",
    "bn.gamma",
    "bn.mean",
    "bn.var",
    "unspecified",
]


class ModelInfo(TypedDict, total=False):
    """Part 18, Table 3; the keys that adapters fill. ``unspecified`` is none of the other types; of a tensor
    that is not mentioned nothing is known."""

    parameter_type: dict[str, ParameterType]
    block_identifier: dict[str, str]
    parameter_index: dict[str, int]


@dataclass(frozen=True, slots=True)
class Topology:
    """What a topology unit carries: the storage format and the description's bytes, not compressed."""

    storage_format: TopologyStorageFormat
    data: bytes


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A model between an adapter and the coder.

    ``tensors`` maps each ``topology_elem_id`` to its array, in model order; it may be lazy, and an array is fetched
    once for each use. ``topology`` carries everything else, so that both together make the model again.
    """

    tensors: Mapping[str, NDArray[Any]]
    topology: Topology | None = None
    model_info: ModelInfo = field(default_factory=ModelInfo)
