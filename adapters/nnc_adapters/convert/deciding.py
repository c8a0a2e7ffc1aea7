"""Which pairs to convert by: found, proven by running both models, or asked for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice, product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.convert.checking import Check, compare, examples
from nnc_adapters.convert.flattening import Question
from nnc_adapters.convert.folding import View, views
from nnc_adapters.convert.mapping import Entry, MappingFile, Step
from nnc_adapters.convert.matching import By, Matched, listed, match
from nnc_adapters.convert.moving import moved
from nnc_adapters.convert.network import Network
from nnc_adapters.convert.parts import Part
from nnc_adapters.convert.reading import Model, preferred
from nnc_adapters.convert.running import CannotRun, Runner
from nnc_core.errors import ModelError, NncError

__all__ = ["CheckError", "Decision", "Pair"]

Array = NDArray[Any]
_MOST_TRIALS = 16


class CheckError(ModelError):
    """The converted model does not compute what the source computes."""


@dataclass(frozen=True)
class Decision:
    """What to convert by; ``doubtful`` are tensors that order alone told apart, ``proven`` those a run confirmed."""

    matched: Matched
    doubtful: tuple[str, ...] = ()
    proven: tuple[str, ...] = ()


@dataclass
class Pair:
    """A source and a target, and what the user says about them."""

    source: Model
    target: Model
    by: By | None = None
    stated: MappingFile = field(default_factory=MappingFile)
    answers: Mapping[str, tuple[int, ...] | None] = field(default_factory=dict)
    fold: bool = False

    def notes(self) -> list[str]:
        """What could not be found out."""
        return list(dict.fromkeys((*self.source.notes, *self.target.notes)))

    def _hints(self) -> list[str]:
        sides = (self.source, self.target)
        if any(side.framework == "pytorch" and side.module is None for side in sides):
            return ["with --module FILE.py:NAME of the PyTorch network nothing is asked"]
        return self.notes()

    def matched(self, more: MappingFile | None = None) -> Matched:
        """The pairs of the two networks; of several ways to see one, that which leaves the least open."""
        stated, answers = self.stated, dict(self.answers)
        if more is not None:
            stated = MappingFile({**more.entries, **stated.entries}, stated.flatten)
            answers = {**more.flatten, **answers}
        found = []
        for ours, theirs in product(*self._views):
            matched = match(ours.seen, theirs.seen, self.by, stated, answers)
            found.append(replace(matched, views=(ours, theirs)))
        return min(found, key=lambda m: (len(m.missing), len(m.left), len(m.doubtful), len(m.orders.questions)))

    @cached_property
    def _views(self) -> tuple[list[View], list[View]]:
        """Both networks in every way to see them."""
        sides = self.source.networks(self.target), self.target.networks(self.source)
        ours, theirs = ([view for network in side for view in views(network, fold=self.fold)] for side in sides)
        return ours, theirs

    def decide(self, check: bool | None) -> Decision:
        """Pairs that something proves; `ModelError` with what to say where nothing does."""
        matched = self.matched()
        if matched.missing:
            raise ModelError(_missing(matched))
        doubtful, left = tuple(matched.doubtful), matched.left
        if not (doubtful or left or matched.orders.questions):
            return Decision(matched)
        reason = "--no-check was given"
        if check is not False:
            try:
                return Decision(self._tried(matched), doubtful, doubtful)
            except CannotRun as error:
                reason = str(error)
            except CheckError:
                if not left:
                    raise
            if left:
                raise ModelError(_missing(matched))
        if matched.orders.questions:
            raise ModelError(asked(matched.orders.questions, self._hints()))
        if check is not False:
            raise ModelError(_doubtful(matched, "; ".join((reason, *self.notes()))))
        return Decision(matched, doubtful)

    def _tried(self, matched: Matched) -> Matched:
        """The first way to answer what is open with which random weights compute the same in both models."""
        given = _random(matched.views[0].network, self.source.content.tensors)
        with _Written(self.source, given) as (file, tensors):
            ours = self.source.runner(file, tensors)
            self.target.runner()  # before weights are written, see whether that is of use
            best = Check(None, "nothing was tried")
            for trial in islice(_trials(matched), _MOST_TRIALS):
                found = self.matched(trial)
                check = self._compared(ours, moved(found, given))
                if check.passed and check.conclusive:
                    return found
                best = check if best.difference is None or (check.difference or np.inf) < best.difference else best
        if best.difference is None:
            raise CannotRun(best.reason)
        raise CheckError(self._unequal(matched, best))

    def _compared(self, ours: Runner, weights: Mapping[str, Array]) -> Check:
        with _Written(self.target, weights) as (file, tensors):
            return self.run(ours, self.target.runner(file, tensors))

    def run(self, ours: Runner, theirs: Runner) -> Check:
        """Both models on the same inputs, as declared by the one that declares them."""
        source, target = self.source, self.target
        half = source.half or target.half
        rows = min(source.rows, target.rows)
        declared = source.declared or target.declared or ours.inputs or theirs.inputs or source.inputs(target)
        if not declared:
            raise CannotRun("neither model says what it takes: --input 1,3,224,224 gives the shape")
        sides = (ours, source, theirs, target)
        if not (source.declared or target.declared or ours.inputs) and theirs.inputs:
            sides = (theirs, target, ours, source)
        given = examples(declared, rows)
        found = _compare(*sides, given, half)
        # graphs that were exported for one image take one
        return found if found.difference is not None else _compare(*sides, [array[:1] for array in given], half)

    def verified(self, decision: Decision, check: bool | None) -> Check:
        """The check with the weights that are to be written; `CheckError` where it fails."""
        if check is False:
            return Check(None, "switched off")
        try:
            ours = self.source.runner()
            result = self._compared(ours, moved(decision.matched, self.source.content.tensors))
            if result.difference is None:
                raise CannotRun(result.reason)
        except CannotRun as error:
            if check:
                raise ModelError(f"the check cannot be made: {error}") from error
            return Check(None, str(error))
        if not result.passed:
            raise CheckError(self._unequal(decision.matched, result))
        return result

    def _unequal(self, matched: Matched, check: Check) -> str:
        from nnc_adapters.convert.remarks import differences

        known = differences(matched)
        why = f"; what differs: {listed(known)}" if known else ""
        return (
            f"the models compute different things: outputs differ by {check.difference:.2g} of their range{why}; "
            "nothing was written. --print-map shows which tensor is which, --no-check writes all the same"
        )


def _compare(one: Runner, model: Model, other: Runner, beside: Model, given: list[Array], half: bool) -> Check:
    return compare(one, other, given, partial(preferred, model.network, beside.framework), half=half)


@dataclass
class _Written:
    """A model with other weights: in a file, or for a module without one."""

    model: Model
    weights: Mapping[str, Array]
    folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> tuple[Path | None, Mapping[str, Array] | None]:
        model = self.model
        if model.module is not None and model.framework == "pytorch":
            return None, {**{n: model.content.tensors[n] for n in model.content.tensors}, **dict(self.weights.items())}
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name, "model" + model.suffix)
        try:
            model.write(self.weights, path, force=True)
        except (NncError, OSError) as error:
            self.folder.cleanup()
            raise CannotRun(f"it cannot be written to be run: {error}") from error
        return path, None

    def __exit__(self, *_: object) -> None:
        if self.folder is not None:
            self.folder.cleanup()


def _random(network: Network, tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Weights with which every tensor matters: as in a new network, with statistics as in a trained one."""
    generator = np.random.default_rng(11)
    own = [parameter for parameter in network.parameters.values() if parameter.fill is None]
    return {p.name: _values(generator, p.parts[0], p.shape).astype(tensors[p.name].dtype) for p in own}


def _values(generator: np.random.Generator, part: Part, shape: tuple[int, ...]) -> Array:
    if part.role in ("scale", "variance"):
        return generator.uniform(0.5, 1.5, shape)
    spread = 0.3 if len(part.shape) == 1 else 1.2 / float(np.sqrt(max(prod(part.shape[1:]), 1)))
    return generator.normal(0, spread, shape)


def _trials(matched: Matched) -> Iterator[MappingFile]:
    """Every way to answer: images flattened as usual or alike, square matrices as they are stored or transposed."""
    questions = [question for question in matched.orders.questions if question.known]
    for usual in product((True, False), repeat=min(len(questions), 4)):
        answers = {q.name: q.image if u else None for q, u in zip(questions, usual, strict=False)}
        for turned in (False, True) if matched.open else (False,):
            steps = (Step("transpose", (1, 0) if turned else (0, 1)),)
            entries = {name: Entry((_source_of(matched, name),), None, steps) for name in matched.open}
            yield MappingFile(entries, answers)


def _source_of(matched: Matched, name: str) -> str:
    return next(given.name for wanted, given in matched.pairs.items() if wanted.name == name)


def _missing(matched: Matched) -> str:
    wanted, left = (
        [f"{name} {list(network.parameters[name].shape)}" for name in names]
        for network, names in ((matched.target, matched.missing), (matched.source, matched.unused))
    )
    texts = [f"{len(wanted)} tensors of the target find nothing ({listed(wanted)})"] if wanted else []
    texts += [f"{len(left)} of the source are left ({listed(left)})"] if left else []
    found = f"the models do not match: {', '.join(texts)}{_folded(matched)}"
    return f"{found}; --print-map shows what could be which, --map FILE says it"


def _folded(matched: Matched) -> str:
    """Whether batch normalization on one side only is what keeps the networks apart."""
    sides = [{p.kind for p in n.parameters.values() if p.fill is None} for n in (matched.source, matched.target)]
    if ("variance" in sides[0]) == ("variance" in sides[1]):
        return ""
    text = "; batch normalization is folded into the layers before it in the "
    if "variance" in sides[1]:
        return (
            f"{text}source: export it with training=TrainingMode.PRESERVE and do_constant_folding=False, or with "
            "optimize=False, or convert with --fold"
        )
    return f"{text}target: convert with --fold, or export the template without folding"


def asked(questions: list[Question], hints: list[str]) -> str:
    """The questions in words, with what to type."""
    texts = []
    for question in questions[:4]:
        size = " x ".join(map(str, question.image[1:])) if question.known else "height x width"
        answer = ",".join(map(str, question.image)) if question.known else f"{question.image[0]},H,W"
        texts.append(
            f"{question.name} takes a flattened image of {question.image[0]} channels, {size}: "
            f"--flatten {question.name}={answer} if each side flattens it as its framework does, "
            f"--flatten {question.name}=no if both store it in the same order"
        )
    more = f" ({len(questions) - 4} more)" if len(questions) > 4 else ""
    return "; ".join((*texts, *hints)) + more


def _doubtful(matched: Matched, reason: str) -> str:
    names = matched.doubtful
    count = f"{len(names)} tensors are" if len(names) > 1 else "1 tensor is"
    return (
        f"{count} told apart by order alone ({listed(names)}), and no run can confirm it: {reason}; --map FILE "
        "says which is which (--print-map prints a draft), --no-check takes the order as it is"
    )
