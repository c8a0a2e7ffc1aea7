"""Finding out which tensor of one model is which of another: by names, by order, or by structure.

What is matched are canonical parts, so that one tensor of a recurrent layer may meet several. A match is never a
guess: what is not determined is a `ModelError` that lists the candidates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal, TypeVar

from nnc_adapters.convert.layouts import Part
from nnc_adapters.convert.mapping import Entry, Plan, entry_of_parts
from nnc_adapters.convert.network import UNKNOWN, Network, PartOf
from nnc_core.errors import ModelError

__all__ = ["By", "match", "unanswered", "with_questions"]

By = Literal["names", "order", "structure"]

Parts = Mapping[PartOf, Part]
Pairs = dict[PartOf, PartOf]
"""Of every part of the target, the part of the source."""

_ADVICE = "a mapping file can say which is which, --print-map shows what one looks like"
_SHOWN = 8
_Key = TypeVar("_Key")


def match(source: Network, target: Network, by: By | None = None) -> Plan:
    """A plan for all parameters of ``target``, in its order; `ModelError` where some are ambiguous or left over.

    ``by`` names are equal names; ``by`` order, the n-th part is the n-th part; ``by`` structure, parts of one role are
    the same where they alone have a shape, or in their order if this leads to the same shapes everywhere. Without
    ``by``, equal names that fit come first, then parts that alone have a role and shape; order decides nothing. Graphs
    are in the order of their operations, all else as it is stored: variables of a SavedModel mostly by their names.
    """
    given, wanted = source.parts(), target.parts()
    pairs = _MATCHERS[by](given, wanted)
    _check_complete(pairs, given, wanted, by)
    found = {
        name: entry_of_parts([pairs[PartOf(name, k)] for k in range(len(parameter.parts))], source)
        for name, parameter in target.parameters.items()
    }
    return with_questions(found, source, target)


def _by_default(given: Parts, wanted: Parts) -> Pairs:
    same = _by_names(given, wanted)
    taken = set(same.values())
    rest = {ref: part for ref, part in given.items() if ref not in taken}
    open_ = {ref: part for ref, part in wanted.items() if ref not in same}
    return same | _by_structure(rest, open_, trust_order=False)


def _by_names(given: Parts, wanted: Parts) -> Pairs:
    """Tensors of one name whose parts are all the same."""
    ours, theirs = _of_tensors(given), _of_tensors(wanted)
    names = [name for name in theirs if ours.get(name) == theirs[name]]
    return {PartOf(name, k): PartOf(name, k) for name in names for k in range(len(theirs[name]))}


def _of_tensors(parts: Parts) -> dict[str, list[Part]]:
    found: defaultdict[str, list[Part]] = defaultdict(list)
    for ref, part in parts.items():
        found[ref.name].append(part)
    return found


def _by_order(given: Parts, wanted: Parts) -> Pairs:
    for place, (ours, theirs) in enumerate(zip(given, wanted, strict=False), 1):
        if given[ours] != wanted[theirs]:
            raise ModelError(
                f"number {place} in order is {_text(theirs, wanted)} in the target, "
                f"{_text(ours, given)} in the source; {_ADVICE}",
                tensor=theirs.name,
            )
    return dict(zip(wanted, given, strict=False))


def _by_structure(given: Parts, wanted: Parts, *, trust_order: bool) -> Pairs:
    pairs: Pairs = {}
    given, wanted = _known(given), _known(wanted)
    ours, theirs = _grouped(given, _role), _grouped(wanted, _role)
    for role, refs in theirs.items():
        if trust_order and [wanted[r] for r in refs] == [given[r] for r in ours[role]]:
            pairs.update(zip(refs, ours[role], strict=True))
    same, like = _grouped(given, _whole), _grouped(wanted, _whole)
    alone = (part for part, refs in like.items() if len(refs) == len(same[part]) == 1)
    return {like[part][0]: same[part][0] for part in alone} | pairs


def _known(parts: Parts) -> Parts:
    return {ref: part for ref, part in parts.items() if not part.role.startswith(UNKNOWN)}


def _role(part: Part) -> str:
    return part.role


def _whole(part: Part) -> Part:
    return part


def _grouped(parts: Parts, key: Callable[[Part], _Key]) -> defaultdict[_Key, list[PartOf]]:
    found: defaultdict[_Key, list[PartOf]] = defaultdict(list)
    for ref, part in parts.items():
        found[key(part)].append(ref)
    return found


def _check_complete(pairs: Pairs, given: Parts, wanted: Parts, by: By | None) -> None:
    """`ModelError` that tells what could be one of several from what could be none."""
    taken = set(pairs.values())
    ours = _grouped({ref: part for ref, part in given.items() if ref not in taken}, _whole)
    theirs = _grouped({ref: part for ref, part in wanted.items() if ref not in pairs}, _whole)
    by_structure = by not in ("names", "order")
    both = [part for part in theirs if part in ours and by_structure and not part.role.startswith(UNKNOWN)]
    missing = [ref for part, refs in theirs.items() if part not in both for ref in refs]
    unused = [ref for part, refs in ours.items() if part not in both for ref in refs]
    texts = []
    if missing:
        texts.append(f"the target needs {_listed(_text(ref, wanted) for ref in missing)}")
    if unused:
        texts.append(f"the source has left {_listed(_text(ref, given) for ref in unused)}")
    if both:
        doubts = (f"{_named(part)}: {_names(theirs[part])} from {_names(ours[part])}" for part in both)
        texts.append(f"ambiguous are {_listed(doubts)}")
    if texts:
        how = "--by structure takes them in order; " if both and not missing and not unused and by is None else ""
        raise ModelError(f"the models do not match: {'; '.join(texts)}; {how}{_ADVICE}")


def with_questions(plan: Plan, source: Network, target: Network) -> Plan:
    """``plan`` with ``[C, 0, 0]`` for every matrix that may follow a flattened image, where frameworks flatten
    differently: how large the image is, or that there is none, cannot be seen in the weights."""
    if source.channels_last == target.channels_last:
        return plan
    channels = {**_flattened(target), **_of_target(plan, _flattened(source))}
    answered = dict(plan)
    for name, count in channels.items():
        entry = plan.get(name)
        if entry is not None and entry.flatten is None and entry.transpose is None:
            answered[name] = Entry(entry.sources, entry.part, None, (count, 0, 0))
    return answered


def _of_target(plan: Plan, channels: Mapping[str, int]) -> dict[str, int]:
    found = {name: entry.sources[0] for name, entry in plan.items() if entry is not None}
    return {name: channels[first] for name, first in found.items() if first in channels}


def _flattened(network: Network) -> dict[str, int]:
    """The matrices that directly follow a convolution and have a multiple of its channels as inputs."""
    found: dict[str, int] = {}
    channels = 0
    for parameter in network.parameters.values():
        role, shape = parameter.parts[0]
        if role.endswith("_weight"):  # a recurrent cell
            channels = 0
        if role != "weight" or parameter.kind == "embedding":
            continue
        if len(shape) == 2:
            if channels and shape[1] > channels and shape[1] % channels == 0:
                found[parameter.name] = channels
            channels = 0
        elif len(shape) > 2:
            channels = shape[1] if parameter.kind == "deconv" else shape[0]
    return found


def unanswered(plan: Plan) -> list[str]:
    """The tensors for which ``flatten`` is still the question of `with_questions`."""
    return [name for name, entry in plan.items() if entry is not None and entry.flatten and 0 in entry.flatten]


def _text(ref: PartOf, parts: Parts) -> str:
    return f"{ref.name} ({_named(parts[ref])})"


def _named(part: Part) -> str:
    return f"{part.role} {list(part.shape)}"


def _names(refs: Iterable[PartOf]) -> str:
    return " / ".join(ref.name for ref in refs)


def _listed(texts: Iterable[str]) -> str:
    found = list(texts)
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


_MATCHERS: dict[By | None, Callable[[Parts, Parts], Pairs]] = {
    None: _by_default,
    "names": _by_names,
    "order": _by_order,
    "structure": partial(_by_structure, trust_order=True),
}
