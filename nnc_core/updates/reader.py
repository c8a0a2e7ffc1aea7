"""From an update back to the model: checked against the state first, applied as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from nnc_core.bitstream.data_units import DataUnit
from nnc_core.coder.decoder import decode_unit
from nnc_core.coder.history import History
from nnc_core.coder.pool import Job, in_order
from nnc_core.errors import BitstreamError, IntegrityError, ModelError, WrongBaseError
from nnc_core.file import NnrFile
from nnc_core.lazy import LazyMapping
from nnc_core.syntax.context import InputParameters
from nnc_core.tables.code_points import TopologyStorageFormat
from nnc_core.updates.chain import Chain, Left, Link
from nnc_core.updates.differences import Literal
from nnc_core.updates.digest import Fingerprint, fingerprint, model_digest
from nnc_core.updates.exact import after_parts, with_difference
from nnc_core.updates.lossy import predicted, reconstruction, with_values
from nnc_core.updates.manifest import BASE_MODEL_ID, CHECK_BYTES, Manifest
from nnc_core.updates.naming import HALVES, Order, UnitName, read_name, tensor_name

__all__ = ["PatchedModel", "known_dimensions", "manifest_of"]

_UNKNOWN: Final = Fingerprint("", (), b"")

Tensors = Mapping[str, NDArray[Any]]


def manifest_of(file: NnrFile) -> Manifest | None:
    """What a bitstream says about itself as an update; None where it says nothing."""
    topology, mps = file.topology, file.bitstream.mps
    if topology is None or topology.storage_format != TopologyStorageFormat.NNR_TPL_UNREC or mps is None:
        return None
    if not topology.data.startswith(b'{"nnc_update"'):
        return None
    base = (mps.base_model_id or "").removeprefix(BASE_MODEL_ID)
    return Manifest.from_bytes(topology.data, base, list(_unit_tensors(file)))


def known_dimensions(chain: Chain) -> dict[str, InputParameters]:
    """What the units of an update need not say: the shapes of the base's tensors."""
    return {name: InputParameters(link.fingerprint.shape or (1,)) for name, link in chain.links.items()}


def _unit_tensors(file: NnrFile) -> dict[str, tuple[DataUnit, ...]]:
    """The units of each tensor that has some, in bitstream order."""
    found: dict[str, tuple[DataUnit, ...]] = {}
    for unit in file.bitstream.data_units:
        for name in map(tensor_name, unit.names):
            found[name] = (*found.get(name, ()), unit)
    return found


class _Group(NamedTuple):
    """Tensors that are decoded together, and their units: none where a tensor only follows its prediction."""

    names: tuple[str, ...]
    units: tuple[DataUnit, ...] = ()


class _Tensor(NamedTuple):
    """A tensor between two updates: its values if it is there, what is known of it, and the last update of it."""

    array: NDArray[Any] | None
    link: Link
    prediction: NDArray[np.float32] | None = None


class _Step(NamedTuple):
    """What an update makes of a tensor: its new values, what is left for the next, and what was added if not exact."""

    new: NDArray[Any]
    left: Left
    change: NDArray[np.float32] | None = None


class _Update:
    """One update at its place in the chain, which was checked; it has no state."""

    def __init__(self, file: NnrFile, manifest: Manifest | None, restart: bool) -> None:
        mps = file.bitstream.mps
        self.manifest = manifest
        self.restart = restart
        self.residual = mps is not None and mps.nnr_pre_flag
        self.groups: dict[str, _Group] = {}
        for name, units in _unit_tensors(file).items():
            several = [unit.names for unit in units if len(unit.names) > 1]
            self.groups[name] = _Group(several[0] if several else (name,), units)

    @property
    def predicts(self) -> bool:
        """Whether an update may follow that is predicted by this one; without a manifest nobody knows."""
        return self.manifest is None or self.manifest.predicts

    def before(self, number: int | None, tensor: _Tensor) -> _Tensor:
        """A tensor, the ``number``-th of the model, as this update takes it: a restart knows nothing of it."""
        if not self.restart or self.manifest is None:
            return tensor
        return _Tensor(tensor.array, Link.first(tensor.link.fingerprint, self.manifest.device_id, number))

    def apply(self, name: str, tensors: Mapping[str, _Tensor]) -> dict[str, _Step]:
        """What the update makes of ``name``, and of what is decoded with it; nothing where nothing changes."""
        group = self.groups.get(name)
        if group is None:
            if not self.residual or tensors[name].prediction is None:
                return {}
            group = _Group((name,))
        marked = [read_name(unit.names[0]) for unit in group.units]
        if marked and marked[0] is not None:
            found = {name: self._exact(name, [m for m in marked if m is not None], group.units, tensors[name])}
        else:
            found = dict(self._added(group, tensors))
        for each, step in found.items():
            self._check(each, step.left.fingerprint)
        return found

    def _check(self, name: str, found: Fingerprint) -> None:
        expected = self.manifest.checks.get(name) if self.manifest is not None else None
        if expected is not None and found.digest[:CHECK_BYTES] != expected:
            raise IntegrityError("does not have the values that the update's sender has", tensor=name)

    def _added(self, group: _Group, tensors: Mapping[str, _Tensor]) -> Iterator[tuple[str, _Step]]:
        """Tensors to which something is added: what their unit says, what is predicted, or both."""
        if len(group.units) > 1:
            raise ModelError("the update has units that do not fit together", tensor=group.names[0])
        before = {name: tensors[name].link.history(self.residual) for name in group.names}
        for unit in group.units:
            decoded = decode_unit(unit, before)
            for name, change in decoded.tensors.items():
                base = tensors[name].array
                if base is None:
                    base = np.zeros(change.shape, change.dtype)
                self._check_form(name, change, base)
                yield name, self._sum(base, tensors[name], change, decoded.histories.get(name, before[name]))
        for name in () if group.units else group.names:
            base = _array(tensors[name])
            yield name, self._sum(base, tensors[name], np.zeros(base.shape, np.float32), None)

    def _check_form(self, name: str, change: NDArray[Any], base: NDArray[Any]) -> None:
        if change.shape not in (base.shape, base.shape or (1,)):
            raise ModelError(f"the update has shape {change.shape}, the model {base.shape}", tensor=name)
        integers = base.dtype == change.dtype and base.dtype.kind == "i" and self.manifest is None
        if not integers and (base.dtype.kind in "iub" or change.dtype.kind != "f"):
            raise ModelError(f"the update has {change.dtype}, the model {base.dtype}", tensor=name)

    def _sum(self, base: NDArray[Any], tensor: _Tensor, change: NDArray[Any], history: History | None) -> _Step:
        """A tensor with something added; ``history`` is what its unit left, None where it has none."""
        change = change.reshape(base.shape)
        if base.dtype.kind == "i":
            with np.errstate(over="ignore"):
                new = base + change
            return _Step(new, Left(fingerprint(new), history))
        update = predicted(change.astype(np.float32, copy=False), tensor.prediction if self.residual else None)
        new, values = with_values(base, reconstruction(base, tensor.link), update)
        is_update = history is None or history.base is not None  # and not part of a base model
        left = Left(fingerprint(new), history, tensor.link.exponents, values)
        return _Step(new, left, update if is_update and self.predicts else None)

    def _exact(self, name: str, marked: list[UnitName], units: tuple[DataUnit, ...], tensor: _Tensor) -> _Step:
        if tensor.array is None:
            raise ModelError("is a difference, and the model does not have this tensor", tensor=name)
        base, before = tensor.array, tensor.link.history(self.residual)
        order = self._check_exact(name, marked, base)
        count = 1 if marked[0].half is None else len(HALVES)
        parts, histories = [np.zeros(base.size, np.int32) for _ in range(count)], []
        for mark, unit in zip(marked, units, strict=True):
            integers, history = _integers(unit, before)
            if integers.size != base.size:
                raise ModelError(f"the update has {integers.size} elements, the model {base.size}", tensor=name)
            parts[0 if mark.half is None else HALVES.index(mark.half)] = integers
            histories.append(history)
        pairs = self.manifest.literals.get(name, ()) if self.manifest is not None else ()
        new, exponents = with_difference(base, parts, [Literal(*pair) for pair in pairs], tensor.link, order)
        return _Step(new, Left(fingerprint(new), after_parts(before, histories, count), exponents))

    def _check_exact(self, name: str, marked: list[UnitName], base: NDArray[Any]) -> Order:
        halves = [each.half for each in marked]
        if halves not in ([None], ["high"], ["low"], list(HALVES)) or len({each[:3] for each in marked}) > 1:
            raise ModelError("the update has units that do not fit together", tensor=name)
        if marked[0].dtype != base.dtype.name or (halves != [None]) != (base.dtype.itemsize == 8):
            raise ModelError(f"the update is for {marked[0].dtype}, the model has {base.dtype}", tensor=name)
        return marked[0].order


def _array(tensor: _Tensor) -> NDArray[Any]:
    if tensor.array is None:
        raise ModelError("the update has a tensor that the model does not have")
    return tensor.array


def _integers(unit: DataUnit, before: History) -> tuple[NDArray[np.int32], History]:
    name = unit.names[0]
    decoded = decode_unit(unit, {name: before})
    integers = decoded.tensors[name]
    if integers.dtype != np.int32:
        raise BitstreamError(f"{integers.dtype} values, expected integers", unit=unit.index, tensor=name)
    return integers, decoded.histories[name]


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
        self._stages: list[_Update] = []
        self._numbers = {name: number for number, name in enumerate(chain.links)}
        self._together: dict[str, frozenset[str]] = {}
        self._waiting: list[dict[str, _Tensor]] = []
        self._prints: list[dict[str, Fingerprint]] = []
        self._last: dict[str, _Tensor] = {}

    def add(self, file: NnrFile, *, unverified: bool = False) -> None:
        """Add an update, for which the file stays open; `UpdateError` for one that does not come next.

        `ModelError` for other bitstreams, unless ``unverified`` admits them, and for tensors that the model lacks.
        """
        manifest = manifest_of(file)
        if manifest is None and not unverified:
            message = "is not an update of this suite: it does not say which model it applies to"
            raise ModelError(f"{message}; apply it with 'unverified' if you know")
        update = _Update(file, manifest, manifest is not None and self._position.check(manifest))
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

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._base, *self._together]))

    def __len__(self) -> int:
        return len(self._base.keys() | self._together.keys())

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
        with closing(cast("Generator[dict[str, _Tensor], None, None]", found)) as results:
            yield _Ahead(self, (tensor for tensors in results for tensor in tensors.items()), self._noted)

    def _job(self, name: str) -> Job[dict[str, _Tensor]]:
        bases = self._bases([name])
        return Job(partial(self._all_after, [name], bases), sum(base.nbytes for base in bases.values()))

    def _jobs(self) -> Iterator[Job[dict[str, _Tensor]]]:
        for names in dict.fromkeys(self._together.values()):
            bases = self._bases(names)
            yield Job(partial(self._all_after, sorted(names), bases), sum(base.nbytes for base in bases.values()))

    def _all_after(self, names: Iterable[str], bases: Tensors) -> dict[str, _Tensor]:
        return {name: self._after(name, len(self._stages), bases) for name in names}

    def _bases(self, names: Iterable[str]) -> Tensors:
        wanted = {each for name in names for each in self._together[name]}
        return {name: self._base[name] for name in wanted if name in self._base}

    def _after(self, name: str, count: int, bases: Tensors) -> _Tensor:
        """A tensor after the first ``count`` updates; what was decoded with it waits until it is asked for."""
        if not count:
            link = self.chain.links.get(name) or Link.first(_UNKNOWN)
            return _Tensor(bases.get(name), link, (self.chain.predictions or {}).get(name))
        waiting, update = self._waiting[count - 1], self._stages[count - 1]
        if name not in waiting:
            names = update.groups[name].names if name in update.groups else (name,)
            before = {n: update.before(self._numbers.get(n), self._after(n, count - 1, bases)) for n in names}
            steps = update.apply(name, before)
            waiting.update({n: self._stepped(n, count, before[n], steps.get(n)) for n in names})
        return waiting.pop(name)

    def _stepped(self, name: str, count: int, before: _Tensor, step: _Step | None) -> _Tensor:
        if step is None:
            return before._replace(prediction=None)
        self._prints[count - 1][name] = step.left.fingerprint
        if count == len(self._stages) and not self._remember:
            return _Tensor(step.new, Link.first(step.left.fingerprint))
        return _Tensor(step.new, before.link.after(step.left, self._stages[count - 1].residual), step.change)

    def _noted(self, name: str, tensor: _Tensor) -> NDArray[Any]:
        """The values of a tensor that is done; what is known of it is kept. The last one shows whether all is well."""
        first = name not in self._last
        self._last[name] = tensor._replace(array=None)
        if first and len(self._last) == len(self._together):
            self._verify()
        return _array(tensor)

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
        results: Iterator[tuple[str, _Tensor]],
        noted: Callable[[str, _Tensor], NDArray[Any]],
    ) -> None:
        self._model = model
        self._results = results
        self._noted = noted
        self._next: tuple[str, _Tensor] | None = None

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self._model.changed:
            return self._model[name]
        found = self._next or next(self._results, None)
        if found is None or found[0] != name:
            self._next = found
            return self._model[name]
        self._next = None
        return self._noted(*found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._model)

    def __len__(self) -> int:
        return len(self._model)

    def __contains__(self, name: object) -> bool:
        return name in self._model
