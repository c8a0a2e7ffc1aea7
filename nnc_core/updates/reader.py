"""From updates back to the model: checked against the state first, applied as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from numpy.typing import NDArray

from nnc_core.coder.pool import Job, in_order
from nnc_core.errors import IntegrityError, ModelError, WrongBaseError
from nnc_core.file import NnrFile
from nnc_core.lazy import LazyMapping
from nnc_core.syntax.context import InputParameters
from nnc_core.updates.chain import Chain, Link
from nnc_core.updates.digest import Fingerprint, model_digest
from nnc_core.updates.manifest import Manifest
from nnc_core.updates.update import UNKNOWN, Step, Tensor, Update, manifest_of, values_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["PatchedModel", "known_dimensions", "manifest_of"]

Tensors = Mapping[str, NDArray[Any]]


def known_dimensions(chain: Chain) -> dict[str, InputParameters]:
    """What the units of an update need not say: the shapes of the base's tensors."""
    return {name: InputParameters(link.fingerprint.shape or (1,)) for name, link in chain.links.items()}


class PatchedModel(LazyMapping[NDArray[Any]]):
    """A model as it is after updates; each changed tensor is decoded when it is asked for, and checked.

    ``base`` is the model that ``chain`` left. Updates are added in their order, see `add`; nothing is decoded then. A
    tensor goes through all of them at once, so that only tensors in work take memory. A tensor that comes out wrong is
    an `IntegrityError`, and so is the model when its last tensor has been asked for. `chain_after` is the state for the
    next update; where it is not to be asked for, need not ``remember`` anything.
    """

    def __init__(self, chain: Chain, base: Tensors, *, remember: bool = True) -> None:
        self.chain = chain
        self._base = base
        self._remember = remember
        self._position = chain.position
        self._stages: list[Update] = []
        self._numbers = {name: number for number, name in enumerate(chain.links)}
        self._together: dict[str, frozenset[str]] = {}
        self._waiting: list[dict[str, Tensor]] = []
        self._prints: list[dict[str, Fingerprint]] = []
        self._last: dict[str, Tensor] = {}

    def add(self, file: NnrFile, *, unverified: bool = False) -> None:
        """Add an update, for which the file stays open; `UpdateError` for one that does not come next.

        `ModelError` for other bitstreams, unless ``unverified`` admits them, and for tensors that the model lacks.
        """
        manifest = manifest_of(file)
        if manifest is None and not unverified:
            message = "is not an update of this suite: it does not say which model it applies to"
            raise ModelError(f"{message}; unverified=True applies it nevertheless")
        update = Update(file, manifest, manifest is not None and self._position.check(manifest))
        for name in update.groups:
            if not (name in self._base and name in self.chain.links) and not self.chain.starts_from_nothing:
                raise ModelError("the update has a tensor that the model does not have", tensor=name)
        self._position = self._position.after(manifest)
        self._stages.append(update)
        self._waiting.append({})
        self._prints.append({})
        for name in (self.chain.predictions or {}) if update.residual else ():
            self._together.setdefault(name, frozenset([name]))
        for group in update.groups.values():
            names = frozenset(group.names).union(*(self._together.get(name, ()) for name in group.names))
            self._together.update(dict.fromkeys(names, names))

    @property
    def manifests(self) -> list[Manifest | None]:
        """What the updates say about themselves."""
        return [update.manifest for update in self._stages]

    @property
    def changed(self) -> Collection[str]:
        """The tensors that change."""
        return self._together.keys()

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._together:
            return self._base[name]
        return self._noted(name, self._after(name, len(self._stages), self._bases([name])))

    def _names(self) -> Collection[str]:
        return dict.fromkeys([*self._base, *self._together])

    def __contains__(self, name: object) -> bool:
        return name in self._base or name in self._together

    def items_changed(
        self, threads: int | None = None, executor: Executor | None = None
    ) -> Iterator[tuple[str, NDArray[Any]]]:
        """Decode all tensors that change, several at a time."""
        for tensors in in_order(self._jobs(), threads, executor, running=4):
            for name, tensor in tensors.items():
                yield name, self._noted(name, tensor)

    @contextmanager
    def decoding_ahead(self, threads: int | None = None) -> Iterator[Tensors]:
        """The model as a mapping that decodes further tensors while the caller works on one, in model order."""
        names = [name for name in self if name in self._together]
        found = in_order((self._job(name) for name in names), threads, running=4)
        with closing(cast("Generator[dict[str, Tensor], None, None]", found)) as results:
            yield _Ahead(self, (tensor for tensors in results for tensor in tensors.items()), self._noted)

    def _job(self, name: str) -> Job[dict[str, Tensor]]:
        bases = self._bases([name])
        return Job(partial(self._all_after, [name], bases), sum(base.nbytes for base in bases.values()))

    def _jobs(self) -> Iterator[Job[dict[str, Tensor]]]:
        for names in dict.fromkeys(self._together.values()):
            bases = self._bases(names)
            yield Job(partial(self._all_after, sorted(names), bases), sum(base.nbytes for base in bases.values()))

    def _all_after(self, names: Iterable[str], bases: Tensors) -> dict[str, Tensor]:
        return {name: self._after(name, len(self._stages), bases) for name in names}

    def _bases(self, names: Iterable[str]) -> Tensors:
        wanted = {each for name in names for each in self._together[name]}
        return {name: self._base[name] for name in wanted if name in self._base}

    def _after(self, name: str, count: int, bases: Tensors) -> Tensor:
        """A tensor after the first ``count`` updates; what was decoded with it waits until it is asked for."""
        if not count:
            link = self.chain.links.get(name) or Link.first(UNKNOWN)
            return Tensor(bases.get(name), link, (self.chain.predictions or {}).get(name))
        waiting, update = self._waiting[count - 1], self._stages[count - 1]
        if name not in waiting:
            names = update.groups[name].names if name in update.groups else (name,)
            before = {n: update.before(self._numbers.get(n), self._after(n, count - 1, bases)) for n in names}
            steps = update.apply(name, before)
            waiting.update({n: self._stepped(n, count, before[n], steps.get(n)) for n in names})
        return waiting.pop(name)

    def _stepped(self, name: str, count: int, before: Tensor, step: Step | None) -> Tensor:
        if step is None:
            return before._replace(prediction=None)
        self._prints[count - 1][name] = step.left.fingerprint
        if count == len(self._stages) and not self._remember:
            return Tensor(step.new, Link.first(step.left.fingerprint))
        return Tensor(step.new, before.link.after(step.left, self._stages[count - 1].residual), step.change)

    def _noted(self, name: str, tensor: Tensor) -> NDArray[Any]:
        """The values of a tensor that is done; what is known of it is kept. The last one shows whether all is well."""
        first = name not in self._last
        self._last[name] = tensor._replace(array=None)
        if first and len(self._last) == len(self._together):
            self._verify()
        return values_of(tensor)

    def _verify(self) -> None:
        prints = self.chain.prints
        digest = model_digest(prints)
        for update, changed in zip(self._stages, self._prints, strict=True):
            before = digest
            prints.update(changed)
            digest = model_digest(prints)
            if update.manifest is not None and update.manifest.base != before:
                message = "the model before the update is not the one that it is for"
                raise WrongBaseError(message, have=before, need=update.manifest.base)
            if update.manifest is not None and update.manifest.result != digest:
                raise IntegrityError("the model after the update is not the one that its sender has")

    def chain_after(self) -> Chain:
        """The state after the last update; decodes the tensors that nobody has asked for.

        `IntegrityError` where the model is not the one that the update's sender has.
        """
        for name in self._together.keys() - self._last.keys():
            self[name]
        if not self._together:
            self._verify()
        chain, device = self.chain, self.chain.device_id
        for update in self._stages:
            if update.restart and update.manifest is not None:
                chain, device = chain.restarted(device), update.manifest.device_id
        links = {**chain.restarted(device).links} if chain is not self.chain else {**chain.links}
        links |= {name: tensor.link for name, tensor in self._last.items()}
        last = self._stages[-1] if self._stages else None
        predictions = {n: t.prediction for n, t in self._last.items() if t.prediction is not None}
        after = Chain(
            self._position.base,
            links,
            self._position.sequence,
            device,
            rms=self.chain.rms if chain is self.chain else 0.0,
            predictions=self.chain.predictions if last is None else predictions if last.predicts else None,
        )
        folded = last is not None and last.manifest is not None and last.manifest.folded
        return after.restarted() if folded else after


class _Ahead(LazyMapping[NDArray[Any]]):
    """A patched model whose changed tensors come from ``results`` while they are asked for in that order."""

    def __init__(
        self,
        model: PatchedModel,
        results: Iterator[tuple[str, Tensor]],
        noted: Callable[[str, Tensor], NDArray[Any]],
    ) -> None:
        self._model = model
        self._results = results
        self._noted = noted
        self._next: tuple[str, Tensor] | None = None

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._model.changed:
            return self._model[name]
        found = self._next or next(self._results, None)
        if found is None or found[0] != name:
            self._next = found
            return self._model[name]
        self._next = None
        return self._noted(*found)

    def _names(self) -> Collection[str]:
        return self._model
