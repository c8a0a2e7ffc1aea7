"""What both ends of a chain of updates have in common: the model, and the state that goes with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from nnc_core.limits import Limits
from nnc_core.updates.chain import Chain
from nnc_core.updates.state import save_chain

__all__ = ["ChainEnd", "Tensors"]

Tensors = Mapping[str, NDArray[Any]]


class ChainEnd:
    """One end of a chain: ``chain`` is its state, ``model`` the model after the last update."""

    def __init__(self, model: Tensors, chain: Chain | None, threads: int | None, limits: Limits | None) -> None:
        if chain is not None:
            chain.check_base(model)
        self.chain = chain or Chain.of(model)
        self._model = dict(model)
        self._threads = threads
        self._limits = limits

    @property
    def model(self) -> Tensors:
        """The model that the receivers have after the last update."""
        return self._model

    def rebase(self, model: Tensors) -> None:
        """Go on from another model of the same tensors, which both ends of the chain have in some other way.

        A client of federated learning does so when a round begins with a new model from the server, and the server
        does for its end of the client's chain. `ModelError` for other tensors.
        """
        self.chain = self.chain.rebased(model)
        self._model = dict(model)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Keep the state in a file, without the model; the file appears complete or not at all."""
        save_chain(self.chain, path)
