"""Which weight is which, from what follows what: two networks are laid over each other.

Weights are told apart by their role and shape, then by those before and behind them, and so on (colour refinement).
What cannot be told apart in this way is tied: an order decides, and says so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

from nnc_adapters.convert.parts import Part, PartOf
from nnc_adapters.convert.trace import Reach, Trace

__all__ = ["Overlay", "overlay"]

Parts = Mapping[PartOf, Part]
Node = tuple[int, PartOf]
"""The source is 0, the target 1."""

_STRUCTURAL = ("left", "right", "softmax", "concatenated", "piece", "ordered", "index")


@dataclass(frozen=True)
class Overlay:
    """``pairs`` of the target with the source; ``tied`` are those that only their order told apart."""

    pairs: dict[PartOf, PartOf]
    tied: set[PartOf]


def overlay(
    given: tuple[Trace, Parts],
    wanted: tuple[Trace, Parts],
    fixed: Mapping[PartOf, PartOf],
    same: Mapping[PartOf, PartOf],
) -> Overlay | None:
    """The one way to lay ``wanted`` over ``given``; None where the networks differ.

    ``fixed`` pairs are known; ``same`` ones, of equal names, decide between what is tied.
    """
    for filtered in (_everything, _structural, _nothing):
        found = _Overlaying((given, wanted), filtered, fixed).run(same)
        if found is not None:
            return found
    return None


def _everything(path: tuple[str, ...]) -> tuple[str, ...]:
    return path


def _structural(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(step for step in path if step.startswith(_STRUCTURAL))


def _nothing(path: tuple[str, ...]) -> tuple[str, ...]:
    return ()


@dataclass
class _Overlaying:
    sides: tuple[tuple[Trace, Parts], tuple[Trace, Parts]]
    filtered: Callable[[tuple[str, ...]], tuple[str, ...]]
    fixed: Mapping[PartOf, PartOf]
    before: dict[Node, set[tuple[Hashable, tuple[str, ...]]]] = field(default_factory=lambda: defaultdict(set))
    behind: dict[Node, set[tuple[Hashable, tuple[str, ...]]]] = field(default_factory=lambda: defaultdict(set))

    def __post_init__(self) -> None:
        for side, (trace, parts) in enumerate(self.sides):
            for part, reaches in trace.before.items():
                if part in parts:
                    for reach in reaches:
                        self._connect(side, reach, (side, part))
            for place, reached in enumerate(trace.results):
                for reach in reached:
                    if isinstance(reach.origin, PartOf):
                        self.behind[side, reach.origin].add((("result", place), self.filtered(reach.path)))

    def _connect(self, side: int, reach: Reach, node: Node) -> None:
        path = self.filtered(reach.path)
        if isinstance(reach.origin, PartOf):
            self.before[node].add(((side, reach.origin), path))
            self.behind[side, reach.origin].add((node, path))
        else:
            self.before[node].add((("input", reach.origin), path))

    def run(self, same: Mapping[PartOf, PartOf]) -> Overlay | None:
        nodes = [
            (side, part) for side, (trace, parts) in enumerate(self.sides) for part in trace.before if part in parts
        ]
        colours: dict[Node, Hashable] = {node: _first(self.sides[node[0]][1][node[1]]) for node in nodes}
        for number, (target, source) in enumerate(self.fixed.items()):
            if (0, source) in colours and (1, target) in colours:
                colours[0, source] = colours[1, target] = ("fixed", number, colours[1, target])
        tied: set[PartOf] = set()
        while True:
            colours = self._refined(colours)
            groups = self._groups(colours)
            if any(len(ours) != len(theirs) for ours, theirs in groups.values()):
                return None
            several = [(ours, theirs) for ours, theirs in groups.values() if len(theirs) > 1]
            if not several:
                break
            ours, theirs = several[0]
            named = next(((same[t], t) for t in theirs if same.get(t) in ours), None)
            source, target = named or (ours[0], theirs[0])
            if named is None:
                tied.update(theirs)
            colours[0, source] = colours[1, target] = ("chosen", len(tied), colours[1, target])
        pairs = {theirs[0]: ours[0] for ours, theirs in groups.values()}
        return Overlay(pairs, self._followers(tied, pairs)) if self._fits(pairs) else None

    def _followers(self, tied: set[PartOf], pairs: Mapping[PartOf, PartOf]) -> set[PartOf]:
        return {part for part in tied if part in pairs}

    def _refined(self, colours: dict[Node, Hashable]) -> dict[Node, Hashable]:
        numbers: dict[Hashable, int] = {}
        current: dict[Node, Hashable] = {n: numbers.setdefault(c, len(numbers)) for n, c in colours.items()}
        while True:
            seen: dict[Hashable, int] = {}
            found: dict[Node, Hashable] = {}
            for node in current:
                around = (self._around(self.before[node], current), self._around(self.behind[node], current))
                found[node] = seen.setdefault((current[node], *around), len(seen))
            if len(seen) == len(set(current.values())):
                return current
            current = found

    def _around(self, edges: set[tuple[Hashable, tuple[str, ...]]], colours: Mapping[Node, Hashable]) -> Hashable:
        return frozenset(Counter((colours.get(node, node), path) for node, path in edges).items())  # type: ignore[call-overload]

    def _groups(self, colours: Mapping[Node, Hashable]) -> dict[Hashable, tuple[list[PartOf], list[PartOf]]]:
        groups: defaultdict[Hashable, tuple[list[PartOf], list[PartOf]]] = defaultdict(lambda: ([], []))
        for (side, part), colour in colours.items():
            groups[colour][side].append(part)
        return groups

    def _fits(self, pairs: Mapping[PartOf, PartOf]) -> bool:
        """Whether every weight comes behind those that its partner comes behind."""

        def moved(node: Hashable) -> Hashable:
            return (0, pairs.get(node[1])) if isinstance(node, tuple) and node[0] == 1 else node

        return all(
            {(moved(node), path) for node, path in self.before[1, target]} == self.before[0, source]
            for target, source in pairs.items()
        )


def _first(part: Part) -> Hashable:
    role = part.role.replace("shift", "bias")
    return (role, part.shape)
