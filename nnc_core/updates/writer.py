"""From two models to an update: a bitstream with what changed, tied to its base (clause 6.3.4.3, and our manifest)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import field, replace
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.bitstream import BitstreamWriter
from nnc_core.coder.encoder import Coding
from nnc_core.coder.pool import Job, in_order
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.records import dataclass
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.tables.code_points import QuantizationMethodFlags
from nnc_core.updates.chain import Chain, Link
from nnc_core.updates.coding import CODING
from nnc_core.updates.digest import fingerprint
from nnc_core.updates.exact import TensorUpdate, exact_update
from nnc_core.updates.lossy import Change, LossyOptions, change_of, lossy_update, weights_rms
from nnc_core.updates.manifest import BASE_MODEL_ID, CHECK_BYTES, Kind, Manifest
from nnc_core.updates.naming import Order, tensor_name

if TYPE_CHECKING:
    from concurrent.futures import Executor

__all__ = ["UpdateOptions", "UpdateReport", "update_parameters", "write_update"]

_IN_MEMORY: Final = 64 << 20
_HEADER: Final = 24

Tensors = Mapping[str, NDArray[Any]]


Predict = Literal["never", "cheaper", "always"]


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """How an update is coded: ``exact``, or as ``lossy`` says.

    In a lossy update the tensors that ``keeps`` accepts are exact, too, as are integers and what is not finite.
    ``order`` is that of exact differences: by the exponents of the chain's base (best together with the contexts of
    the updates before), of the model before, or as the elements lie. Only tensors that ``only`` accepts are looked at.
    ``coding`` has the tools of the arithmetic coder. ``predict`` is for lossy updates that resemble the one before:
    what is sent is the residual, ``always`` or where the whole update is ``cheaper`` like that; it is the same for all
    updates of a chain. ``folds`` is the last of several updates that this one stands for. Without a ``manifest`` an
    update has nothing but what the standard defines, and its receiver cannot check where it belongs.
    """

    exact: bool = False
    lossy: LossyOptions = field(default_factory=LossyOptions)
    order: Order = "base"
    keeps: Callable[[str], bool] = lambda _name: False
    only: Callable[[str], bool] = lambda _name: True
    coding: Coding = CODING
    predict: Predict = "never"
    manifest: bool = True
    folds: int = 0

    def __post_init__(self) -> None:
        if self.exact and self.predict != "never":
            raise ValueError("exact updates are not predicted")

    @property
    def kind(self) -> Kind:
        """What the manifest calls it."""
        return "exact" if self.exact else "lossy"

    def kinds(self, chain: Chain) -> tuple[bool, ...]:
        """What is tried as the next update of a chain: a plain one (False), residuals (True), or both."""
        if self.predict == "always":
            return (True,)
        return (False, True) if self.predict == "cheaper" and chain.predictions else (False,)


@dataclass(frozen=True, slots=True)
class UpdateReport:
    """What an update has: its bytes, the tensors and elements in it, and the place in its chain."""

    size: int
    tensors: int
    elements: int
    manifest: Manifest


class _Spooled(NamedTuple):
    """A data unit whose payload waits in a file."""

    header: CompressedDataUnitHeader
    offset: int
    size: int


@dataclass(slots=True)
class _Draft:
    """An update whose units wait in a file, and what is to be known about it."""

    residual: bool
    spool: SpooledTemporaryFile[bytes]
    units: list[_Spooled] = field(default_factory=list)
    links: dict[str, Link] = field(default_factory=dict)
    literals: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    changes: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    new: dict[str, NDArray[Any]] = field(default_factory=dict)
    elements: int = 0
    done: int = 0

    def add(self, name: str, update: TensorUpdate, link: Link, keep: bool, predicts: bool) -> None:
        """Take over the update of one tensor; ``keep`` the tensor, and the update if it ``predicts`` the next."""
        for unit in update.units:
            self.units.append(_Spooled(unit.header, self.spool.tell(), len(unit.payload)))
            self.spool.write(unit.payload.data)
        self.links[name] = link
        self.elements += update.new.size
        if update.literals:
            self.literals[name] = update.literals
        if predicts and update.change is not None:
            self.changes[name] = update.change
        if keep:
            self.new[name] = update.new

    @property
    def size(self) -> int:
        """The bytes of all payloads, and about what their headers take."""
        return sum(unit.size + _HEADER + len(unit.header.topology_elem_id or "") for unit in self.units)

    @property
    def unit_tensors(self) -> list[str]:
        """The tensors that have units, in the order of these."""
        return list(dict.fromkeys(tensor_name(unit.header.topology_elem_id or "") for unit in self.units))


def write_update(
    stream: BinaryIO,
    chain: Chain,
    base: Tensors,
    new: Tensors,
    options: UpdateOptions,
    *,
    threads: int | None = None,
    executor: Executor | None = None,
    changed: Callable[[str, NDArray[Any]], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits | None = None,
    remember: bool = True,
) -> tuple[Chain, UpdateReport]:
    """Write what makes ``new`` of ``base``, the model that ``chain`` left; return the chain after it.

    Where no update is to follow, nothing but digests need be remembered of the tensors, which saves time and memory.

    Tensors are fetched one at a time: once each for an exact update, twice for a lossy one, and once more where
    residuals are tried. ``changed`` is given each tensor as the receiver will have it. Raises `ModelError` where the
    models do not have the same tensors.
    """
    _check_same(base, new)
    work = _Work.of(chain, base, new, options, remember)
    kinds = options.kinds(chain)
    with ExitStack() as stack:
        drafts: list[_Draft] = []
        for kind in kinds:
            draft = _Draft(kind, stack.enter_context(SpooledTemporaryFile(_IN_MEMORY)))
            for name, found in in_order(work.jobs(kind), threads, executor, running=4):
                if found is not None:
                    draft.add(name, *found, changed is not None, options.predict != "never")
                if progress is not None:
                    draft.done += 1
                    progress(len(work.names) * len(drafts) + draft.done, len(work.names) * len(kinds))
            drafts.append(draft)
        best = min(drafts, key=lambda draft: draft.size)
        after = chain.after(best.links, work.rms, None if options.predict == "never" else best.changes)
        manifest = _manifest(options, chain, after, best)
        size = _write(stream, best, manifest, options, limits)
    if changed is not None:
        for name, array in best.new.items():
            changed(name, array)
    return after, UpdateReport(size, len(best.links), best.elements, manifest)


def _write(stream: BinaryIO, draft: _Draft, manifest: Manifest, options: UpdateOptions, limits: Limits | None) -> int:
    mps = update_parameters(manifest.base if options.manifest else None, options.coding.qp_density, draft.residual)
    writer = BitstreamWriter(stream, mps, limits=limits)
    if options.manifest:
        writer.remark(manifest.to_bytes())
    elif draft.literals:
        raise ModelError("an update without a manifest cannot hold this change", tensor=next(iter(draft.literals)))
    for unit in draft.units:
        draft.spool.seek(unit.offset)
        writer.data_unit(unit.header, draft.spool.read(unit.size))
    return writer.size


def _check_same(base: Tensors, new: Tensors) -> None:
    for name in base:
        if name not in new:
            raise ModelError("the new model does not have this tensor; publish the whole model instead", tensor=name)
    for name in new:
        if name not in base:
            raise ModelError("the base does not have this tensor; publish the whole model instead", tensor=name)


def _check_form(name: str, new: NDArray[Any], base: NDArray[Any]) -> None:
    if new.shape != base.shape or new.dtype != base.dtype:
        message = f"is {new.dtype} {new.shape}, in the base {base.dtype} {base.shape}; publish the whole model instead"
        raise ModelError(message, tensor=name)


_Named = tuple[str, tuple[TensorUpdate, Link] | None]


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be coded: the tensors, and how much those change that are coded with loss.

    A tensor that nobody looks at has to be stopped where it is predicted to change.
    """

    chain: Chain
    base: Tensors
    new: Tensors
    options: UpdateOptions
    names: list[str]
    changes: Mapping[str, Change]
    rms: float
    remember: bool

    @classmethod
    def of(cls, chain: Chain, base: Tensors, new: Tensors, options: UpdateOptions, remember: bool) -> _Work:
        """Fetch the tensors that are coded with loss, and see how they change."""
        predicted = chain.predictions or {} if True in options.kinds(chain) else {}
        names = [name for name in chain.links if options.only(name) or name in predicted]
        work = cls(chain, base, new, options, names, {}, 0.0, remember)
        changes = {} if options.exact else dict(work._changes())
        rms = weights_rms(change for change in changes.values() if options.only(change.name))
        return replace(work, changes=changes, rms=max(chain.rms, rms))

    def _changes(self) -> Iterator[tuple[str, Change]]:
        for name in self.names:
            if not self.options.keeps(name):
                change = change_of(name, *self._arrays(name), self.chain.links[name])
                if change is not None:
                    yield name, change

    def _arrays(self, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
        arrays = self.new[name] if self.options.only(name) else self.base[name], self.base[name]
        _check_form(name, *arrays)
        return arrays

    def jobs(self, residual: bool) -> Iterator[Job[_Named]]:
        """One for each tensor."""
        for name in self.names:
            arrays = self._arrays(name)
            yield Job(partial(self._job, name, *arrays, residual), arrays[0].nbytes)

    def _job(self, name: str, new: NDArray[Any], base: NDArray[Any], residual: bool) -> _Named:
        """The update of one tensor, and its link after that; None where nothing changes."""
        update = self._update(name, new, base, residual)
        if update is None:
            return name, None
        if not self.remember:
            return name, (update, Link.first(update.left.fingerprint))
        link = self.chain.links[name].after(update.left, residual)
        return name, (update, replace(link, rms=self.changes[name].rms) if name in self.changes else link)

    def _update(self, name: str, new: NDArray[Any], base: NDArray[Any], residual: bool) -> TensorUpdate | None:
        link, options = self.chain.links[name], self.options
        prediction = (self.chain.predictions or {}).get(name) if residual else None
        if name in self.changes:
            change = self.changes[name]
            if not change.energy and prediction is None:
                return None
            qp = options.lossy.qp_for(change, self.rms, options.coding.qp_density)
            if qp is None:
                return None
            try:
                return lossy_update(
                    name, new, base, link, qp, options.lossy, options.coding, prediction, residual=residual
                )
            except ValueError:  # a difference too large for the step of all the others
                pass
        if fingerprint(new) == link.fingerprint and prediction is None:
            return None
        return exact_update(name, new, base, link, residual, options.order, options.coding)


def _manifest(options: UpdateOptions, chain: Chain, after: Chain, draft: _Draft) -> Manifest:
    return Manifest(
        kind=options.kind,
        sequence=after.sequence,
        base=chain.digest,
        result=after.digest,
        chain=chain.base,
        device_id=chain.device_id,
        checks={name: draft.links[name].fingerprint.digest[:CHECK_BYTES] for name in draft.unit_tensors},
        literals=dict(draft.literals),
        folded=options.folds,
        predicts=options.predict != "never",
    )


def update_parameters(base: str | None, qp_density: int, residual: bool = False) -> ModelParameterSet:
    """The model parameter set of an update; ``base`` is the digest of the model that it is for, if it says so."""
    return ModelParameterSet(
        topology_carriage_flag=base is not None,
        mps_quantization_method_flags=QuantizationMethodFlags.NNR_QSU,
        base_model_id_present_flag=base is not None,
        base_model_id=None if base is None else BASE_MODEL_ID + base,
        mps_parent_signalling_enabled_flag=True,
        nnr_pre_flag=residual,
        mps_qp_density=qp_density,
        mps_quantization_parameter=0,
    )
