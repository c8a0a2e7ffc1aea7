"""Performance maps and what was pruned, between ``model_info`` (Part 18, Tables 3 to 5) and units of a bitstream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nnc_core.bitstream import Bitstream
from nnc_core.nnr_model.model_info import ModelInfo, PerformanceMaps, PruningMap, SparsificationMap
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.syntax.performance_maps import PruningEntry, SparsificationEntry
from nnc_core.syntax.pruning import BitMask, PrunedElement, PruningTopologyContainer
from nnc_core.syntax.topology import TopologyUnitHeader
from nnc_core.tables.code_points import PRIVATE_TOPOLOGY, PruningRepresentationType


def maps_of(model_info: ModelInfo) -> dict[str, Any]:
    """The fields of a model parameter set that carry the performance maps of ``model_info``."""
    maps = model_info.get("performance_maps", {})
    return {
        "mps_sparsification_flag": "sparsification" in maps,
        "mps_pruning_flag": "pruning" in maps,
        "sparsification_performance_map": _sparsification(maps.get("sparsification", {})),
        "pruning_performance_map": _pruning(maps.get("pruning", {})),
    }


def _sparsification(given: SparsificationMap) -> tuple[SparsificationEntry, ...]:
    thresholds = given.get("sparsification_threshold", [])
    columns = (thresholds, given.get("non_zero_ratio", []), given.get("nn_accuracy", []), *_classes(given, thresholds))
    return tuple(SparsificationEntry(*row) for row in zip(*columns, strict=True))


def _pruning(given: PruningMap) -> tuple[PruningEntry, ...]:
    ratios = given.get("pruning_ratio", [])
    columns = (ratios, given.get("nn_accuracy", []), *_classes(given, ratios))
    return tuple(PruningEntry(*row) for row in zip(*columns, strict=True))


def _classes(given: Mapping[str, Any], entries: Sequence[float]) -> tuple[Sequence[int], list[tuple[float, ...]]]:
    masks = given.get("class_bitmask") or [0] * len(entries)
    accuracies = given.get("nn_class_accuracy") or [[]] * len(entries)
    return masks, [tuple(each) for each in accuracies]


def _maps(mps: ModelParameterSet) -> PerformanceMaps:
    found = PerformanceMaps()
    if mps.mps_sparsification_flag:
        entries = mps.sparsification_performance_map
        found["sparsification"] = SparsificationMap(
            count_thresholds=len(entries),
            sparsification_threshold=[entry.sparsification_threshold for entry in entries],
            non_zero_ratio=[entry.non_zero_ratio for entry in entries],
            nn_accuracy=[entry.spm_nn_accuracy for entry in entries],
            count_classes=[len(entry.spm_nn_class_accuracy) for entry in entries],
            class_bitmask=[entry.spm_class_bitmask for entry in entries],
            nn_class_accuracy=[list(entry.spm_nn_class_accuracy) for entry in entries],
        )
    if mps.mps_pruning_flag:
        ratios = mps.pruning_performance_map
        found["pruning"] = PruningMap(
            count_pruning_ratios=len(ratios),
            pruning_ratio=[entry.pruning_ratio for entry in ratios],
            nn_accuracy=[entry.ppm_nn_accuracy for entry in ratios],
            count_classes=[len(entry.ppm_nn_class_accuracy) for entry in ratios],
            class_bitmask=[entry.ppm_class_bitmask for entry in ratios],
            nn_class_accuracy=[list(entry.ppm_nn_class_accuracy) for entry in ratios],
        )
    return found


def pruning_of(model_info: ModelInfo, references: Sequence[str]) -> PruningTopologyContainer | None:
    """The pruning container for what ``model_info`` says was pruned and sparsified; `None` for nothing.

    Elements of the dictionary are named by their places in ``references``, if there are any.
    """
    pruned = "prune_rep_type" in model_info
    if not pruned and "sparse_bit_mask" not in model_info:
        return None
    return PruningTopologyContainer(
        nnr_rep_type=PruningRepresentationType(model_info.get("prune_rep_type", 0)),
        prune_flag=pruned,
        order_flag=model_info.get("bit_mask_order_flag", True),
        sparse_flag="sparse_bit_mask" in model_info,
        prune_mask=_mask(model_info.get("prune_bit_mask", [])),
        dictionary=_dictionary(model_info, references),
        sparse_mask=_mask(model_info.get("sparse_bit_mask", [])),
    )


def _mask(bits: Sequence[int]) -> BitMask:
    return BitMask(len(bits), np.packbits(np.array(bits, np.uint8)).tobytes())


def _dictionary(model_info: ModelInfo, references: Sequence[str]) -> tuple[PrunedElement, ...]:
    names, dimensions = model_info.get("prune_tpl_elem_ids", []), iter(model_info.get("prune_tpl_dims", []))
    counts = model_info.get("prune_tpl_count_dims", [])
    return tuple(
        PrunedElement(
            None if references else name,
            references.index(name) if references else None,
            tuple(next(dimensions) for _ in range(count)),
        )
        for name, count in zip(names, counts, strict=True)
    )


def describe(bitstream: Bitstream, model_info: ModelInfo) -> None:
    """Add to ``model_info`` what a bitstream says of the model beside its tensors."""
    headers = [unit.header for unit in bitstream.units]
    formats = [h.topology_storage_format for h in headers if isinstance(h, TopologyUnitHeader)]
    model_info["topology_storage_format"] = next((f for f in formats if f != PRIVATE_TOPOLOGY), None)
    if bitstream.topology_elements:
        model_info["topology_elem_id_list"] = list(bitstream.topology_elements)
    if bitstream.mps is not None and (maps := _maps(bitstream.mps)):
        model_info["performance_maps"] = maps
    if (container := bitstream.pruning) is not None:
        _add_pruning(container, bitstream.topology_elements, model_info)


def _add_pruning(container: PruningTopologyContainer, references: Sequence[str], model_info: ModelInfo) -> None:
    model_info["bit_mask_order_flag"] = container.order_flag
    if container.sparse_flag:
        model_info["sparse_bit_mask"] = _bits(container.sparse_mask)
    if not container.prune_flag:
        return
    model_info["prune_rep_type"] = int(container.nnr_rep_type)
    if container.nnr_rep_type == PruningRepresentationType.NNR_TPL_BMSK:
        model_info["prune_bit_mask"] = _bits(container.prune_mask)
        return
    elements = container.dictionary
    model_info["prune_tpl_elem_ids"] = [_element_name(element, references) for element in elements]
    model_info["prune_tpl_count_dims"] = [len(element.dim) for element in elements]
    model_info["prune_tpl_dims"] = [size for element in elements for size in element.dim]


def _element_name(element: PrunedElement, references: Sequence[str]) -> str:
    return references[element.element_id_index or 0] if references else element.element_id or ""


def _bits(mask: BitMask) -> list[int]:
    packed = np.frombuffer(mask.bit_mask_value, np.uint8)
    return [int(bit) for bit in np.unpackbits(packed, count=mask.count_bits)]
