"""How frameworks lay out weights: one table, and what its entries do to an array.

Every entry leads to and from one *canonical* form, that of PyTorch: convolutions ``[O, I/g, k...]``, transposed ones
``[I, O/g, k...]``, matrices ``[O, I]``, embeddings ``[V, D]``, vectors ``[C]``; of a recurrent cell, four parts for
each layer and direction: ``[G*H, I]``, ``[G*H, H]``, and two biases ``[G*H]``, with the gates as in `GATES`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CHANNELS_LAST",
    "GATES",
    "LAYOUTS",
    "Framework",
    "Layout",
    "Part",
    "flattened_to_first",
    "flattened_to_last",
    "layout",
]

Array = NDArray[Any]
Shape = tuple[int, ...]
Framework = Literal["pytorch", "tensorflow", "onnx", "nnef"]


class Part(NamedTuple):
    """What a tensor, or a piece of it, is to the network, and its canonical shape."""

    role: str
    shape: Shape


class Layout(Protocol):
    """How a tensor of one shape holds its parts; ValueError for a shape that this layout cannot have."""

    def parts(self, shape: Shape) -> list[Part]:
        """The parts that a tensor of this shape holds."""
        ...

    def split(self, array: Array) -> list[Array]:
        """The parts of a tensor in canonical form."""
        ...

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """The tensor of this shape that holds the canonical ``parts``."""
        ...


@dataclass(frozen=True, slots=True)
class Axes:
    """Axes in another order: ``stored`` and ``canonical`` name them, ``*`` stands for all spatial ones."""

    stored: str
    canonical: str
    role: str = "weight"

    def _permutation(self, rank: int) -> list[int]:
        spatial = "".join(chr(ord("a") + k) for k in range(rank - len(self.stored.replace("*", ""))))
        if rank != len(self.stored.replace("*", spatial)) or ("*" in self.stored and not spatial):
            raise ValueError(f"a tensor with the axes {self.stored} cannot have {rank} dimensions")
        stored = self.stored.replace("*", spatial)
        return [stored.index(axis) for axis in self.canonical.replace("*", spatial)]

    def parts(self, shape: Shape) -> list[Part]:
        """One part; see `Layout`."""
        return [Part(self.role, tuple(shape[axis] for axis in self._permutation(len(shape))))]

    def split(self, array: Array) -> list[Array]:
        """One permuted array."""
        return [array.transpose(self._permutation(array.ndim))]

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """The permutation undone."""
        permutation = self._permutation(len(shape))
        return np.transpose(parts[0], [permutation.index(axis) for axis in range(len(shape))])


@dataclass(frozen=True, slots=True)
class Depthwise:
    """``[k..., C, M]``: M filters for each of C channels; canonical ``[C*M, 1, k...]``, those of a channel adjacent."""

    def parts(self, shape: Shape) -> list[Part]:
        """One part; see `Layout`."""
        if len(shape) < 3:
            raise ValueError(f"a depthwise kernel cannot have {len(shape)} dimensions")
        return [Part("weight", (shape[-2] * shape[-1], 1, *shape[:-2]))]

    def split(self, array: Array) -> list[Array]:
        """Filters first."""
        filters = array.reshape(*array.shape[:-2], -1)
        return [np.moveaxis(filters, -1, 0)[:, None]]

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """Filters last."""
        return np.moveaxis(parts[0][:, 0], 0, -1).reshape(shape)


@dataclass(frozen=True, slots=True)
class Vector:
    """One number for each channel, whatever dimensions of size 1 surround them; canonical ``[C]``."""

    role: str

    def parts(self, shape: Shape) -> list[Part]:
        """One part; see `Layout`."""
        if prod(shape) != max(shape, default=1):
            raise ValueError(f"shape {shape} is not that of one number for each channel")
        return [Part(self.role, (prod(shape),))]

    def split(self, array: Array) -> list[Array]:
        """One flat array."""
        return [array.reshape(-1)]

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """With the dimensions of size 1."""
        return parts[0].reshape(shape)


@dataclass(frozen=True, slots=True)
class Same:
    """What every framework has in the same form, or what is known by its name only."""

    role: str = "other"

    def parts(self, shape: Shape) -> list[Part]:
        """One part; see `Layout`."""
        return [Part(self.role, shape)]

    def split(self, array: Array) -> list[Array]:
        """The array."""
        return [array]

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """The array."""
        return parts[0]


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
        return [Part(f"{self.cell}.{self.role}", (rows, columns))] * directions

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
        if len(shape) != 2 or not width or width % len(self.gates) or (not self.directions and shape[0] != 2):
            raise ValueError(f"shape {shape} is not that of two biases of {len(self.gates)} gates")
        pair = [Part(f"{self.cell}.{role}", (width,)) for role in _BIASES]
        return pair * (shape[0] if self.directions else 1)

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
        return [Part(f"{self.cell}.{role}", shape) for role in _BIASES]

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


_BIASES = ("input_bias", "state_bias")

# The gates of PyTorch: input, forget, cell, output; reset, update (z), new (h). A GRU resets the state after the matrix
# product, as PyTorch does, or before it: other networks, between which weights do not move.
GATES = {"lstm": "ifco", "gru": "rzh", "gru_reset_before": "rzh", "rnn": "h"}


def _pytorch_cell(cell: str, gates: str) -> dict[str, Layout]:
    return {
        f"{cell}.input": Gates(cell, gates, "input_weight"),
        f"{cell}.state": Gates(cell, gates, "state_weight"),
        **{f"{cell}.{role}": GateBias(cell, gates, role) for role in _BIASES},
    }


def _keras_cell(cell: str, gates: str) -> dict[str, Layout]:
    two = cell == "gru"
    return {
        f"{cell}.input": Gates(cell, gates, "input_weight", "IG"),
        f"{cell}.state": Gates(cell, gates, "state_weight", "IG"),
        f"{cell}.bias": GateBiases(cell, gates) if two else SumOfBiases(cell, gates),
    }


def _onnx_cell(cell: str, gates: str) -> dict[str, Layout]:
    return {
        f"{cell}.input": Gates(cell, gates, "input_weight", "DGI"),
        f"{cell}.state": Gates(cell, gates, "state_weight", "DGI"),
        f"{cell}.bias": GateBiases(cell, gates, directions=True),
    }


_VECTORS: dict[str, Layout] = {
    "bias": Vector("bias"),
    # of a normalization
    "shift": Vector("shift"),
    "scale": Vector("scale"),
    "mean": Vector("mean"),
    "variance": Vector("variance"),
}
_COMMON: dict[str, Layout] = {**_VECTORS, "embedding": Same("weight"), "other": Same()}
_OUTPUT_FIRST: dict[str, Layout] = {
    **_COMMON,
    "conv": Axes("OI*", "OI*"),
    "deconv": Axes("IO*", "IO*"),
    "depthwise": Axes("OI*", "OI*"),
    "dense": Axes("OI", "OI"),
    "dense_input_first": Axes("IO", "OI"),
}

LAYOUTS: dict[Framework, Mapping[str, Layout]] = {
    "pytorch": {
        **_OUTPUT_FIRST,
        **_pytorch_cell("lstm", "ifco"),
        **_pytorch_cell("gru", "rzh"),
        **_pytorch_cell("rnn", "h"),
    },
    "tensorflow": {
        **_COMMON,
        "conv": Axes("*IO", "OI*"),
        "deconv": Axes("*OI", "IO*"),
        "depthwise": Depthwise(),
        "dense": Axes("IO", "OI"),
        **_keras_cell("lstm", "ifco"),
        **_keras_cell("gru", "zrh"),
        **_keras_cell("gru_reset_before", "zrh"),
        **_keras_cell("rnn", "h"),
    },
    "onnx": {
        **_OUTPUT_FIRST,
        **_onnx_cell("lstm", "iofc"),
        **_onnx_cell("gru", "zrh"),
        **_onnx_cell("gru_reset_before", "zrh"),
        **_onnx_cell("rnn", "h"),
    },
    "nnef": _OUTPUT_FIRST,
}

CHANNELS_LAST: frozenset[str] = frozenset({"tensorflow"})
"""Where the channels of an image vary fastest when it is flattened."""


def layout(framework: Framework, kind: str) -> Layout:
    """How ``framework`` stores a tensor of this kind; KeyError for one that it does not have."""
    return LAYOUTS[framework][kind]


def flattened_to_last(weight: Array, image: Sequence[int]) -> Array:
    """A canonical ``[O, C*H*W]`` matrix with its columns in the order of ``[H, W, C]``; ``image`` is ``[C, H, W]``."""
    return np.moveaxis(weight.reshape(len(weight), *image), 1, -1).reshape(weight.shape)


def flattened_to_first(weight: Array, image: Sequence[int]) -> Array:
    """The inverse of `flattened_to_last`."""
    return np.moveaxis(weight.reshape(len(weight), *image[1:], image[0]), -1, 1).reshape(weight.shape)
