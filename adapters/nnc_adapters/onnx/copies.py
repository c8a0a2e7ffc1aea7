"""Weights that a model has twice: the same values once more, or transposed, as tools that fold constants leave them.

Only the values tell. So that models of one structure have the same tensors, before and after training, what counts is
large and not one number throughout: such tensors are not equal by chance.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.onnx import values
from nnc_adapters.onnx.scopes import Site

__all__ = ["TRANSPOSED", "Copy", "copies"]

Copy = Literal["equal", "transposed"]
TRANSPOSED: Copy = "transposed"

_FEWEST_BYTES = 4096
_LOOKED_AT = 16
_PIECE = 1 << 20
_Key = Hashable


def copies(sites: Mapping[str, Site], folder: values.Folder) -> dict[str, tuple[str, Copy]]:
    """Of each tensor that is the copy of an earlier one: which one, and in what way.

    Values are fetched where others have as many of the same type, and all of them only where these begin alike.
    """
    groups: defaultdict[_Key, list[str]] = defaultdict(list)
    for name, site in sites.items():
        kind = site.tensor.data_type
        if site.scope.carried and kind in values.FLOATS and (values.byte_size(site.tensor) or 0) >= _FEWEST_BYTES:
            groups[kind, values.count(site.tensor)].append(name)
    found: dict[str, tuple[str, Copy]] = {}
    for group in groups.values():
        if len(group) > 1:
            found |= _within({name: partial(_bits, sites[name], folder) for name in group})
    return found


def _bits(site: Site, folder: values.Folder) -> NDArray[Any]:
    array = values.load(site.tensor, folder)
    return array.view(f"u{array.itemsize}")


def _within(group: Mapping[str, Any]) -> dict[str, tuple[str, Copy]]:
    """The copies among tensors of one type and size."""
    found: dict[str, tuple[str, Copy]] = {}
    known: defaultdict[bytes, list[str]] = defaultdict(list)
    for name, load in group.items():
        array = load()
        for way, given in _ways(array):
            first = next((n for n in known[_beginning(given)] if _equal(group[n](), given)), None)
            if first is not None:
                found[name] = first, way
                break
        else:
            known[_beginning(array)].append(name)
    return found


def _ways(array: NDArray[Any]) -> Iterator[tuple[Copy, NDArray[Any]]]:
    yield "equal", array
    if array.ndim == 2:
        yield TRANSPOSED, array.T


def _beginning(array: NDArray[Any]) -> bytes:
    """The first numbers, row after row."""
    rows = array[: -(-_LOOKED_AT // array.shape[-1])] if array.ndim == 2 else array.reshape(-1)
    return np.ascontiguousarray(rows).reshape(-1)[:_LOOKED_AT].tobytes()


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two arrays have the same shape and bits, and these are not one number throughout."""
    if one.shape != other.shape:
        return False
    step = max(1, _PIECE * len(one) // one.size)
    pieces = [slice(at, at + step) for at in range(0, len(one), step)]
    return all(np.array_equal(one[p], other[p]) for p in pieces) and any((one[p] != one.flat[0]).any() for p in pieces)
