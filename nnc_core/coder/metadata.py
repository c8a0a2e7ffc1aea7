"""Performance maps and what was pruned, between ``model_info`` (Part 18, Tables 3 to 5) and units of a bitstream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from nnc_core.bitstream import Bitstream
from nnc_core.coder.performance_maps import performance_maps
from nnc_core.errors import BitstreamError
from nnc_core.nnr_model.model_info import ModelInfo, PerformanceMaps
from nnc_core.syntax.pruning import BitMask, PrunedElement, PruningTopologyContainer
from nnc_core.syntax.topology import TopologyUnitHeader
from nnc_core.tables.code_points import PRIVATE_TOPOLOGY, PruningRepresentationType


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


def _mask(bits: Sequence[int] | NDArray[np.uint8]) -> BitMask:
    return BitMask(len(bits), np.packbits(np.asarray(bits, np.uint8)).tobytes())


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
    """Add to ``model_info`` what a bitstream says of the model beside its tensors; masks are uint8 arrays."""
    headers = [unit.header for unit in bitstream.units]
    formats = [h.topology_storage_format for h in headers if isinstance(h, TopologyUnitHeader)]
    model_info["topology_storage_format"] = next((f for f in formats if f != PRIVATE_TOPOLOGY), None)
    if bitstream.topology_elements:
        model_info["topology_elem_id_list"] = list(bitstream.topology_elements)
    if bitstream.mps is not None and (maps := performance_maps(bitstream.mps)):
        model_info["performance_maps"] = cast(PerformanceMaps, maps)
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
    index = element.element_id_index
    if index is None:
        return element.element_id or ""
    if index >= len(references):
        wanted = f"an index below {len(references)}, the number of names in the reference list"
        raise BitstreamError(f"the value {index} is not allowed", element="element_id_index", expected=wanted)
    return references[index]


def _bits(mask: BitMask) -> NDArray[np.uint8]:
    return np.unpackbits(np.frombuffer(mask.bit_mask_value, np.uint8), count=mask.count_bits)
