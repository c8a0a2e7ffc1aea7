"""How frameworks store the weights of recurrent cells: the order of their gates, and what is one tensor where.

Canonical are four parts for each layer and direction, as in PyTorch: ``[G*H, I]``, ``[G*H, H]``, and two biases
``[G*H]``, with the gates as in `GATES`. The roles of the direction that runs backward end with `BACKWARD`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.convert.parts import Layout, Part, Shape
from nnc_core.records import dataclass

__all__ = ["BACKWARD", "BIASES", "GATES", "Backward", "GateBias", "GateBiases", "Gates", "SumOfBiases"]

Array = NDArray[Any]

BACKWARD = " backward"
BIASES = ("input_bias", "state_bias")

# The gates of PyTorch: input, forget, cell, output; reset, update (z), new (h). A GRU resets the state after the matrix
# product, as PyTorch does, or before it: other networks, between which weights do not move.
GATES = {"lstm": "ifco", "gru": "rzh", "gru_reset_before": "rzh", "rnn": "h"}


@dataclass(frozen=True, slots=True)
class Backward:
    """What ``layout`` has, for the direction that runs backward."""

    layout: Layout

    def parts(self, shape: Shape) -> list[Part]:
        """The parts with other roles; see `Layout`."""
        return [Part(part.role + BACKWARD, part.shape) for part in self.layout.parts(shape)]

    def split(self, array: Array) -> list[Array]:
        """As the other direction."""
        return self.layout.split(array)

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """As the other direction."""
        return self.layout.join(parts, shape)


@dataclass(frozen=True, slots=True)
class Gates:
    """The matrix of a recurrent cell: ``gates`` is the order of its gates.

    ``axes`` is ``GI``, ``IG`` or, with one matrix for each direction, ``DGI``.
    """

    cell: str
    gates: str
    role: str
    axes: str = "GI"

    def parts(self, shape: Shape) -> list[Part]:
        """One part for each direction; see `Layout`."""
        if len(shape) != len(self.axes) or shape[self.axes.index("G")] % len(self.gates):
            raise ValueError(f"shape {shape} is not that of {len(self.gates)} gates")
        rows, columns = shape[self.axes.index("G")], shape[self.axes.index("I")]
        directions = shape[0] if "D" in self.axes else 1
        if not 1 <= directions <= 2:
            raise ValueError(f"shape {shape} is not that of one or two directions")
        return [Part(f"{self.cell}.{self.role}{end}", (rows, columns)) for end in ("", BACKWARD)[:directions]]

    def split(self, array: Array) -> list[Array]:
        """One matrix ``[G*H, I]`` for each direction."""
        matrices = array if "D" in self.axes else (array.T if self.axes == "IG" else array)[None]
        return [_reordered(matrix, self.gates, GATES[self.cell]) for matrix in matrices]

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """The matrices of all directions."""
        matrices = [_reordered(part, GATES[self.cell], self.gates) for part in parts]
        if "D" in self.axes:
            return np.stack(matrices)
        return matrices[0].T if self.axes == "IG" else matrices[0]


@dataclass(frozen=True, slots=True)
class GateBias:
    """One bias of a recurrent cell, of the input (``role`` is ``input_bias``) or of the state."""

    cell: str
    gates: str
    role: str

    def parts(self, shape: Shape) -> list[Part]:
        """One part; see `Layout`."""
        if len(shape) != 1 or shape[0] % len(self.gates):
            raise ValueError(f"shape {shape} is not that of {len(self.gates)} gates")
        return [Part(f"{self.cell}.{self.role}", shape)]

    def split(self, array: Array) -> list[Array]:
        """One vector."""
        return [_reordered(array, self.gates, GATES[self.cell])]

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """One vector."""
        return _reordered(parts[0], GATES[self.cell], self.gates)


@dataclass(frozen=True, slots=True)
class GateBiases:
    """Both biases of a cell in one tensor ``[2, G*H]`` or, with ``directions``, ``[D, 2*G*H]``."""

    cell: str
    gates: str
    directions: bool = False

    def parts(self, shape: Shape) -> list[Part]:
        """Two parts for each direction; see `Layout`."""
        width = shape[-1] // (2 if self.directions else 1) if shape else 0
        if (
            len(shape) != 2
            or not width
            or width % len(self.gates)
            or shape[0] > 2
            or (not self.directions and shape[0] != 2)
        ):
            raise ValueError(f"shape {shape} is not that of two biases of {len(self.gates)} gates")
        ends = ("", BACKWARD)[: shape[0] if self.directions else 1]
        return [Part(f"{self.cell}.{role}{end}", (width,)) for end in ends for role in BIASES]

    def split(self, array: Array) -> list[Array]:
        """The bias of the input, that of the state; then those of the next direction."""
        rows = array.reshape(-1, array.shape[-1] // (2 if self.directions else 1))
        return [_reordered(row, self.gates, GATES[self.cell]) for row in rows]

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """All biases one after the other."""
        return np.concatenate([_reordered(part, GATES[self.cell], self.gates) for part in parts]).reshape(shape)


@dataclass(frozen=True, slots=True)
class SumOfBiases:
    """One bias ``[G*H]`` where others have two: their sum. Split again, the input has all of it, the state zeros."""

    cell: str
    gates: str

    def parts(self, shape: Shape) -> list[Part]:
        """Two parts; see `Layout`."""
        if len(shape) != 1 or shape[0] % len(self.gates):
            raise ValueError(f"shape {shape} is not that of {len(self.gates)} gates")
        return [Part(f"{self.cell}.{role}", shape) for role in BIASES]

    def split(self, array: Array) -> list[Array]:
        """The whole bias, and zeros."""
        bias = _reordered(array, self.gates, GATES[self.cell])
        return [bias, np.zeros_like(bias)]

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """The sum."""
        return _reordered(parts[0] + parts[1], GATES[self.cell], self.gates)


def _reordered(array: Array, stored: str, wanted: str) -> Array:
    """Blocks of dimension 0, one for each letter of ``stored``, in the order ``wanted``."""
    blocks = array.reshape(len(stored), -1, *array.shape[1:])
    return blocks[[stored.index(gate) for gate in wanted]].reshape(array.shape)
