"""Names: of tensors, what NNR can express, and each only once; of files, what file systems can store."""

from __future__ import annotations

from collections import Counter

from nnc_core.limits import Limits

__all__ = ["expressible", "free", "storable"]

# What file systems have in common: bytes of a name and of a path, with room for the folder that it is put in.
_LONGEST_NAME, _LONGEST_PATH = 255, 2048
_DEEPEST = 64


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


def storable(path: str) -> bool:
    """Whether a file can have this relative path, with slashes: in UTF-8, not too long, not in too many folders."""
    try:
        sizes = [len(name.encode()) for name in path.split("/")]
    except UnicodeEncodeError:
        return False
    return len(sizes) <= _DEEPEST and max(sizes) <= _LONGEST_NAME and sum(sizes) + len(sizes) <= _LONGEST_PATH
