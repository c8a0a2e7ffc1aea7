"""In which order positions are stored along the axes of weights, in the source and in the target.

Both orders are facts where both networks are known. Where one is not, its framework flattens images in one way as a
rule; whether this network does is a question, asked once for each image that is flattened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from nnc_adapters.convert.axes import Axis, Indices, Order
from nnc_adapters.convert.network import Network
from nnc_adapters.convert.parts import PartOf
from nnc_core.errors import ModelError

__all__ = ["Answers", "Orders", "Question", "orders"]

Answers = Mapping[str, tuple[int, ...] | None]
"""For the name of a question, the ``(C, H, W)`` that is flattened; None if the order is the same on both sides."""


@dataclass(frozen=True)
class Question:
    """Whether the image that ``name``, a tensor of the target, takes flattened is flattened as usual in a framework.

    ``image`` is ``(C, H, W)``, with zeros for what is not known; ``reached`` are all tensors that it concerns.
    """

    name: str
    image: tuple[int, ...]
    reached: tuple[str, ...]
    known: bool = True


@dataclass
class Orders:
    """``taken`` says at which positions of the source the positions of the target are, for axes of its parts.

    ``unsure`` are tensors for which neither model tells how they are ordered.
    """

    taken: dict[tuple[PartOf, int], Indices] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)


def orders(source: Network, target: Network, pairs: Mapping[PartOf, PartOf], answers: Answers) -> Orders:
    """The orders along every axis of ``pairs``; `ModelError` for an answer that cannot be."""
    resolver = _Resolver(source, target, answers)
    for wanted, given in pairs.items():
        for place, size in enumerate(target.parameters[wanted.name].parts[wanted.place].shape):
            if size > 1:
                resolver.resolve(wanted, given, place, size)
    unknown = [name for name in answers if name not in resolver.asked]
    if unknown:
        names = ", ".join(resolver.asked) or "none"
        raise ModelError(f"flatten has an answer for {', '.join(unknown)}, but the question is about: {names}")
    return resolver.finished()


@dataclass
class _Resolver:
    source: Network
    target: Network
    answers: Answers
    result: Orders = field(default_factory=Orders)
    names: dict[int, str] = field(default_factory=dict)
    asked: dict[str, tuple[tuple[int, ...], list[str], bool]] = field(default_factory=dict)

    def resolve(self, wanted: PartOf, given: PartOf, place: int, size: int) -> None:
        ours, theirs = self.source.axis(given, place), self.target.axis(wanted, place)
        if ours is not None and theirs is not None and ours.signature() == theirs.signature():
            self._set(wanted, place, ours.indices(), theirs.indices())
        elif ours is not None and theirs is not None:
            self._differing(wanted, ours, theirs)
        elif theirs is not None:
            last = self.source.channels_last
            self._set(wanted, place, theirs.indices(self._order(wanted, last, theirs)), theirs.indices())
        elif ours is not None:
            last = self.target.channels_last
            self._set(wanted, place, ours.indices(), ours.indices(self._order(wanted, last, ours)))
        else:
            self._neither(wanted, place, size)

    def _differing(self, wanted: PartOf, ours: Axis, theirs: Axis) -> None:
        """Both are known, and say different things: only where both are in canonical order does this not matter."""
        if np.any(np.diff(ours.indices()) != 1) or np.any(np.diff(theirs.indices()) != 1):
            self.result.unsure.append(wanted.name)

    def _set(self, wanted: PartOf, place: int, ours: Indices, theirs: Indices) -> None:
        if np.array_equal(ours, theirs):
            return
        taken = np.empty_like(ours)
        taken[theirs] = ours
        self.result.taken[wanted, place] = taken

    def _order(self, wanted: PartOf, last: bool, known: Axis) -> dict[int, Order]:
        """How the side of which nothing is known stores each image, by the answers."""
        found: dict[int, Order] = {}
        usual: Order = "last" if last else "first"
        for image in known.images():
            if np.array_equal(image.indices(), image.indices({id(image): usual})):
                continue  # the usual order is that of the other side
            name = self.names.setdefault(id(image), wanted.name)
            _, reached, _ = self.asked.setdefault(name, (image.image, [], True))
            reached.append(wanted.name)
            found[id(image)] = usual
            if name in self.answers and self._answer(name, image.image) is None:
                found[id(image)] = "stored"
        return found

    def _answer(self, name: str, image: tuple[int, ...]) -> tuple[int, ...] | None:
        answer = self.answers[name]
        if answer is not None and tuple(n for n in answer if n != 1) != tuple(n for n in image if n != 1):
            raise ModelError(
                f"{list(answer)} is not what is flattened there: it is {list(image)}, channels first", tensor=name
            )
        return answer

    def _neither(self, wanted: PartOf, place: int, size: int) -> None:
        """Neither network is known: what may be a flattened image is a question."""
        if self.source.channels_last == self.target.channels_last:
            return
        role, shape = self.target.parameters[wanted.name].parts[wanted.place]
        kind = self.target.parameters[wanted.name].kind
        channels = {*_channels(self.source), *_channels(self.target)}
        multiples = [count for count in channels if size > count > 1 and size % count == 0]
        if role == "weight" and kind == "embedding":
            return
        if place == 1 and len(shape) == 2 and multiples:
            self._ask(wanted, place, size, max(multiples))
        elif multiples and (len(shape) == 1 or (len(shape) == 2 and "deconv" in _kinds(self.source, self.target))):
            flattened = {p.shape[1] for q in self.target.parameters.values() for p in q.parts if len(p.shape) == 2}
            if len(shape) == 2 or (role in ("mean", "scale") and size in flattened):
                self.result.unsure.append(wanted.name)

    def _ask(self, wanted: PartOf, place: int, size: int, count: int) -> None:
        name = wanted.name
        self.asked[name] = ((count, 0, 0), [name], False)
        answer = self.answers.get(name)
        if answer:
            if np.prod(answer) != size:
                raise ModelError(f"{list(answer)} does not make {size} inputs", tensor=name)
            first = np.arange(size).reshape(answer)
            # where a position [h, w, c] is in [c, h, w]
            taken = np.moveaxis(first, 0, -1).reshape(-1)
            self.result.taken[wanted, place] = taken if self.target.channels_last else np.argsort(taken)

    def finished(self) -> Orders:
        for name, (image, reached, known) in self.asked.items():
            if name not in self.answers:
                self.result.questions.append(Question(name, image, tuple(dict.fromkeys(reached)), known))
        self.result.unsure = list(dict.fromkeys(self.result.unsure))
        return self.result


def _channels(network: Network) -> set[int]:
    found = set()
    for parameter in network.parameters.values():
        shape = parameter.parts[0].shape
        if parameter.kind in ("conv", "depthwise", "deconv") and len(parameter.shape) > 2:
            found.add(shape[1] if parameter.kind == "deconv" else shape[0])
    return found


def _kinds(*networks: Network) -> set[str | None]:
    return {parameter.kind for network in networks for parameter in network.parameters.values()}
