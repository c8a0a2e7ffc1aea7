"""From an update back to the model: checked against the state first, applied as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.bitstream.data_units import DataUnit
from nnc_core.coder.decoder import decode_unit
from nnc_core.coder.history import History
from nnc_core.coder.pool import Job, in_order
from nnc_core.errors import BitstreamError, IntegrityError, ModelError
from nnc_core.file import NnrFile
from nnc_core.lazy import LazyMapping
from nnc_core.syntax.context import InputParameters
from nnc_core.tables.code_points import TopologyStorageFormat
from nnc_core.updates.chain import Chain, Link
from nnc_core.updates.differences import Literal
from nnc_core.updates.digest import Fingerprint, fingerprint
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


class _Changed(NamedTuple):
    """A tensor after the update, its link, and what was added to it if it is not exact."""

    new: NDArray[Any]
    link: Link
    change: NDArray[np.float32] | None = None


class _Group(NamedTuple):
    """Tensors that are decoded together, and their units: none where a tensor only follows its prediction."""

    names: tuple[str, ...]
    units: tuple[DataUnit, ...] = ()


class PatchedModel(LazyMapping[NDArray[Any]]):
    """A model as it is after an update; each changed tensor is decoded when it is asked for, and checked.

    ``base`` is the model that ``chain`` left. Construction raises an `UpdateError` for an update that does not come
    next; a tensor that comes out wrong is an `IntegrityError`. `chain_after` is the state for the next update.
    """

    def __init__(self, file: NnrFile, chain: Chain, base: Tensors, *, unverified: bool = False) -> None:
        manifest = manifest_of(file)
        if manifest is None and not unverified:
            message = "is not an update of this suite: it does not say which model it applies to"
            raise ModelError(f"{message}; apply it with 'unverified' if you know")
        self.manifest = manifest
        self.chain = chain if manifest is None else chain.follows(manifest)
        mps = file.bitstream.mps
        self.residual = mps is not None and mps.nnr_pre_flag
        self._file = file
        self._base = base
        self._links: dict[str, Link] = {}
        self._changes: dict[str, NDArray[np.float32]] = {}
        self._check_tensors()

    def _check_tensors(self) -> None:
        for name in self.changed:
            if not (name in self._base and name in self.chain.links) and not self.chain.starts_from_nothing:
                raise ModelError("the update has a tensor that the model does not have", tensor=name)

    @cached_property
    def changed(self) -> Mapping[str, _Group]:
        """The tensors that change, each with those that are decoded with it, in bitstream order."""
        found = {}
        for name, units in _unit_tensors(self._file).items():
            several = [unit.names for unit in units if len(unit.names) > 1]
            found[name] = _Group(several[0] if several else (name,), units)
        for name in (self.chain.predictions or {}) if self.residual else ():
            found.setdefault(name, _Group((name,)))
        return found

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self.changed:
            return self._base[name]
        group = self.changed[name]
        return self._noted(self._decoded(group, self._bases(group)))[name].new

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys([*self._base, *self.changed]))

    def __len__(self) -> int:
        return len(self._base.keys() | self.changed.keys())

    def __contains__(self, name: object) -> bool:
        return name in self._base or name in self.changed

    def items_changed(
        self, threads: int | None = None, executor: Executor | None = None
    ) -> Iterator[tuple[str, NDArray[Any]]]:
        """Decode all tensors that change, several at a time."""
        for decoded in in_order(self._jobs(), threads, executor, running=4):
            for name, changed in self._noted(decoded).items():
                yield name, changed.new

    def chain_after(self) -> Chain:
        """The state after the update; decodes the tensors that nobody has asked for.

        `IntegrityError` where the model is not the one that the update's sender has.
        """
        for name in self.changed.keys() - self._links.keys():
            self[name]
        links = {name: self._links[name] for name in self.changed}
        after = self.chain.after(links, predictions=self._changes if self._predicts else None)
        if self.manifest is not None and self.manifest.folded:
            after = after.restarted()  # what its last update left for the next is not known
        if self.manifest is not None and after.digest != self.manifest.result:
            raise IntegrityError("the model after the update is not the one that its sender has")
        return after

    @property
    def _predicts(self) -> bool:
        """Whether an update may follow that is predicted by this one; without a manifest nobody knows."""
        return self.manifest is None or self.manifest.predicts

    def _bases(self, group: _Group) -> dict[str, NDArray[Any]]:
        return {name: self._base[name] for name in group.names if name in self._base}

    def _jobs(self) -> Iterator[Job[dict[str, _Changed]]]:
        for group in {group.names: group for group in self.changed.values()}.values():
            bases = self._bases(group)
            yield Job(partial(self._decoded, group, bases), sum(base.nbytes for base in bases.values()))

    def _noted(self, decoded: dict[str, _Changed]) -> dict[str, _Changed]:
        for name, changed in decoded.items():
            self._links[name] = changed.link
            if self._predicts and changed.change is not None:
                self._changes[name] = changed.change
        return decoded

    def _decoded(self, group: _Group, bases: Tensors) -> dict[str, _Changed]:
        marked = [read_name(unit.names[0]) for unit in group.units]
        if marked and marked[0] is not None:
            (name,) = group.names
            found = {name: self._exact(name, [m for m in marked if m is not None], group.units, bases)}
        else:
            found = dict(self._added(group, bases))
        for name, changed in found.items():
            self._check(name, changed.link)
        return found

    def _check(self, name: str, link: Link) -> None:
        expected = self.manifest.checks.get(name) if self.manifest is not None else None
        if expected is not None and link.fingerprint.digest[:CHECK_BYTES] != expected:
            raise IntegrityError("does not have the values that the update's sender has", tensor=name)

    def _added(self, group: _Group, bases: Tensors) -> Iterator[tuple[str, _Changed]]:
        """Tensors to which something is added: what their unit says, what is predicted, or both."""
        if len(group.units) > 1:
            raise ModelError("the update has units that do not fit together", tensor=group.names[0])
        before = {name: self._link(name).history(self.residual) for name in group.names}
        for unit in group.units:
            decoded = decode_unit(unit, before)
            for name, change in decoded.tensors.items():
                base = bases[name] if name in bases else np.zeros(change.shape, change.dtype)
                self._check_form(name, change, base)
                yield name, self._sum(name, base, change.reshape(base.shape), decoded.histories.get(name, before[name]))
        if not group.units:
            (name,) = group.names
            yield name, self._sum(name, bases[name], np.zeros(bases[name].shape, np.float32), None)

    def _link(self, name: str) -> Link:
        """What is known of a tensor: nothing where the chain starts from nothing."""
        return self.chain.links.get(name) or Link.first(_UNKNOWN)

    def _check_form(self, name: str, change: NDArray[Any], base: NDArray[Any]) -> None:
        if change.shape not in (base.shape, base.shape or (1,)):
            raise ModelError(f"the update has shape {change.shape}, the model {base.shape}", tensor=name)
        integers = base.dtype == change.dtype and base.dtype.kind == "i" and self.manifest is None
        if not integers and (base.dtype.kind in "iub" or change.dtype.kind != "f"):
            raise ModelError(f"the update has {change.dtype}, the model {base.dtype}", tensor=name)

    def _sum(self, name: str, base: NDArray[Any], change: NDArray[Any], history: History | None) -> _Changed:
        """A tensor with something added; ``history`` is what its unit left, None where it has none."""
        link, values, added = self._link(name), None, None
        if base.dtype.kind == "i":
            with np.errstate(over="ignore"):
                new = base + change
        else:
            prediction = (self.chain.predictions or {}).get(name) if self.residual else None
            update = predicted(change.astype(np.float32, copy=False), prediction)
            new, values = with_values(base, reconstruction(base, link), update)
            added = update if history is None or history.base is not None else None  # else it is no update
        if history is None:
            return _Changed(new, replace(link, fingerprint=fingerprint(new), values=values), added)
        return _Changed(new, link.after(fingerprint(new), history, self.residual, values=values), added)

    def _exact(self, name: str, marked: list[UnitName], units: tuple[DataUnit, ...], bases: Tensors) -> _Changed:
        if name not in bases:
            raise ModelError("is a difference, and the model does not have this tensor", tensor=name)
        base, link = bases[name], self._link(name)
        order = self._check_exact(name, marked, base)
        before = link.history(self.residual)
        count = 1 if marked[0].half is None else len(HALVES)
        parts, histories = [np.zeros(base.size, np.int32) for _ in range(count)], []
        for mark, unit in zip(marked, units, strict=True):
            integers, history = _integers(unit, before)
            if integers.size != base.size:
                raise ModelError(f"the update has {integers.size} elements, the model {base.size}", tensor=name)
            parts[0 if mark.half is None else HALVES.index(mark.half)] = integers
            histories.append(history)
        pairs = self.manifest.literals.get(name, ()) if self.manifest is not None else ()
        new, kept = with_difference(base, parts, [Literal(*pair) for pair in pairs], link, order)
        left = after_parts(before, histories, count)
        return _Changed(new, link.after(fingerprint(new), left, self.residual, **kept))

    def _check_exact(self, name: str, marked: list[UnitName], base: NDArray[Any]) -> Order:
        halves = [each.half for each in marked]
        if halves not in ([None], ["high"], ["low"], list(HALVES)) or len({each[:3] for each in marked}) > 1:
            raise ModelError("the update has units that do not fit together", tensor=name)
        if marked[0].dtype != base.dtype.name or (halves != [None]) != (base.dtype.itemsize == 8):
            raise ModelError(f"the update is for {marked[0].dtype}, the model has {base.dtype}", tensor=name)
        return marked[0].order


def _integers(unit: DataUnit, before: History) -> tuple[NDArray[np.int32], History]:
    name = unit.names[0]
    decoded = decode_unit(unit, {name: before})
    integers = decoded.tensors[name]
    if integers.dtype != np.int32:
        raise BitstreamError(f"{integers.dtype} values, expected integers", unit=unit.index, tensor=name)
    return integers, decoded.histories[name]
