"""The receiving end of a chain of updates, in memory."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_core.file import NnrFile
from nnc_core.limits import Limits
from nnc_core.records import dataclass
from nnc_core.syntax.driver import Buffer
from nnc_core.updates.chain import Chain
from nnc_core.updates.differences import patterns_of
from nnc_core.updates.end import ChainEnd, Tensors
from nnc_core.updates.reader import PatchedModel, known_dimensions
from nnc_core.updates.state import load_chain

__all__ = ["Patch", "UpdateDecoder"]


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """The elements of a tensor that an update changes: their flat indices (int64), and their new values."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    indices: NDArray[np.int64]
    values: NDArray[Any]


class UpdateDecoder(ChainEnd):
    """Applies the updates of one sender in their order; ``base`` is the model that the first one applies to.

    Without a ``base`` the first bitstreams bring the tensors (Part 18, clause 4.5.3). The arrays of ``base`` are never
    written to. Several decoders, one for each sender, do not know of each other. ``chain`` is a state to go on from,
    see `load`.
    """

    def __init__(
        self,
        base: Tensors | None = None,
        *,
        chain: Chain | None = None,
        threads: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(base or {}, chain, threads, limits)

    def copy(self) -> UpdateDecoder:
        """A decoder that goes on from here on its own; arrays are shared, as none is written to."""
        other = copy.copy(self)
        other._model = dict(self._model)
        return other

    def apply(self, update: Buffer, *, unverified: bool = False) -> Chain:
        """Apply an update, as a whole or not at all; return the state after it.

        ``unverified`` admits bitstreams that do not say which model they are for; depths are checked all the same.
        Raises `ReplayError`, `MissingLinkError`, `WrongBaseError` or `IntegrityError` for an update that does not come
        next, `BitstreamError` for a damaged one, `ModelError` for one of other tensors.
        """
        patched = self._patched(update, unverified)
        changed = dict(patched.items_changed(self._threads))
        after = patched.chain_after()
        self._model.update(changed)
        self.chain = after
        return after

    def patches(self, update: Buffer, *, unverified: bool = False) -> Iterator[Patch]:
        """What `apply` would change, tensor by tensor, for a model that is held elsewhere; nothing is applied."""
        patched = self._patched(update, unverified)
        for name, new in patched.items_changed(self._threads):
            indices = np.flatnonzero(patterns_of(new) != patterns_of(self._model[name]))
            yield Patch(name, new.shape, new.dtype.name, indices, new.reshape(-1)[indices])

    def _patched(self, update: Buffer, unverified: bool) -> PatchedModel:
        patched = PatchedModel(self.chain, self._model)
        known = known_dimensions(self.chain) if unverified else None
        patched.add(NnrFile(update, self._limits, known), unverified=unverified)
        return patched

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: Tensors,
        *,
        threads: int | None = None,
        limits: Limits | None = None,
    ) -> UpdateDecoder:
        """Go on from a saved state with the ``model`` that it belongs to; `WrongBaseError` for another one."""
        return cls(model, chain=load_chain(path), threads=threads, limits=limits)
