"""The syntax tables of NNR_TPL (clause 6.3.4): lists of names, and the pruning topology container."""

from __future__ import annotations

from typing import Any

from .bits import BitReader
from .errors import InvalidError
from .parameter_sets import Parameters


def topology_elements_ids_list(r: BitReader, p: Parameters, indexed: bool) -> list[str]:
    """``topology_elements_ids_list()``: names, or their places in the reference list."""
    count = r.ue(7) + 2
    if indexed:
        names = [reference(p, r.ue(7)) for _ in range(r.plausible(count, 8))]
        r.byte_alignment()
        return names
    r.byte_alignment()
    return [r.st() for _ in range(r.plausible(count, 8))]


def reference(p: Parameters, index: int) -> str:
    """The name at a place in the reference list."""
    if index >= len(p.topology_elements):
        raise InvalidError("an index lies beyond the reference list")
    return p.topology_elements[index]


def nnr_pruning_topology_container(data: bytes, p: Parameters) -> dict[str, Any]:
    """``nnr_pruning_topology_container()``; where a dictionary is aligned is not certain: what fits counts."""
    for each_aligned, names_first in ((True, False), (False, False), (False, True)):
        r = BitReader(data)
        try:
            found = _pruning(r, p, each_aligned, names_first)
        except InvalidError:
            continue
        if r.left == 0:
            return found
    raise InvalidError("a pruning topology container does not fill its unit")


def _pruning(r: BitReader, p: Parameters, each_aligned: bool, names_first: bool) -> dict[str, Any]:
    rep_type, prune, order, sparse = r.u(2), r.flag(), r.flag(), r.flag()
    r.u(3)
    found: dict[str, Any] = {"bit_mask_order_flag": order}
    if prune and rep_type > 1:
        raise InvalidError("nnr_rep_type is reserved")
    if prune:
        found["prune_rep_type"] = rep_type
        found |= _dictionary(r, p, each_aligned, names_first) if rep_type else {"prune_bit_mask": _bit_mask(r)}
    if sparse:
        found["sparse_bit_mask"] = _bit_mask(r)
    return found


def _dictionary(r: BitReader, p: Parameters, each_aligned: bool, names_first: bool) -> dict[str, Any]:
    def name() -> str:
        return reference(p, r.ue(7)) if p.topology_indexed_reference_flag else r.st()

    def dims() -> list[int]:
        return [r.ue(7) for _ in range(r.plausible(r.ue(1), 8))]

    count = r.u(8)
    names = [name() for _ in range(count)] if names_first else []
    shapes = []
    for _ in range(count):
        if not names_first:
            names.append(name())
        shapes.append(dims())
        if each_aligned:
            r.byte_alignment()
    if not each_aligned:
        r.byte_alignment()
    if any(size == 0 for shape in shapes for size in shape):
        raise InvalidError("a dimension in a pruning dictionary is 0")
    return {
        "prune_tpl_elem_ids": names,
        "prune_tpl_count_dims": [len(shape) for shape in shapes],
        "prune_tpl_dims": [size for shape in shapes for size in shape],
    }


def _bit_mask(r: BitReader) -> list[int]:
    count = r.plausible(r.u(32), 1)
    mask = [int(bit) for bit in format(r.u(count), f"0{count}b")] if count else []
    r.byte_alignment()
    return mask
