"""From two models to an update: a bitstream with what changed, tied to its base (clause 6.3.4.3, and our manifest)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, NamedTuple

from numpy.typing import NDArray

from nnc_core.bitstream import BitstreamWriter
from nnc_core.coder.pool import Job, in_order
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.tables.code_points import QuantizationMethodFlags, TopologyStorageFormat
from nnc_core.updates.chain import Chain, Link
from nnc_core.updates.coding import QP_DENSITY
from nnc_core.updates.digest import fingerprint
from nnc_core.updates.exact import TensorUpdate, exact_update
from nnc_core.updates.lossy import Change, LossyOptions, change_of, lossy_update, weights_rms
from nnc_core.updates.manifest import BASE_MODEL_ID, CHECK_BYTES, Kind, Manifest
from nnc_core.updates.naming import Order

__all__ = ["UpdateOptions", "UpdateReport", "update_parameters", "write_update"]

_IN_MEMORY = 64 << 20

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class UpdateOptions:
    """How an update is coded: ``exact``, or as ``lossy`` says.

    In a lossy update the tensors that ``keeps`` accepts are exact, too, as are integers and what is not finite.
    ``order`` is that of exact differences: by the exponents of the chain's base (best together with the contexts of
    the updates before), of the model before, or as the elements lie. Only tensors that ``only`` accepts are looked at.
    """

    exact: bool = False
    lossy: LossyOptions = field(default_factory=LossyOptions)
    order: Order = "base"
    keeps: Callable[[str], bool] = lambda _name: False
    only: Callable[[str], bool] = lambda _name: True

    @property
    def kind(self) -> Kind:
        """What the manifest calls it."""
        return "exact" if self.exact else "lossy"


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
) -> tuple[Chain, UpdateReport]:
    """Write what makes ``new`` of ``base``, the model that ``chain`` left; return the chain after it.

    Tensors are fetched one at a time: once each for an exact update, twice for a lossy one. ``changed`` is given each
    tensor as the receiver will have it. Raises `ModelError` where the models do not have the same tensors.
    """
    _check_same(base, new)
    names = [name for name in chain.links if options.only(name)]
    lossy = {} if options.exact else _changes(names, chain, base, new, options)
    rms = max(chain.rms, weights_rms(lossy.values()))
    qps = {name: options.lossy.qp_for(change, rms) for name, change in lossy.items() if change.energy}
    links: dict[str, Link] = {}
    literals: dict[str, tuple[tuple[int, int], ...]] = {}
    units: list[_Spooled] = []
    elements = 0
    with SpooledTemporaryFile(_IN_MEMORY) as spool:
        jobs = _jobs(names, chain, base, new, options, qps)
        for done, (name, update) in enumerate(in_order(jobs, threads, executor, running=4), 1):
            if update is not None:
                units += _spooled(spool, update)  # type: ignore[arg-type]
                links[name], elements = update.link, elements + update.new.size
                if update.literals:
                    literals[name] = update.literals
                if changed is not None:
                    changed(name, update.new)
            if progress is not None:
                progress(done, len(names))
        after = chain.after(_remembered(links, lossy), rms)
        manifest = _manifest(options.kind, chain, after, links, literals)
        writer = BitstreamWriter(stream, update_parameters(chain.digest), limits=limits)
        writer.topology(Topology(TopologyStorageFormat.NNR_TPL_UNREC, manifest.to_bytes()))
        for unit in units:
            spool.seek(unit.offset)
            writer.data_unit(unit.header, spool.read(unit.size))
    return after, UpdateReport(writer.size, len(links), elements, manifest)


def _check_same(base: Tensors, new: Tensors) -> None:
    for name in base:
        if name not in new:
            raise ModelError("the new model does not have this tensor; publish the whole model instead", tensor=name)
    for name in new:
        if name not in base:
            raise ModelError("the base does not have this tensor; publish the whole model instead", tensor=name)


def _changes(names: list[str], chain: Chain, base: Tensors, new: Tensors, options: UpdateOptions) -> dict[str, Change]:
    """How much the tensors change that are coded with loss."""
    found = {}
    for name in names:
        if not options.keeps(name):
            arrays = new[name], base[name]
            _check_form(name, *arrays)
            change = change_of(name, *arrays, chain.links[name])
            if change is not None:
                found[name] = change
    return found


def _remembered(links: Mapping[str, Link], changes: Mapping[str, Change]) -> dict[str, Link]:
    """The links with the rms of the largest update."""
    return {n: replace(link, rms=changes[n].rms) if n in changes else link for n, link in links.items()}


def _check_form(name: str, new: NDArray[Any], base: NDArray[Any]) -> None:
    if new.shape != base.shape or new.dtype != base.dtype:
        message = f"is {new.dtype} {new.shape}, in the base {base.dtype} {base.shape}; publish the whole model instead"
        raise ModelError(message, tensor=name)


_Named = tuple[str, TensorUpdate | None]


def _jobs(
    names: list[str],
    chain: Chain,
    base: Tensors,
    new: Tensors,
    options: UpdateOptions,
    qps: Mapping[str, int | None],
) -> Iterator[Job[_Named]]:
    for name in names:
        arrays = new[name], base[name]
        _check_form(name, *arrays)
        yield Job(
            partial(_update, name, *arrays, chain.links[name], chain.device_id, options, qps.get(name)),
            arrays[0].nbytes,
        )


def _update(
    name: str,
    new: NDArray[Any],
    base: NDArray[Any],
    link: Link,
    device_id: int,
    options: UpdateOptions,
    qp: int | None,
) -> _Named:
    """The update of one tensor; None where nothing changes."""
    if qp is not None:
        try:
            return name, lossy_update(name, new, base, link, device_id, qp, options.lossy)
        except ValueError:  # a difference too large for the step of all the others
            pass
    elif not options.exact and not options.keeps(name) and change_of(name, new, base, link) is not None:
        return name, None
    if fingerprint(new) == link.fingerprint:
        return name, None
    return name, exact_update(name, new, base, link, device_id, options.order)


def _spooled(spool: BinaryIO, update: TensorUpdate) -> Iterator[_Spooled]:
    for unit in update.units:
        yield _Spooled(unit.header, spool.tell(), len(unit.payload))
        spool.write(unit.payload)


def _manifest(
    kind: Kind,
    chain: Chain,
    after: Chain,
    links: Mapping[str, Link],
    literals: Mapping[str, tuple[tuple[int, int], ...]],
) -> Manifest:
    return Manifest(
        kind=kind,
        sequence=after.sequence,
        base=chain.digest,
        result=after.digest,
        chain=chain.base,
        device_id=chain.device_id,
        checks={name: link.fingerprint.digest[:CHECK_BYTES] for name, link in links.items()},
        literals=dict(literals),
    )


def update_parameters(base: str) -> ModelParameterSet:
    """The model parameter set of an update for the model with the digest ``base``."""
    return ModelParameterSet(
        topology_carriage_flag=True,
        mps_quantization_method_flags=QuantizationMethodFlags.NNR_QSU,
        base_model_id_present_flag=True,
        base_model_id=BASE_MODEL_ID + base,
        mps_parent_signalling_enabled_flag=True,
        mps_qp_density=QP_DENSITY,
        mps_quantization_parameter=0,
    )
