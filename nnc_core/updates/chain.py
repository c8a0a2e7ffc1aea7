"""What both ends of a chain of updates know after the last one: enough to code the next, or to decode it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.coder.history import History
from nnc_core.errors import MissingLinkError, ModelError, ReplayError, WrongBaseError
from nnc_core.records import dataclass
from nnc_core.updates.digest import Fingerprint, fingerprints, model_digest
from nnc_core.updates.manifest import Manifest
from nnc_core.updates.packing import Packed, packed, unpacked

__all__ = ["Branch", "Chain", "Left", "Link", "Position"]


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """The last unit of a tensor among its plain updates, or among its residuals: a `History` with packed arrays."""

    device_id: int | None = None
    parameter_id: int | None = None
    depth: int = 0
    levels: Packed | None = None
    marks: Packed | None = None
    sha256: bytes = b""
    sha512: bytes = b""

    @classmethod
    def of(cls, history: History) -> Branch:
        """Pack a history."""
        levels = None if history.base is None else packed(history.base)
        marks = None if history.marks is None else packed(history.marks.astype(np.int32))
        node = history.device_id, history.parameter_id, history.depth
        return cls(*node, levels, marks, history.sha256, history.sha512)

    def history(self) -> History:
        """The history for the arithmetic coder."""
        base = None if self.levels is None else unpacked(self.levels)
        marks = None if self.marks is None else unpacked(self.marks).astype(np.uint8)
        return History(self.device_id, self.parameter_id, self.depth, base, marks, self.sha256, self.sha512)


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """What is known of one tensor.

    ``fingerprint`` is that of the tensor as it is now. ``updates`` and ``residuals`` are the last units of either kind
    (clause 9.1.6): a unit looks back at those of its own kind. ``exponents`` (unsigned, flat) are those of the chain's
    base, where updates are ordered by them. ``values`` (float32) is the reconstruction where the tensor's own type is
    a narrower view of it. ``rms`` is that of the largest lossy update so far.
    """

    fingerprint: Fingerprint
    updates: Branch
    residuals: Branch
    exponents: NDArray[Any] | None = None
    values: NDArray[np.float32] | None = None
    rms: float = 0.0

    @classmethod
    def first(cls, fingerprint: Fingerprint, device_id: int | None = None, parameter_id: int | None = None) -> Link:
        """The link of a tensor that has had no update; the numbers are those that its sender will use, if known."""
        return cls(fingerprint, Branch(device_id, parameter_id), Branch(device_id, parameter_id))

    def history(self, residual: bool) -> History:
        """What the next unit of this kind looks back at."""
        return (self.residuals if residual else self.updates).history()

    def after(self, left: Left, residual: bool) -> Link:
        """The link after an update."""
        link = replace(self, fingerprint=left.fingerprint, exponents=left.exponents, values=left.values)
        if left.history is None:
            return link
        branch = Branch.of(left.history)
        return replace(link, residuals=branch) if residual else replace(link, updates=branch)


class Left(NamedTuple):
    """What an update leaves of a tensor for the next one; ``history`` is None where it has no unit."""

    fingerprint: Fingerprint
    history: History | None
    exponents: NDArray[Any] | None = None
    values: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Position:
    """Where a chain is: ``digest`` is that of the model as it is now, None where only decoding tells."""

    base: str
    sequence: int
    digest: str | None

    def check(self, manifest: Manifest) -> bool:
        """Whether an update begins a new chain here, and does not continue the one at hand.

        Raises `ReplayError` for an update that was applied before, `MissingLinkError` where one before it was not, and
        `WrongBaseError` for one of another model.
        """
        have, need = self.sequence, manifest.sequence - 1
        same, changes = manifest.chain == self.base, manifest.result != manifest.base
        if manifest.restart and manifest.base == self.digest and (changes or not (same and have)):
            return True
        if (changes and manifest.result == self.digest) or (same and need < have):
            raise ReplayError(f"update {manifest.sequence} was applied before", have=have, need=need)
        if same and need > have:
            message = f"update {manifest.sequence} comes after update {need}, at hand is {have}"
            raise MissingLinkError(f"{message}: apply update {have + 1} first", have=have, need=need)
        if self.digest not in (None, manifest.base):
            message = f"the update is for the model {manifest.base[:12]}..., at hand is {str(self.digest)[:12]}..."
            raise WrongBaseError(message, have=self.digest, need=manifest.base)
        if not same:
            message = f"update {manifest.sequence} needs the state that update {need} left, or all updates before it"
            raise MissingLinkError(message, have=have, need=need)
        return False

    def after(self, manifest: Manifest | None) -> Position:
        """The position after an update; what the last of several folded ones left for the next is not known."""
        if manifest is None:
            return Position(self.base, self.sequence + 1, None)
        if manifest.folded:
            return Position(manifest.result, 0, manifest.result)
        return Position(manifest.chain, manifest.sequence, manifest.result)


@dataclass(frozen=True, slots=True, eq=False)
class Chain:
    """The state of a chain of updates of one sender: the digest of its base, how many there were, and its tensors.

    ``digest`` is that of the model as it is now, ``rms`` that of the change of all weights in the largest lossy update
    so far: the sender alone knows it. ``predictions`` are the last reconstructed updates (float32), by which residuals
    are predicted; None where no residuals are to come.
    """

    base: str
    links: Mapping[str, Link]
    sequence: int = 0
    device_id: int = 0
    digest: str = field(default="")
    rms: float = 0.0
    predictions: Mapping[str, NDArray[np.float32]] | None = None

    def __post_init__(self) -> None:
        if not self.digest:
            object.__setattr__(self, "digest", model_digest(self.prints))

    @classmethod
    def of(cls, model: Mapping[str, NDArray[Any]], device_id: int = 0) -> Chain:
        """The chain that begins with ``model``; each tensor is fetched once, and none is kept."""
        return cls.of_prints(fingerprints(model), device_id)

    @classmethod
    def of_prints(cls, prints: Mapping[str, Fingerprint], device_id: int = 0) -> Chain:
        """The chain that begins with the model that has these fingerprints."""
        links = {name: Link.first(each, device_id, number) for number, (name, each) in enumerate(prints.items())}
        return cls(model_digest(prints), links, 0, device_id)

    @property
    def prints(self) -> dict[str, Fingerprint]:
        """The fingerprints of the tensors as they are now."""
        return {name: link.fingerprint for name, link in self.links.items()}

    @property
    def position(self) -> Position:
        """Where the chain is."""
        return Position(self.base, self.sequence, self.digest)

    @property
    def starts_from_nothing(self) -> bool:
        """Whether the first bitstreams bring the tensors, as in Part 18, clause 4.5.3."""
        return self.base == model_digest({})

    def restarted(self, device_id: int | None = None) -> Chain:
        """The chain that begins with the model as it is now."""
        return self.of_prints(self.prints, self.device_id if device_id is None else device_id)

    def rebased(self, model: Mapping[str, NDArray[Any]]) -> Chain:
        """The chain as it goes on from another model of the same tensors, which both ends have in some other way.

        So do clients' chains: each round begins with the server's model. `ModelError` for other tensors.
        """
        prints = fingerprints(model)
        if {n: p[:2] for n, p in prints.items()} != {n: p[:2] for n, p in self.prints.items()}:
            raise ModelError("the model has other tensors than the chain, or of other shapes or types")
        links = {name: replace(link, fingerprint=prints[name], values=None) for name, link in self.links.items()}
        return replace(self, links=links, digest="")

    def after(
        self,
        changed: Mapping[str, Link],
        rms: float = 0.0,
        predictions: Mapping[str, NDArray[np.float32]] | None = None,
    ) -> Chain:
        """The chain after one more update, which changed these tensors."""
        links, rms = {**self.links, **changed}, max(rms, self.rms)
        return replace(self, links=links, sequence=self.sequence + 1, digest="", rms=rms, predictions=predictions)

    def check_base(self, model: Mapping[str, NDArray[Any]]) -> None:
        """`WrongBaseError` unless ``model`` is the one that the last update left."""
        found = model_digest(fingerprints(model))
        if found != self.digest:
            message = "the model at hand is not the one that the state belongs to"
            raise WrongBaseError(message, have=found, need=self.digest)
