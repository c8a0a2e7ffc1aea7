"""What is known of a model's tensors (ISO/IEC 15938-18, Tables 3 to 5): derived from the tensors, and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from nnc_core.errors import ModelError

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


class SparsificationMap(TypedDict, total=False):
    """Part 18, Table 4: what sparsification at each threshold leaves."""

    count_thresholds: int
    sparsification_threshold: list[float]
    non_zero_ratio: list[float]
    nn_accuracy: list[float]
    count_classes: list[int]
    class_bitmask: list[int]
    nn_class_accuracy: list[list[float]]


class PruningMap(TypedDict, total=False):
    """Part 18, Table 4: what pruning at each ratio leaves."""

    count_pruning_ratios: int
    pruning_ratio: list[float]
    nn_accuracy: list[float]
    count_classes: list[int]
    class_bitmask: list[int]
    nn_class_accuracy: list[list[float]]


class UnificationMap(TypedDict, total=False):
    """What unification at each threshold leaves: shapes and block sizes, in the manner of Part 18, Table 4."""

    count_thresholds: int
    reshaped_tensor_dimensions: list[list[int]]
    super_block_dimensions: list[list[int]]
    block_dimensions: list[list[int]]
    unification_threshold: list[float]
    nn_accuracy: list[float]
    count_classes: list[int]
    class_bitmask: list[int]
    nn_class_accuracy: list[list[float]]


class DecompositionMap(TypedDict, total=False):
    """What decomposition at each threshold leaves, in the manner of Part 18, Table 4."""

    count_thresholds: int
    mse_threshold: list[float]
    nn_accuracy: list[float]
    nn_reduction_ratio: list[float]
    count_classes: list[int]
    nn_class_accuracy: list[list[float]]


class PerformanceMaps(TypedDict, total=False):
    """Part 18, Table 3, ``performance_maps``; the last two keys are additions in its manner."""

    sparsification: SparsificationMap
    pruning: PruningMap
    unification: UnificationMap
    decomposition: DecompositionMap


class ModelInfo(TypedDict, total=False):
    """Part 18, Tables 3 and 5.

    A tensor of type ``unspecified`` has none of the other types; nothing is known about one that is not mentioned.
    Tensors with the same ``block_identifier`` form a block. ``parameter_index`` is the coding order.
    ``parameter_dimensions`` are those that are not in the bitstream. ``layer_performance_maps``, by the name of a
    weight, are an addition: maps of single layers, all but decomposition, which travel in layer parameter sets.
    """

    parameter_type: dict[str, ParameterType]
    block_identifier: dict[str, str]
    parameter_dimensions: dict[str, list[int]]
    parameter_index: dict[str, int]
    topology_storage_format: int | None
    performance_maps: PerformanceMaps
    layer_performance_maps: dict[str, PerformanceMaps]
    prune_rep_type: int
    prune_bit_mask: Sequence[int] | NDArray[np.uint8]
    prune_tpl_elem_ids: list[str]
    prune_tpl_count_dims: list[int]
    prune_tpl_dims: list[int]
    sparse_bit_mask: Sequence[int] | NDArray[np.uint8]
    bit_mask_order_flag: bool
    topology_elem_id_list: list[str]


def model_info_of(parameters: Mapping[str, NDArray[Any]]) -> ModelInfo:
    """What the shapes of a model's tensors tell: more than two dimensions are a convolution, two a full connection.

    >>> import numpy as np
    >>> model_info_of({"w": np.zeros((4, 3)), "b": np.zeros(4)})["parameter_type"]
    {'w': 'fc.weight', 'b': 'unspecified'}
    """
    return ModelInfo(
        parameter_type={name: _type_of(np.ndim(array)) for name, array in parameters.items()},
        block_identifier={},
        parameter_dimensions={name: list(np.shape(array)) for name, array in parameters.items()},
        parameter_index={name: index for index, name in enumerate(parameters)},
        topology_storage_format=None,
    )


def _type_of(dimensions: int) -> ParameterType:
    return "conv.weight" if dimensions > 2 else "fc.weight" if dimensions == 2 else "unspecified"


def check_model_info(model_info: ModelInfo, parameters: Mapping[str, NDArray[Any]]) -> None:
    """Check that what is said of a model is consistent with its tensors.

    A block has one weight, each other type at most once, and tensors whose first dimensions agree; all but the weight
    have no more than that. Raises `ModelError` that says which tensor or block is wrong, and what would be right.
    """
    for message in _mistakes(model_info, parameters):
        raise ModelError(message)


def _mistakes(model_info: ModelInfo, parameters: Mapping[str, NDArray[Any]]) -> Iterator[str]:
    types, index = model_info.get("parameter_type", {}), model_info.get("parameter_index", {})
    for name, dimensions in model_info.get("parameter_dimensions", {}).items():
        if name in parameters and tuple(dimensions) != np.shape(parameters[name]):
            yield f"parameter_dimensions of {name!r} are {dimensions}, the tensor is {np.shape(parameters[name])}"
    for number, count in Counter(index.values()).items():
        if count > 1:
            yield f"parameter_index {number} is that of {count} tensors"
    groups: dict[str, list[str]] = {}
    for name, identifier in model_info.get("block_identifier", {}).items():
        groups.setdefault(identifier, []).append(name)
    for identifier, names in groups.items():
        if len(names) > 1 and any(name in parameters for name in names):
            yield from _mistakes_of_block(identifier, {n: types.get(n, "unspecified") for n in names}, parameters)


def _mistakes_of_block(
    identifier: str, types: Mapping[str, ParameterType], parameters: Mapping[str, NDArray[Any]]
) -> Iterator[str]:
    weights = [name for name, kind in types.items() if kind.endswith(".weight")]
    if len(weights) != 1:
        yield f"block {identifier!r} has {len(weights)} weights, expected 1"
        return
    for kind, count in Counter(types.values()).items():
        if count > 1 and kind != "unspecified":
            yield f"block {identifier!r} has {count} tensors of type {kind}, expected 1"
    vectors = [name for name in types if name in parameters and name not in weights]
    # A weight that was decomposed is not there.
    rows = np.shape(parameters[weights[0]])[:1] if weights[0] in parameters else np.shape(parameters[vectors[0]])
    for name in vectors:
        if np.shape(parameters[name]) != rows:
            yield f"{name!r} in block {identifier!r} has shape {np.shape(parameters[name])}, expected {rows}"
