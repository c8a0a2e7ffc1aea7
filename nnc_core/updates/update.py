"""One update at its place in a chain: what its units say, and what becomes of a tensor (clauses 9.1.6 and 10)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.bitstream.data_units import DataUnit
from nnc_core.coder.decoder import decode_unit
from nnc_core.coder.history import History
from nnc_core.errors import BitstreamError, IntegrityError, ModelError
from nnc_core.file import NnrFile
from nnc_core.tables.code_points import TopologyStorageFormat
from nnc_core.updates.chain import Left, Link
from nnc_core.updates.differences import Literal
from nnc_core.updates.digest import Fingerprint, fingerprint
from nnc_core.updates.exact import after_parts, with_difference
from nnc_core.updates.lossy import predicted, reconstruction, with_values
from nnc_core.updates.manifest import BASE_MODEL_ID, BEGINNING, CHECK_BYTES, Manifest
from nnc_core.updates.naming import HALVES, Order, UnitName, read_name, tensor_name

__all__ = ["UNKNOWN", "Step", "Tensor", "Update", "manifest_of", "values_of"]

UNKNOWN: Final = Fingerprint("", (), b"")
"""That of a tensor which is not there yet."""


def manifest_of(file: NnrFile) -> Manifest | None:
    """What a bitstream says about itself as an update; None where it says nothing."""
    topology, mps = file.topology, file.bitstream.mps
    if topology is None or topology.storage_format != TopologyStorageFormat.NNR_TPL_UNREC or mps is None:
        return None
    if not topology.data.startswith(BEGINNING):
        return None
    base = (mps.base_model_id or "").removeprefix(BASE_MODEL_ID)
    return Manifest.from_bytes(topology.data, base, list(unit_tensors(file)))


def unit_tensors(file: NnrFile) -> dict[str, tuple[DataUnit, ...]]:
    """The units of each tensor that has some, in bitstream order."""
    found: dict[str, tuple[DataUnit, ...]] = {}
    for unit in file.bitstream.data_units:
        for name in map(tensor_name, unit.names):
            found[name] = (*found.get(name, ()), unit)
    return found


class Group(NamedTuple):
    """Tensors that are decoded together, and their units: none where a tensor only follows its prediction."""

    names: tuple[str, ...]
    units: tuple[DataUnit, ...] = ()


class Tensor(NamedTuple):
    """A tensor between two updates: its values if it is there, what is known of it, and the last update of it."""

    array: NDArray[Any] | None
    link: Link
    prediction: NDArray[np.float32] | None = None


class Step(NamedTuple):
    """What an update makes of a tensor: its new values, what is left for the next, and what was added if not exact."""

    new: NDArray[Any]
    left: Left
    change: NDArray[np.float32] | None = None


class Update:
    """One update at its place in the chain, which was checked; it has no state."""

    def __init__(self, file: NnrFile, manifest: Manifest | None, restart: bool) -> None:
        mps = file.bitstream.mps
        self.manifest = manifest
        self.restart = restart
        self.residual = mps is not None and mps.nnr_pre_flag
        self.groups: dict[str, Group] = {}
        for name, units in unit_tensors(file).items():
            several = [unit.names for unit in units if len(unit.names) > 1]
            self.groups[name] = Group(several[0] if several else (name,), units)

    @property
    def predicts(self) -> bool:
        """Whether an update may follow that is predicted by this one; without a manifest nobody knows."""
        return self.manifest is None or self.manifest.predicts

    def before(self, number: int | None, tensor: Tensor) -> Tensor:
        """A tensor, the ``number``-th of the model, as this update takes it: a restart knows nothing of it."""
        if not self.restart or self.manifest is None:
            return tensor
        return Tensor(tensor.array, Link.first(tensor.link.fingerprint, self.manifest.device_id, number))

    def apply(self, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Step]:
        """What the update makes of ``name``, and of what is decoded with it; nothing where nothing changes."""
        group = self.groups.get(name)
        if group is None:
            if not self.residual or tensors[name].prediction is None:
                return {}
            group = Group((name,))
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

    def _added(self, group: Group, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Step]]:
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
            base = values_of(tensors[name])
            yield name, self._sum(base, tensors[name], np.zeros(base.shape, np.float32), None)

    def _check_form(self, name: str, change: NDArray[Any], base: NDArray[Any]) -> None:
        if change.shape not in (base.shape, base.shape or (1,)):
            raise ModelError(f"the update has shape {change.shape}, the model {base.shape}", tensor=name)
        integers = base.dtype == change.dtype and base.dtype.kind == "i" and self.manifest is None
        if not integers and (base.dtype.kind in "iub" or change.dtype.kind != "f"):
            raise ModelError(f"the update has {change.dtype}, the model {base.dtype}", tensor=name)

    def _sum(self, base: NDArray[Any], tensor: Tensor, change: NDArray[Any], history: History | None) -> Step:
        """A tensor with something added; ``history`` is what its unit left, None where it has none."""
        change = change.reshape(base.shape)
        if base.dtype.kind == "i":
            with np.errstate(over="ignore"):
                new = base + change
            return Step(new, Left(fingerprint(new), history))
        update = predicted(change.astype(np.float32, copy=False), tensor.prediction if self.residual else None)
        new, values = with_values(base, reconstruction(base, tensor.link), update)
        is_update = history is None or history.base is not None  # and not part of a base model
        left = Left(fingerprint(new), history, tensor.link.exponents, values)
        return Step(new, left, update if is_update and self.predicts else None)

    def _exact(self, name: str, marked: list[UnitName], units: tuple[DataUnit, ...], tensor: Tensor) -> Step:
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
        return Step(new, Left(fingerprint(new), after_parts(before, histories, count), exponents))

    def _check_exact(self, name: str, marked: list[UnitName], base: NDArray[Any]) -> Order:
        halves = [each.half for each in marked]
        if halves not in ([None], ["high"], ["low"], list(HALVES)) or len({each[:3] for each in marked}) > 1:
            raise ModelError("the update has units that do not fit together", tensor=name)
        if marked[0].dtype != base.dtype.name or (halves != [None]) != (base.dtype.itemsize == 8):
            raise ModelError(f"the update is for {marked[0].dtype}, the model has {base.dtype}", tensor=name)
        return marked[0].order


def values_of(tensor: Tensor) -> NDArray[Any]:
    """The values of a tensor that must be there; `ModelError` where it is not."""
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
