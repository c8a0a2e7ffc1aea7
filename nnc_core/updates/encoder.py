"""The sending end of a chain of updates, in memory."""

from __future__ import annotations

import io
import os
from typing import Any, NamedTuple

from numpy.typing import NDArray

from nnc_core.limits import Limits
from nnc_core.updates.chain import Chain
from nnc_core.updates.end import ChainEnd, Tensors
from nnc_core.updates.state import load_chain
from nnc_core.updates.writer import UpdateOptions, UpdateReport, write_update

__all__ = ["UpdateEncoder"]


class _Pending(NamedTuple):
    """What the encoder becomes once the update has arrived."""

    update: bytes
    chain: Chain
    changed: dict[str, NDArray[Any]]


class UpdateEncoder(ChainEnd):
    """Codes what changed since the last update that was committed.

    ``base`` is the model that the receivers have; it is kept as it is, and must not change. `encode` does not move the
    encoder: `commit` does, once the update is stored or acknowledged, and `discard` forgets it. ``device_id`` tells
    senders apart. ``chain`` is a state to go on from, see `load`; `save` keeps the state of what is committed.

    >>> import numpy as np, nnc_core
    >>> base = {"w": np.zeros((2, 3), np.float32)}
    >>> encoder = nnc_core.UpdateEncoder(base, nnc_core.UpdateOptions(exact=True))
    >>> update = encoder.encode({"w": np.eye(2, 3, dtype=np.float32)})
    >>> encoder.commit(update)
    >>> decoder = nnc_core.UpdateDecoder(base)
    >>> decoder.apply(update).sequence
    1
    >>> decoder.model["w"].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """

    def __init__(
        self,
        base: Tensors,
        options: UpdateOptions | None = None,
        *,
        device_id: int = 0,
        chain: Chain | None = None,
        threads: int | None = None,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(base, chain or Chain.of(base, device_id), threads, limits)
        self.options = options or UpdateOptions()
        self.report: UpdateReport | None = None
        self._pending: _Pending | None = None

    @property
    def encoded(self) -> Tensors:
        """The model that the receivers will have with the update that was coded last."""
        return self._model if self._pending is None else {**self._model, **self._pending.changed}

    def encode(self, new: Tensors, *, restart: bool = False) -> bytes:
        """Code what makes ``new`` of the receivers' model; ``restart`` begins a new chain, which needs no state.

        `ModelError` where ``new`` has other tensors, or in other shapes or types.
        """
        chain = self.chain.restarted() if restart else self.chain
        stream, changed = io.BytesIO(), dict[str, NDArray[Any]]()
        after, self.report = write_update(
            stream,
            chain,
            self._model,
            new,
            self.options,
            threads=self._threads,
            changed=changed.__setitem__,
            limits=self._limits,
        )
        self._pending = _Pending(stream.getvalue(), after, changed)
        return self._pending.update

    def commit(self, update: bytes) -> None:
        """The receivers have ``update``, or will have it; ValueError if it is not the one that was coded last."""
        if self._pending is None or self._pending.update != update:
            raise ValueError("this update is not the one that was encoded last, or it was committed or discarded")
        self.chain = self._pending.chain
        self._model.update(self._pending.changed)
        self._pending = None

    def discard(self) -> None:
        """Forget the update that was coded last."""
        self._pending = None

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: Tensors,
        options: UpdateOptions | None = None,
        *,
        threads: int | None = None,
        limits: Limits | None = None,
    ) -> UpdateEncoder:
        """Go on from a saved state with the ``model`` that it belongs to; `WrongBaseError` for another one."""
        return cls(model, options, chain=load_chain(path), threads=threads, limits=limits)
