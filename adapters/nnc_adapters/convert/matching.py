"""Finding out which tensor of one model is which of another, and what tells it.

What is matched are canonical parts, so that one tensor of a recurrent layer may meet several. Every pair has its
`Evidence`; one that only an order decided is doubtful, and a run of both models has to confirm it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from nnc_adapters.convert.flattening import Answers, Orders, orders
from nnc_adapters.convert.flow import overlay
from nnc_adapters.convert.folding import View
from nnc_adapters.convert.mapping import Entry, MappingFile
from nnc_adapters.convert.naming import equal_names, plain, role_free, same_layers
from nnc_adapters.convert.network import UNKNOWN, Network, Parameter
from nnc_adapters.convert.parts import Part, PartOf
from nnc_adapters.convert.stated import stated
from nnc_core.errors import ModelError

__all__ = ["By", "Evidence", "Matched", "match"]

By = Literal["names", "order", "structure"]
Evidence = Literal["mapping", "dataflow", "name", "layer", "alone", "order"]

_STORED_ALIKE = {"pytorch", "onnx", "nnef"}

Parts = Mapping[PartOf, Part]
Pairs = dict[PartOf, PartOf]
"""Of every part of the target, the part of the source."""


@dataclass(frozen=True)
class Matched:
    """``pairs`` of parts with their ``evidence``; ``raw`` entries take tensors as they are stored.

    ``kept`` tensors of the target stay as they are, ``missing`` ones found nothing; ``open`` matrices are square and of
    the same name on both sides, and may be transposed or not. ``views`` are the networks before anything was folded.
    """

    source: Network
    target: Network
    pairs: Pairs
    evidence: Mapping[PartOf, Evidence]
    raw: Mapping[str, Entry]
    kept: tuple[str, ...]
    orders: Orders
    views: tuple[View, View]
    open: tuple[str, ...] = ()
    candidates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    answers: Answers = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """The tensors of the target for which nothing was found."""
        done = {ref.name for ref in self.pairs} | self.raw.keys() | set(self.kept)
        incomplete = {ref.name for ref in self.target.parts() if ref not in self.pairs} - self.raw.keys()
        own = {name: p for name, p in self.target.parameters.items() if not self.target.is_constant(name)}
        return [
            name
            for name in own
            if own[name].fill is None and name not in self.kept and name in incomplete | (own.keys() - done)
        ]

    @property
    def doubtful(self) -> list[str]:
        """The tensors that only an order decided, or whose order of inputs nothing tells."""
        by_order = [ref.name for ref, how in self.evidence.items() if how == "order"]
        return list(dict.fromkeys((*by_order, *self.orders.unsure, *self.open)))

    @property
    def left(self) -> list[str]:
        """The weights of the source that go nowhere although it computes with them."""
        return [name for name in self.unused if self.source.is_weight(name)]

    @property
    def unused(self) -> list[str]:
        """The tensors of the source that go nowhere."""
        used = {ref.name for ref in self.pairs.values()} | {s for e in self.raw.values() for s in e.sources}
        return [name for name, p in self.source.parameters.items() if name not in used and p.fill is None]


def match(
    source: Network,
    target: Network,
    by: By | None = None,
    stated_: MappingFile | None = None,
    answers: Answers | None = None,
) -> Matched:
    """Pairs for all parts of ``target``, as far as there are; what is ``stated_`` in a mapping comes first.

    ``by`` names are equal names; ``by`` order, the n-th part is the n-th part; ``by`` structure, parts of one role are
    the same in their order if this leads to the same shapes everywhere. Without ``by``, networks that are known are
    laid over each other; then come equal names, what is alone with its role and shape, and at last the order.
    """
    file = stated_ or MappingFile()
    source, target, open_ = _with_stored_names(source, target)
    pairs, raw, kept = stated(file.entries, source, target)
    state = _Matching(source, target, dict(pairs), dict.fromkeys(pairs, "mapping"), {*raw, *kept})
    _RULES[by](state)
    found = {ref: given for ref, given in state.pairs.items() if ref.name not in raw}
    undecided = tuple(
        name for name in open_ if name not in file.entries and state.evidence.get(PartOf(name, 0)) != "dataflow"
    )
    answers = {**file.flatten, **(answers or {})}
    flattened = orders(source, target, found, answers)
    return Matched(
        source, target, found, state.evidence, raw, tuple(kept), flattened, (View(source), View(target)), undecided,
        state.candidates(), answers,
    )  # fmt: skip


@dataclass
class _Matching:
    source: Network
    target: Network
    pairs: Pairs
    evidence: dict[PartOf, Evidence]
    done: set[str]
    """Tensors of the target of which the mapping says everything."""

    def add(self, found: Mapping[PartOf, PartOf], evidence: Evidence) -> int:
        """Keep pairs whose two sides are free; how many there were."""
        taken, count = set(self.pairs.values()), 0
        for wanted, given in found.items():
            if wanted not in self.pairs and given not in taken and wanted.name not in self.done:
                self.pairs[wanted], self.evidence[wanted] = given, evidence
                taken.add(given)
                count += 1
        return count

    def open(self) -> tuple[Parts, Parts]:
        """The parts of both sides that have no partner."""
        taken = set(self.pairs.values())
        given = {ref: part for ref, part in self.source.parts().items() if ref not in taken}
        theirs = self.target.parts().items()
        return given, {ref: part for ref, part in theirs if ref not in self.pairs and ref.name not in self.done}

    def candidates(self) -> dict[str, tuple[str, ...]]:
        """For each tensor of the target that has no partner, the tensors of the source that it could come from."""
        given, wanted = self.open()
        alike = _grouped(given, _whole)
        return {ref.name: tuple(dict.fromkeys(r.name for r in alike[_whole(part)])) for ref, part in wanted.items()}


def _by_default(state: _Matching) -> None:
    _by_dataflow(state)
    _by_names(state)
    _by_elimination(state)
    state.add(_in_order(*state.open()), "order")
    _by_elimination(state)


def _by_dataflow(state: _Matching) -> None:
    source, target = state.source, state.target
    if source.trace is None or target.trace is None:
        return
    same = equal_names(source, target)
    found = overlay((source.trace, source.parts()), (target.trace, target.parts()), state.pairs, same)
    if found is None:
        return
    named = {ref for ref in found.tied if same.get(ref) == found.pairs[ref]}
    state.add({ref: given for ref, given in found.pairs.items() if ref not in found.tied}, "dataflow")
    state.add({ref: found.pairs[ref] for ref in found.tied & named}, "name")
    state.add({ref: found.pairs[ref] for ref in found.pairs if ref in found.tied - named}, "order")


def _by_names(state: _Matching) -> None:
    state.add(equal_names(state.source, state.target), "name")


def _by_elimination(state: _Matching) -> None:
    """What is alone, then what is in the same layer, until nothing is left to find."""
    found = 1
    while found:
        found = state.add(_alone(*state.open()), "alone")
        found += state.add(same_layers(state.source, state.target, state.pairs), "layer")


def _by_structure(state: _Matching) -> None:
    _by_elimination(state)
    state.add(_in_order(*state.open()), "order")
    _by_elimination(state)


def _by_order(state: _Matching) -> None:
    given, wanted = state.open()
    for place, (ours, theirs) in enumerate(zip(given, wanted, strict=False), 1):
        if role_free(given[ours]) != role_free(wanted[theirs]):
            raise ModelError(
                f"number {place} in order is {described(theirs, wanted)} in the target, "
                f"{described(ours, given)} in the source; --print-map shows what could be which",
                tensor=theirs.name,
            )
    state.add(dict(zip(wanted, given, strict=False)), "order")


def _alone(given: Parts, wanted: Parts) -> Pairs:
    same, like = _grouped(_known(given), _whole), _grouped(_known(wanted), _whole)
    return {refs[0]: same[part][0] for part, refs in like.items() if len(refs) == len(same[part]) == 1}


def _in_order(given: Parts, wanted: Parts) -> Pairs:
    """Parts of one role, in their order, where this leads to the same shapes."""
    pairs: Pairs = {}
    given, wanted = _known(given), _known(wanted)
    ours, theirs = _grouped(given, _role), _grouped(wanted, _role)
    for role, refs in theirs.items():
        if [wanted[r].shape for r in refs] == [given[r].shape for r in ours[role]]:
            pairs.update(zip(refs, ours[role], strict=True))
    same, like = _grouped(given, _whole), _grouped(wanted, _whole)
    for part, refs in like.items():
        if len(refs) == len(same[part]) and not any(ref in pairs for ref in refs):
            pairs.update(zip(refs, same[part], strict=True))
    return pairs


def _with_stored_names(source: Network, target: Network) -> tuple[Network, Network, list[str]]:
    """Tensors of the same name and shape are stored alike: what a name alone made of one yields to what the other is.

    A square matrix could be transposed all the same; such matrices are named.
    """
    ours = {plain(name): p for name, p in source.parameters.items()}
    changed: tuple[dict[str, Parameter], dict[str, Parameter]] = ({}, {})
    open_: list[str] = []
    alike = {source.framework, target.framework} <= _STORED_ALIKE
    for name, wanted in target.parameters.items() if alike else ():
        given = ours.get(plain(name))
        if given is None or given.shape != wanted.shape or not given.assumed ^ wanted.assumed:
            continue
        known, assumed = (given, wanted) if wanted.assumed else (wanted, given)
        if {known.kind, assumed.kind} == {"dense", "dense_input_first"}:
            if known.shape[0] == known.shape[1]:
                open_.append(name)
        elif [*map(role_free, known.parts)] == [*map(role_free, assumed.parts)] or known.kind is None:
            continue
        side = changed[1 if wanted.assumed else 0]
        side[assumed.name] = replace(assumed, kind=known.kind, layout=known.layout, parts=known.parts)
    networks = [replace(n, parameters={**n.parameters, **c}) for n, c in zip((source, target), changed, strict=True)]
    return networks[0], networks[1], open_


def described(ref: PartOf, parts: Parts) -> str:
    """A part in words."""
    return f"{ref.name} ({parts[ref].role} {list(parts[ref].shape)})"


def _known(parts: Parts) -> Parts:
    return {ref: part for ref, part in parts.items() if not part.role.startswith(UNKNOWN)}


def _role(part: Part) -> Hashable:
    return role_free(part)[0]


def _whole(part: Part) -> Hashable:
    return role_free(part)


def _grouped(parts: Parts, key: Callable[[Part], Hashable]) -> defaultdict[Hashable, list[PartOf]]:
    found: defaultdict[Hashable, list[PartOf]] = defaultdict(list)
    for ref, part in parts.items():
        found[key(part)].append(ref)
    return found


def listed(texts: Iterable[str], most: int = 4) -> str:
    """The first few, and how many there are."""
    found = list(texts)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


_RULES: dict[By | None, Callable[[_Matching], None]] = {
    None: _by_default,
    "names": _by_names,
    "order": _by_order,
    "structure": _by_structure,
}
