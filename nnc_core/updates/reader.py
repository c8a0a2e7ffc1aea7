"""From an update back to the model: checked against the state first, applied as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.bitstream.data_units import DataUnit
from nnc_core.coder.decoder import decode_unit
from nnc_core.coder.history import History
from nnc_core.coder.pool import Job, in_order
from nnc_core.errors import BitstreamError, IntegrityError, ModelError
from nnc_core.file import NnrFile
from nnc_core.lazy import LazyMapping
from nnc_core.tables.code_points import TopologyStorageFormat
from nnc_core.updates.chain import Chain, Link
from nnc_core.updates.differences import Literal
from nnc_core.updates.digest import fingerprint
from nnc_core.updates.exact import with_difference
from nnc_core.updates.lossy import reconstruction, with_values
from nnc_core.updates.manifest import BASE_MODEL_ID, CHECK_BYTES, Manifest
from nnc_core.updates.naming import Order, UnitName, read_name

__all__ = ["PatchedModel", "manifest_of"]

Tensors = Mapping[str, NDArray[Any]]


def manifest_of(file: NnrFile) -> Manifest | None:
    """What a bitstream says about itself as an update; None where it says nothing."""
    topology, mps = file.topology, file.bitstream.mps
    if topology is None or topology.storage_format != TopologyStorageFormat.NNR_TPL_UNREC or mps is None:
        return None
    if not topology.data.startswith(b'{"nnc_update"'):
        return None
    base = (mps.base_model_id or "").removeprefix(BASE_MODEL_ID)
    return Manifest.from_bytes(topology.data, base, list(changed_tensors(file)))


def changed_tensors(file: NnrFile) -> dict[str, list[DataUnit]]:
    """The units of each tensor that changes, in bitstream order."""
    found: dict[str, list[DataUnit]] = {}
    for unit in file.bitstream.data_units:
        for name in unit.names:
            marked = read_name(name)
            found.setdefault(name if marked is None else marked.tensor, []).append(unit)
    return found


class _Changed(NamedTuple):
    """A tensor after the update, and its link."""

    new: NDArray[Any]
    link: Link


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
        self._file = file
        self._base = base
        self._links: dict[str, Link] = {}
        self._check_tensors()

    def _check_tensors(self) -> None:
        for name in self.changed:
            if name not in self._base or name not in self.chain.links:
                raise ModelError("the update has a tensor that the model does not have", tensor=name)

    @cached_property
    def changed(self) -> Mapping[str, list[DataUnit]]:
        """The units of each tensor that changes, in bitstream order."""
        return changed_tensors(self._file)

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self.changed:
            return self._base[name]
        changed = self._decoded(name, self._base[name])
        self._links[name] = changed.link
        return changed.new

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)

    def __contains__(self, name: object) -> bool:
        return name in self._base

    def items_changed(
        self, threads: int | None = None, executor: Executor | None = None
    ) -> Iterator[tuple[str, NDArray[Any]]]:
        """Decode all tensors that change, several at a time."""
        for name, changed in in_order(self._jobs(), threads, executor, running=4):
            self._links[name] = changed.link
            yield name, changed.new

    def chain_after(self) -> Chain:
        """The state after the update; decodes the tensors that nobody has asked for.

        `IntegrityError` where the model is not the one that the update's sender has.
        """
        for name in self.changed.keys() - self._links.keys():
            self[name]
        after = self.chain.after({name: self._links[name] for name in self.changed})
        if self.manifest is not None and self.manifest.folded:
            after = after.restarted()  # what its last update left for the next is not known
        if self.manifest is not None and after.digest != self.manifest.result:
            raise IntegrityError("the model after the update is not the one that its sender has")
        return after

    def _jobs(self) -> Iterator[Job[tuple[str, _Changed]]]:
        for name in self.changed:
            base = self._base[name]
            yield Job(partial(self._job, name, base), base.nbytes)

    def _job(self, name: str, base: NDArray[Any]) -> tuple[str, _Changed]:
        return name, self._decoded(name, base)

    def _decoded(self, name: str, base: NDArray[Any]) -> _Changed:
        units, link = self.changed[name], self.chain.links[name]
        marked = [read_name(unit.names[0]) for unit in units]
        if marked[0] is None:
            changed = self._lossy(name, units, base, link)
        else:
            changed = self._exact(name, [m for m in marked if m is not None], units, base, link)
        self._check(name, changed.link)
        return changed

    def _check(self, name: str, link: Link) -> None:
        if self.manifest is not None and link.fingerprint.digest[:CHECK_BYTES] != self.manifest.checks[name]:
            raise IntegrityError("does not have the values that the update's sender has", tensor=name)

    def _lossy(self, name: str, units: list[DataUnit], base: NDArray[Any], link: Link) -> _Changed:
        decoded = decode_unit(units[0], {name: link.history(self.chain.device_id)})
        change = decoded.tensors[name]
        if len(units) > 1 or change.shape not in (base.shape, base.shape or (1,)):
            raise ModelError(f"the update has shape {change.shape}, the model {base.shape}", tensor=name)
        if base.dtype.kind in "iub" or change.dtype.kind != "f":
            raise ModelError(f"the update has {change.dtype}, the model {base.dtype}", tensor=name)
        change = change.astype(np.float32, copy=False).reshape(base.shape)
        new, values = with_values(base, reconstruction(base, link), change)
        return _Changed(new, link.after(fingerprint(new), decoded.histories[name], values=values))

    def _exact(
        self, name: str, marked: list[UnitName], units: list[DataUnit], base: NDArray[Any], link: Link
    ) -> _Changed:
        order = self._check_exact(name, marked, base)
        parts, histories = [], []
        for unit in units:
            found = self._integers(unit, link)
            if found[0].size != base.size:
                raise ModelError(f"the update has {found[0].size} elements, the model {base.size}", tensor=name)
            parts.append(found[0])
            histories.append(found[1])
        pairs = self.manifest.literals.get(name, ()) if self.manifest is not None else ()
        new, kept = with_difference(base, parts, [Literal(*pair) for pair in pairs], link, order)
        return _Changed(new, link.after(fingerprint(new), histories[0] if len(parts) == 1 else None, **kept))

    def _check_exact(self, name: str, marked: list[UnitName], base: NDArray[Any]) -> Order:
        halves = [each.half for each in marked]
        if halves not in ([None], ["high", "low"]) or len({each[:3] for each in marked}) > 1:
            raise ModelError("the update has units that do not fit together", tensor=name)
        if marked[0].dtype != base.dtype.name or (len(halves) > 1) != (base.dtype.itemsize == 8):
            raise ModelError(f"the update is for {marked[0].dtype}, the model has {base.dtype}", tensor=name)
        return marked[0].order

    def _integers(self, unit: DataUnit, link: Link) -> tuple[NDArray[np.int32], History]:
        name = unit.names[0]
        history = link.history(self.chain.device_id)
        decoded = decode_unit(unit, {name: history})
        integers = decoded.tensors[name]
        if integers.dtype != np.int32:
            raise BitstreamError(f"{integers.dtype} values, expected integers", unit=unit.index, tensor=name)
        return integers, decoded.histories[name]
