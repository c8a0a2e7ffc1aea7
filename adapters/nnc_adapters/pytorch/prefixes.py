"""From the names in a checkpoint to those of a module: containers around it, and what wrappers put into names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from nnc_core.errors import ModelError

_Value = TypeVar("_Value")
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_DEEPEST = 4


def fitting(state: Mapping[str, _Value], own: Iterable[str], prefix: str | None = None) -> dict[str, _Value]:
    """The part of ``state`` that is meant for a module with the names ``own``, by these names.

    What parallel or compiled modules have in their names does not matter, on either side; names that the module does
    not have stay. Without a ``prefix``, the container whose tensors the module has most of is taken: `ModelError` where
    several fit it alike.
    """
    names = _plain(own)
    if prefix is None:
        prefix = _best(state, names)
    inside = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
    plain = _plain(inside)
    return {names.get(short, inside_name): inside[inside_name] for short, inside_name in plain.items()}


def _plain(names: Iterable[str]) -> dict[str, str]:
    """Names without the parts that wrappers add, and the whole names; all whole where two would be the same."""
    whole = list(names)
    for wrappers in (_WRAPPERS, _WRAPPERS - {"module"}):
        short = {".".join(part for part in name.split(".") if part not in wrappers): name for name in whole}
        if len(short) == len(whole):
            return short
    return {name: name for name in whole}


def _best(state: Mapping[str, Any], names: Mapping[str, str]) -> str:
    fits = {prefix: _common(state, prefix, names) for prefix in _prefixes(state)}
    most = max(fits.values(), default=0)
    best = [prefix for prefix, count in fits.items() if count == most]
    if most and len(best) > 1:
        known = ", ".join(repr(prefix) for prefix in best)
        raise ModelError(f"several parts of the checkpoint fit the module; choose one with prefix=, of {known}")
    return best[0] if most else ""


def _common(state: Mapping[str, Any], prefix: str, names: Mapping[str, str]) -> int:
    return len(_plain(n[len(prefix) :] for n in state if n.startswith(prefix)).keys() & names.keys())


def _prefixes(state: Iterable[str]) -> list[str]:
    """The beginnings of names that may be keys of containers, the shortest first; without those of wrappers."""
    found = {"": None}
    for name in state:
        parts = name.split(".")[:-1][:_DEEPEST]
        found.update(dict.fromkeys(".".join(parts[:depth]) + "." for depth in range(1, len(parts) + 1)))
    return [p for p in sorted(found, key=lambda p: p.count(".")) if p.rstrip(".").rpartition(".")[2] not in _WRAPPERS]
