"""Several exact updates as one: differences of bit patterns add up, whatever lies between."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.approximation import Approximation
from nnc_core.bitstream import BitstreamWriter
from nnc_core.coder.decoder import decode_unit
from nnc_core.coder.encoder import CodedUnit
from nnc_core.coder.history import History
from nnc_core.errors import MissingLinkError, ModelError, UnsupportedError, WrongBaseError
from nnc_core.file import NnrFile
from nnc_core.limits import Limits
from nnc_core.syntax.driver import Buffer
from nnc_core.updates.coding import CODING, coded_update
from nnc_core.updates.differences import parts_of
from nnc_core.updates.manifest import Manifest
from nnc_core.updates.naming import HALVES, UnitName, read_name, tensor_name, unit_names
from nnc_core.updates.reader import manifest_of
from nnc_core.updates.writer import update_parameters

__all__ = ["fold"]

_LEAST = -(1 << 31)


@dataclass(slots=True)
class _Sum:
    """What all updates so far add to the bit patterns of a unit; its history is what the next one needs."""

    levels: NDArray[np.int64]
    history: History


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
    units = list(_units(sums, first.device_id))
    tensors = dict.fromkeys(tensor_name(unit.header.topology_elem_id or "") for unit in units)
    manifest = replace(first, result=last.result, checks={name: checks[name] for name in tensors}, folded=last.sequence)
    stream = io.BytesIO()
    writer = BitstreamWriter(stream, update_parameters(first.base, CODING.qp_density), limits=limits)
    writer.remark(manifest.to_bytes())
    for unit in units:
        writer.data_unit(unit.header, unit.payload.data)
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
        history = History(device_id, unit.header.parameter_id) if known is None else known.history
        if unit.header.put_node_depth is not None:  # that of the tensor, of which a part may have had no unit
            history = replace(history, depth=unit.header.put_node_depth - 1)
        decoded = decode_unit(unit, {name: history})
        levels, left = decoded.tensors[name], decoded.histories[name]
        before = np.zeros(levels.shape, np.int64) if known is None else known.levels
        if levels.shape != before.shape or levels.dtype != np.int32:
            raise ModelError(f"has {levels.dtype} {levels.shape} after int32 {before.shape}", tensor=name)
        sums[name] = _Sum(before + levels, left)


def _units(sums: dict[str, _Sum], device_id: int) -> Iterator[CodedUnit]:
    for first in dict.fromkeys(_unit_name(name)._replace(half=None) for name in sums):
        tensor, dtype, order, _ = first
        names = [n for parts in (1, len(HALVES)) for n in unit_names(tensor, dtype, order, parts)]
        found = {name: sums[name] for name in names if name in sums}
        parameter_id = next(iter(found.values())).history.parameter_id
        for name, levels in _totals(names, found).items():
            if (levels == _LEAST).any():
                raise UnsupportedError("literals", f"the sum of the updates of {name!r} needs literal elements")
            coded = coded_update(name, Approximation(levels), History(device_id, parameter_id), CODING)
            if coded is not None:
                yield coded.unit


def _totals(names: Sequence[str], found: dict[str, _Sum]) -> dict[str, NDArray[np.int32]]:
    """What the units of one tensor add in all, modulo 2**32 each; the halves of 64-bit differences carry over."""
    whole, *halves = names
    if whole in found:
        return {whole: found[whole].levels.astype(np.int32)}
    none = np.zeros_like(next(iter(found.values())).levels)
    high, low = (found[name].levels if name in found else none for name in halves)
    with np.errstate(over="ignore"):
        return dict(zip(halves, parts_of((high << 32) + low), strict=True))
