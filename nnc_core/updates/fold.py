"""Several exact updates as one: differences of bit patterns add up, whatever lies between."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nnc_core.bitstream import BitstreamWriter
from nnc_core.coder.decoder import decode_unit
from nnc_core.coder.history import History
from nnc_core.errors import MissingLinkError, ModelError, UnsupportedError, WrongBaseError
from nnc_core.file import NnrFile
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.syntax.driver import Buffer
from nnc_core.tables.code_points import TopologyStorageFormat
from nnc_core.updates.coding import CodedUpdate, coded_update
from nnc_core.updates.differences import parts_of
from nnc_core.updates.manifest import Manifest
from nnc_core.updates.naming import HALVES, UnitName, read_name, unit_names
from nnc_core.updates.reader import manifest_of
from nnc_core.updates.writer import update_parameters

__all__ = ["fold"]

_LEAST = -(1 << 31)


@dataclass(slots=True)
class _Sum:
    """What all updates so far add to the bit patterns of a unit; its history is what the next one needs."""

    shape: tuple[int, ...]
    levels: NDArray[np.int64]
    history: History = field(default_factory=History)


def fold(updates: Sequence[Buffer], *, limits: Limits | None = None) -> bytes:
    """Make one exact update of consecutive ones, the first of which begins a chain.

    The model comes out bit for bit as if they were applied one by one. Updates that follow on the last one still need
    the state that it leaves, which the folded one does not: it is for receivers that go on with the next restart.
    Raises `MissingLinkError` or `WrongBaseError` where the updates are not consecutive, `UnsupportedError` for lossy
    ones, which add up in the model alone: apply them to it.
    """
    files = [NnrFile(update, limits) for update in updates]
    manifests = [_manifest(file) for file in files]
    _check_consecutive(manifests)
    sums: dict[str, _Sum] = {}
    for file in files:
        _add(sums, file, manifests[0].device_id)
    first, last = manifests[0], manifests[-1]
    checks = {name: check for manifest in manifests for name, check in manifest.checks.items()}
    tensors = list(dict.fromkeys(_unit_name(name).tensor for name in sums))
    manifest = replace(first, result=last.result, checks={name: checks[name] for name in tensors}, folded=last.sequence)
    stream = io.BytesIO()
    writer = BitstreamWriter(stream, update_parameters(first.base), limits=limits)
    writer.topology(Topology(TopologyStorageFormat.NNR_TPL_UNREC, manifest.to_bytes()))
    for unit in _units(sums, first.device_id):
        writer.data_unit(unit.header, unit.payload)
    return stream.getvalue()


def _manifest(file: NnrFile) -> Manifest:
    manifest = manifest_of(file)
    if manifest is None:
        raise ModelError("is not an update of this suite")
    if manifest.literals:
        raise UnsupportedError("literals", "an update with literal elements cannot be folded: apply it to the model")
    return manifest


def _check_consecutive(manifests: Sequence[Manifest]) -> None:
    if not manifests:
        raise ValueError("there are no updates to fold")
    if not manifests[0].restart:
        need = manifests[0].sequence - 1
        raise MissingLinkError("the first update to fold is not the first of its chain", have=0, need=need)
    for before, after in pairwise(manifests):
        if after.chain != before.chain or after.base != before.result:
            message = f"update {after.sequence} does not follow on update {before.sequence}"
            raise WrongBaseError(message, have=before.result, need=after.base)


def _unit_name(name: str) -> UnitName:
    found = read_name(name)
    if found is None:
        message = f"the update of {name!r} is lossy and cannot be folded: apply it to the model"
        raise UnsupportedError("lossy updates", message)
    return found


def _add(sums: dict[str, _Sum], file: NnrFile, device_id: int) -> None:
    for unit in file.bitstream.data_units:
        name = unit.names[0]
        _unit_name(name)
        known = sums.get(name)
        history = History(device_id=device_id) if known is None else known.history
        decoded = decode_unit(unit, {name: history})
        levels = decoded.tensors[name]
        if known is None:
            known = sums[name] = _Sum(levels.shape, np.zeros(levels.shape, np.int64))
        if levels.shape != known.shape or levels.dtype != np.int32:
            raise ModelError(f"has {levels.dtype} {levels.shape} after int32 {known.shape}", tensor=name)
        known.levels = known.levels + levels
        known.history = decoded.histories[name]


def _units(sums: dict[str, _Sum], device_id: int) -> Iterator[CodedUpdate]:
    for name, total in sums.items():
        levels = _folded(name, sums)
        if (levels == _LEAST).any():
            raise UnsupportedError("literals", f"the sum of the updates of {name!r} needs literal elements")
        history = History(device_id=device_id, parameter_id=total.history.parameter_id)
        yield coded_update(name, total.shape, levels.reshape(total.shape[0], -1), history)


def _folded(name: str, sums: dict[str, _Sum]) -> NDArray[np.int32]:
    """What a unit adds in all, modulo 2**32; of 64-bit differences its half."""
    marked, total = _unit_name(name), sums[name].levels
    if marked.half is None:
        return total.astype(np.int32)
    names = unit_names(marked.tensor, marked.dtype, marked.order, len(HALVES))
    if not all(each in sums for each in names):
        raise ModelError("the update has one half of a tensor", tensor=marked.tensor)
    high, low = (sums[each].levels for each in names)
    with np.errstate(over="ignore"):
        return parts_of((high << 32) + low)[HALVES.index(marked.half)]
