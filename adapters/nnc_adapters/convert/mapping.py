"""Which tensor comes from which: what a mapping file says, and whether it is possible."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.convert.layouts import Part, flattened_to_first, flattened_to_last
from nnc_adapters.convert.network import Network, Parameter, PartOf
from nnc_core.errors import ModelError

__all__ = ["Entry", "Plan", "check", "converted", "entry_of_parts", "load", "to_json"]


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a tensor comes from.

    ``part`` chooses, in this order, from the parts that the tensors ``sources`` hold together. ``transpose`` permutes
    the axes of the one source and replaces what the table of layouts says. ``flatten`` is the ``[C, H, W]`` whose
    flattening a matrix takes as its input; empty if there is none, None if nothing is known.
    """

    sources: tuple[str, ...]
    part: tuple[int, ...] | None = None
    transpose: tuple[int, ...] | None = None
    flatten: tuple[int, ...] | None = None


Plan = Mapping[str, Entry | None]
"""An `Entry` for each tensor of the target; None for one that stays as it is."""


def load(content: str | Path | Mapping[str, Any]) -> Plan:
    """Read a mapping file, or what is in one; `ModelError` where it is not in the form that `to_json` writes."""
    if isinstance(content, Mapping):
        return {name: _entry(name, value) for name, value in content.items()}
    try:
        value = json.loads(Path(content).read_text("utf-8"), object_pairs_hook=_unique)
    except (RecursionError, ValueError) as error:
        raise ModelError(f"is no JSON: {error}", file=str(content)) from error
    if not isinstance(value, dict):
        raise ModelError("is no object of target name: source name", file=str(content))
    return load(value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name occurs twice in one object")
    return found


def _entry(name: str, value: Any) -> Entry | None:
    if value is None:
        return None
    fields = value if isinstance(value, dict) else {"from": value}
    unknown = fields.keys() - {"from", "part", "transpose", "flatten"}
    sources = fields.get("from")
    sources = [sources] if isinstance(sources, str) else sources
    if unknown or not isinstance(sources, list) or not sources or not all(isinstance(s, str) for s in sources):
        expected = 'a source name, null, or {"from": name or names, "part", "transpose", "flatten"}'
        raise ModelError(f"the mapping has {json.dumps(value)}, expected {expected}", tensor=name)
    flatten = fields.get("flatten")
    return Entry(
        tuple(sources),
        _numbers(name, "part", fields.get("part")),
        _numbers(name, "transpose", fields.get("transpose")),
        () if flatten is False else _numbers(name, "flatten", flatten),
    )


def _numbers(name: str, field: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    numbers = [value] if type(value) is int else value
    if not isinstance(numbers, list) or not all(type(n) is int and n >= 0 for n in numbers):
        raise ModelError(f"the mapping's {field!r} is {json.dumps(value)}, expected whole numbers", tensor=name)
    return tuple(numbers)


def to_json(plan: Plan) -> dict[str, Any]:
    """The content of a mapping file."""
    return {name: None if entry is None else _plain(entry) for name, entry in plan.items()}


def _plain(entry: Entry) -> Any:
    sources: Any = entry.sources[0] if len(entry.sources) == 1 else list(entry.sources)
    found = {"part": entry.part, "transpose": entry.transpose, "flatten": entry.flatten}
    options: dict[str, Any] = {key: list(value) for key, value in found.items() if value is not None}
    if entry.flatten == ():
        options["flatten"] = False
    if not options and len(entry.sources) == 1:
        return sources
    return {"from": sources, **options}


def entry_of_parts(parts: Sequence[PartOf], source: Network) -> Entry:
    """The entry that takes ``parts``, in this order."""
    sources = tuple(dict.fromkeys(part.name for part in parts))
    offered = _offered(sources, source)
    chosen = tuple(offered.index(part) for part in parts)
    return Entry(sources, None if chosen == tuple(range(len(offered))) else chosen)


def _offered(sources: Iterable[str], source: Network) -> list[PartOf]:
    return [PartOf(name, k) for name in sources for k in range(len(source.parameters[name].parts))]


def check(plan: Plan, source: Network, target: Network) -> None:
    """`ModelError` where an entry names what is not there, or what cannot become what it should."""
    for name, entry in plan.items():
        if name not in target.parameters:
            raise ModelError("the mapping names it, but the target has no such tensor", tensor=name)
        if entry is not None:
            _check_entry(entry, target.parameters[name], source)
    missing = [name for name in target.parameters if name not in plan]
    if missing:
        raise ModelError(
            f"the mapping does not say where {len(missing)} tensors of the target come from: {', '.join(missing[:8])}; "
            "null keeps one as it is"
        )


def _check_entry(entry: Entry, wanted: Parameter, source: Network) -> None:
    for name in entry.sources:
        if name not in source.parameters:
            raise ModelError(f"the mapping takes it from {name!r}, which the source does not have", tensor=wanted.name)
    if entry.transpose is not None:
        _check_transpose(entry, wanted, source.parameters[entry.sources[0]])
        return
    parts = _chosen(entry, wanted, source)
    if [_unnormalized(part) for part in parts] != [_unnormalized(part) for part in wanted.parts]:
        raise ModelError(
            f"is {_described(wanted.parts)}, but {', '.join(entry.sources)} is {_described(parts)}; the mapping can "
            'say {"from": name, "transpose": axes}',
            tensor=wanted.name,
        )
    if entry.flatten and (wanted.kind not in _MATRICES or prod(entry.flatten) != wanted.parts[0].shape[1]):
        raise ModelError(f"{list(entry.flatten)} is not what its inputs are flattened from", tensor=wanted.name)


def _unnormalized(part: Part) -> Part:
    """``part`` without the difference that normalization makes, which graphs may have taken apart."""
    return Part("bias", part.shape) if part.role == "shift" else part


_MATRICES = ("dense", "dense_input_first")


def _check_transpose(entry: Entry, wanted: Parameter, given: Parameter) -> None:
    axes = entry.transpose or ()
    if len(entry.sources) > 1 or entry.part is not None or entry.flatten:
        raise ModelError("a transposed tensor has one source, and neither part nor flatten", tensor=wanted.name)
    if sorted(axes) != list(range(len(given.shape))) or tuple(given.shape[a] for a in axes) != wanted.shape:
        raise ModelError(
            f"has shape {wanted.shape}, {given.name!r} of shape {given.shape} transposed by {list(axes)} has not",
            tensor=wanted.name,
        )


def _chosen(entry: Entry, wanted: Parameter, source: Network) -> list[Part]:
    offered = [part for name in entry.sources for part in source.parameters[name].parts]
    if entry.part is None:
        return offered
    if max(entry.part, default=0) >= len(offered) or not entry.part:
        raise ModelError(f"part {list(entry.part)} of {_described(offered)} does not exist", tensor=wanted.name)
    return [offered[k] for k in entry.part]


def _described(parts: Iterable[Part]) -> str:
    return " and ".join(f"{part.role} {list(part.shape)}" for part in parts)


def converted(
    entry: Entry, wanted: Parameter, source: Network, target: Network, tensors: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    """The tensor that ``entry``, which `check` has seen, describes: in the shape and layout of the target."""
    if entry.transpose is not None:
        return np.transpose(tensors[entry.sources[0]], entry.transpose)
    parts = [part for name in entry.sources for part in source.parameters[name].layout.split(tensors[name])]
    if entry.part is not None:
        parts = [parts[k] for k in entry.part]
    if entry.flatten and source.channels_last != target.channels_last:
        flattened = flattened_to_last if target.channels_last else flattened_to_first
        parts = [flattened(parts[0], entry.flatten)]
    return wanted.layout.join(parts, wanted.shape)
