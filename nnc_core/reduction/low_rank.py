"""Low rank: weights become the product of two thin factors, which the bitstream carries (clause 8.3.4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator import decomposition
from nnc_core.approximator.data import ApproxData
from nnc_core.nnr_model.blocks import derived_name
from nnc_core.records import dataclass
from nnc_core.reduction.reduced import Tensors, weights
from nnc_core.tables.blocks import FACTORS, Member, parameter_types

__all__ = ["LowRank", "low_rank"]


@dataclass(frozen=True, slots=True)
class LowRank:
    """A model of which some weights are factors G (rows x rank) and H (rank x width), by the name of the weight.

    ``parameters`` are the other tensors, and ``shapes`` those of the weights. ``original`` counts the elements of all
    tensors before.
    """

    parameters: dict[str, NDArray[Any]]
    factors: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    shapes: dict[str, tuple[int, ...]]
    original: int

    @property
    def nn_reduction_ratio(self) -> float:
        """The share of the elements that are saved."""
        left = sum(array.size for array in self.parameters.values())
        left += sum(g.size + h.size for g, h in self.factors.values())
        return 1 - left / max(1, self.original)

    def recomposed(self) -> dict[str, NDArray[Any]]:
        """All tensors, the weights being the products of their factors."""
        products = {name: (g.astype(np.float64) @ h).astype(np.float32) for name, (g, h) in self.factors.items()}
        return {**self.parameters, **{name: array.reshape(self.shapes[name]) for name, array in products.items()}}

    def approx_data(self, qp_density: int = 2) -> ApproxData:
        """The dictionaries of Part 18 (Table 6), ready to be approximated and coded; a block for each weight."""
        factors = {
            derived_name(name, member): factor
            for name, pair in self.factors.items()
            for member, factor in zip(FACTORS, pair, strict=True)
        }
        types = int(parameter_types([Member.G, Member.H]))
        return ApproxData(
            parameters={**self.parameters, **factors},
            qp_density=qp_density,
            compressed_parameter_types=dict.fromkeys(self.factors, types),
            decomposition_rank={name: g.shape[1] for name, (g, _) in self.factors.items()},
            g_number_of_rows={name: g.shape[0] for name, (g, _) in self.factors.items()},
        )


def low_rank(
    parameters: Tensors,
    *,
    rank: int | None = None,
    error: float | None = None,
    ratio: float | None = None,
    names: Iterable[str] | None = None,
) -> LowRank:
    """The model with weights replaced by factors where these are smaller.

    The rank is ``rank``, or the smallest with a relative squared ``error`` of at most that, or the largest with which
    the factors have at most ``ratio`` times as many elements as the weight; of several, the smallest. Raises
    `ModelError` for values that are not finite. In the dictionaries of Part 18, `nnc_core.approximator.decompose` does
    the same for blocks.
    """
    kept, factors, shapes = dict(parameters), {}, {}
    for name, array in weights(parameters, names).items():
        found = decomposition.decompose(array.astype(np.float32), rank=rank, error=error, ratio=ratio)
        if found is not None:
            factors[name], shapes[name] = found, kept.pop(name).shape
    return LowRank(kept, factors, shapes, sum(np.size(array) for array in parameters.values()))
