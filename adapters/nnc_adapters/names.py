"""Identifiers for the tensors of a model: what NNR can express, and each only once."""

from __future__ import annotations

from collections import Counter

from nnc_core.limits import Limits

__all__ = ["expressible", "free"]


def free(name: str, taken: Counter[str]) -> str:
    """``name``, with a number behind it if it is taken; ``taken`` counts how often it was asked for."""
    candidate = name
    while taken[candidate]:
        taken[name] += 1
        candidate = f"{name}#{taken[name]}"
    taken[candidate] += 1
    return candidate


def expressible(name: str, limits: Limits) -> bool:
    """Whether ``name`` can be a ``topology_elem_id``: UTF-8 without a zero byte, and not too long."""
    try:
        return "\0" not in name and len(name.encode()) <= limits.name_length
    except UnicodeEncodeError:
        return False
