"""What a mapping states, checked against the two networks."""

from __future__ import annotations

from collections.abc import Mapping

from nnc_adapters.convert.mapping import Entry, shape_after
from nnc_adapters.convert.naming import role_free
from nnc_adapters.convert.network import Network, Parameter
from nnc_adapters.convert.parts import Part, PartOf
from nnc_core.errors import ModelError

__all__ = ["stated"]

Pairs = dict[PartOf, PartOf]


def stated(
    entries: Mapping[str, Entry | None], source: Network, target: Network
) -> tuple[Pairs, dict[str, Entry], list[str]]:
    """The pairs that ``entries`` make, the entries that take tensors as they are stored, and the tensors that stay.

    `ModelError` where an entry names what is not there, or what cannot become what it should.
    """
    pairs: Pairs = {}
    raw: dict[str, Entry] = {}
    for name, entry in entries.items():
        if name not in target.parameters:
            raise ModelError("the mapping names it, but the target has no such tensor", tensor=name)
        for given in entry.sources if entry else ():
            if given not in source.parameters:
                raise ModelError(f"the mapping takes it from {given!r}, which the source does not have", tensor=name)
        if entry is not None and entry.steps is not None:
            raw[name] = _checked(entry, target.parameters[name], source)
        elif entry is not None:
            pairs.update(_pairs(entry, target.parameters[name], source))
    return pairs, raw, [name for name, entry in entries.items() if entry is None]


def _checked(entry: Entry, wanted: Parameter, source: Network) -> Entry:
    shapes = [source.parameters[name].shape for name in entry.sources]
    if entry.part is not None:
        raise ModelError("steps take whole tensors; there is no part beside them", tensor=wanted.name)
    try:
        found = shape_after(entry.steps or (), shapes)
    except ValueError as error:
        raise ModelError(f"the steps of the mapping do not fit: {error}", tensor=wanted.name) from error
    if found != wanted.shape:
        raise ModelError(
            f"has the shape {list(wanted.shape)}, the steps of the mapping make {list(found)}", tensor=wanted.name
        )
    return entry


def _pairs(entry: Entry, wanted: Parameter, source: Network) -> Pairs:
    offered = [PartOf(name, k) for name in entry.sources for k in range(len(source.parameters[name].parts))]
    if entry.part is not None:
        if not entry.part or max(entry.part) >= len(offered):
            raise ModelError(
                f"there is no part {list(entry.part)} of {_described(offered, source)}", tensor=wanted.name
            )
        offered = [offered[k] for k in entry.part]
    parts = [source.parameters[ref.name].parts[ref.place] for ref in offered]
    if [*map(role_free, parts)] != [*map(role_free, wanted.parts)]:
        known = ", ".join(_text(part) for part in wanted.parts)
        raise ModelError(
            f"is {known}, but {', '.join(entry.sources)} is {_described(offered, source)}; the mapping can say "
            '{"from": name, "transpose": axes}, or other steps',
            tensor=wanted.name,
        )
    return {PartOf(wanted.name, k): ref for k, ref in enumerate(offered)}


def _described(refs: list[PartOf], source: Network) -> str:
    return " and ".join(_text(source.parameters[ref.name].parts[ref.place]) for ref in refs)


def _text(part: Part) -> str:
    return f"{part.role} {list(part.shape)}"
