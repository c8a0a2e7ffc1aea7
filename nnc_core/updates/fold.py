"""Several updates as one: differences of bit patterns add up, whatever lies between; lossy ones do in the model."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.approximation import Approximation
from nnc_core.bitstream import BitstreamWriter, DataUnit
from nnc_core.coder.decoder import decode_unit
from nnc_core.coder.encoder import CodedUnit
from nnc_core.coder.history import History
from nnc_core.errors import MissingLinkError, ModelError, UnsupportedError, WrongBaseError
from nnc_core.file import NnrFile
from nnc_core.limits import Limits
from nnc_core.records import dataclass
from nnc_core.syntax.driver import Buffer
from nnc_core.updates.chain import Chain
from nnc_core.updates.coding import CODING, coded_update
from nnc_core.updates.differences import parts_of
from nnc_core.updates.manifest import Manifest
from nnc_core.updates.naming import HALVES, UnitName, read_name, unit_names
from nnc_core.updates.reader import PatchedModel, manifest_of
from nnc_core.updates.writer import UpdateOptions, UpdateReport, update_parameters, write_update

__all__ = ["fold", "fold_exact", "fold_onto"]

_LEAST = -(1 << 31)
_NEED_BASE: Final = "are folded with the model that the first one applies to (base) at hand"

Tensors = Mapping[str, NDArray[Any]]


@dataclass(slots=True)
class _Sum:
    """What all updates so far add to the bit patterns of a unit; its history is what the next one needs."""

    levels: NDArray[np.int64]
    history: History


def fold(updates: Sequence[Buffer], base: Tensors | None = None, *, limits: Limits | None = None) -> bytes:
    """Make one exact update of consecutive ones, the first of which begins a chain.

    The model comes out bit for bit as if they were applied one by one. Updates that follow on the last one still need
    the state that it leaves, which the folded one does not: it is for receivers that go on with the next restart.
    Exact updates add up on their own; lossy ones do in the model alone, so that they need the ``base`` of the first.
    Raises `MissingLinkError` or `WrongBaseError` where the updates are not consecutive, `UnsupportedError` for lossy
    ones without a ``base``.
    """
    stream, files = io.BytesIO(), [NnrFile(update, limits) for update in updates]
    if base is None:
        fold_exact(stream, files, limits=limits)
    else:
        fold_onto(stream, base, files, limits=limits)
    return stream.getvalue()


def fold_onto(
    stream: BinaryIO,
    base: Tensors,
    files: Sequence[NnrFile],
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits | None = None,
) -> UpdateReport:
    """Write the exact update that makes of ``base`` what these updates make of it, lossy ones included."""
    chain = Chain.of(base)
    patched = PatchedModel(chain, base, remember=False)
    _check_consecutive([_manifest(file) for file in files])
    for file in files:
        patched.add(file)
    last = patched.manifests[-1]
    options = UpdateOptions(exact=True, only=patched.changed.__contains__, folds=last.sequence if last else 0)
    chain = replace(chain, device_id=last.device_id if last else 0)
    _, report = write_update(
        stream, chain, base, patched, options, threads=threads, progress=progress, limits=limits, remember=False
    )
    return report


def fold_exact(stream: BinaryIO, files: Sequence[NnrFile], *, limits: Limits | None = None) -> Manifest:
    """Write the exact update that does what these exact updates do; return what it says about itself."""
    manifests = [_manifest(file) for file in files]
    _check_consecutive(manifests)
    if any(manifest.literals for manifest in manifests):
        raise UnsupportedError("literals", f"updates with literal elements {_NEED_BASE}")
    first, last = manifests[0], manifests[-1]
    checks = {name: check for manifest in manifests for name, check in manifest.checks.items()}
    units = {name: list(_folded(found, first.device_id)) for name, found in _by_tensor(files).items()}
    changed = {name: checks[name] for name, found in units.items() if found}
    manifest = replace(first, result=last.result, checks=changed, folded=last.sequence)
    writer = BitstreamWriter(stream, update_parameters(first.base, CODING.qp_density), limits=limits)
    writer.remark(manifest.to_bytes())
    for unit in (unit for found in units.values() for unit in found):
        writer.data_unit(unit.header, unit.payload.data)
    return manifest


def _manifest(file: NnrFile) -> Manifest:
    manifest = manifest_of(file)
    if manifest is None:
        raise ModelError("is not an update of this suite")
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
        raise UnsupportedError("lossy updates", f"lossy updates, as that of {name!r}, {_NEED_BASE}")
    return found


def _by_tensor(files: Sequence[NnrFile]) -> dict[str, list[DataUnit]]:
    """The units of each tensor, in the order of the updates."""
    found: dict[str, list[DataUnit]] = {}
    for unit in (unit for file in files for unit in file.bitstream.data_units):
        found.setdefault(_unit_name(unit.names[0]).tensor, []).append(unit)
    return found


def _folded(units: Sequence[DataUnit], device_id: int) -> Iterator[CodedUnit]:
    """The units that do what those of one tensor do, one after another."""
    sums: dict[str, _Sum] = {}
    for unit in units:
        _add(sums, unit, device_id)
    kinds = {_unit_name(name)._replace(half=None) for name in sums}
    if len(kinds) > 1:
        raise UnsupportedError("several orders", f"updates of one tensor in several orders {_NEED_BASE}")
    tensor, dtype, order, _ = kinds.pop()
    names = [*unit_names(tensor, dtype, order, 1), *unit_names(tensor, dtype, order, len(HALVES))]
    history = History(device_id, next(iter(sums.values())).history.parameter_id)
    for name, levels in _totals(names, sums).items():
        if (levels == _LEAST).any():
            raise UnsupportedError("literals", f"updates that add up to the least integer, {name!r}, {_NEED_BASE}")
        coded = coded_update(name, Approximation(levels), history, CODING)
        if coded is not None:
            yield coded.unit


def _add(sums: dict[str, _Sum], unit: DataUnit, device_id: int) -> None:
    name = unit.names[0]
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


def _totals(names: Sequence[str], found: dict[str, _Sum]) -> dict[str, NDArray[np.int32]]:
    """What the units of one tensor add in all, modulo 2**32 each; the halves of 64-bit differences carry over."""
    whole, *halves = names
    if whole in found:
        return {whole: found[whole].levels.astype(np.int32)}
    none = np.zeros_like(next(iter(found.values())).levels)
    high, low = (found[name].levels if name in found else none for name in halves)
    with np.errstate(over="ignore"):
        return dict(zip(halves, parts_of((high << 32) + low), strict=True))
