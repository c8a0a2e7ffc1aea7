"""How frameworks lay out weights: one table, and what its entries do to an array.

Every entry leads to and from one *canonical* form, that of PyTorch: convolutions ``[O, I/g, k...]``, transposed ones
``[I, O/g, k...]``, matrices ``[O, I]`` (which convolutions by single positions are, too), embeddings ``[V, D]``,
vectors ``[C]``. Recurrent cells are in `cells`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal, get_args

import numpy as np

from nnc_adapters.convert.cells import BIASES, Backward, GateBias, GateBiases, Gates, SumOfBiases
from nnc_adapters.convert.parts import Array, Layout, Part, Shape
from nnc_adapters.shared.kinds import BACKWARD_KIND
from nnc_core.records import dataclass

__all__ = ["CHANNELS_LAST", "LAYOUTS", "Framework", "Same", "framework", "layout"]

Framework = Literal["pytorch", "tensorflow", "tflite", "onnx", "nnef"]


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
        return [Part(self.role, self._matrix(tuple(shape[axis] for axis in self._permutation(len(shape)))))]

    def split(self, array: Array) -> list[Array]:
        """One permuted array."""
        found = array.transpose(self._permutation(array.ndim))
        return [found.reshape(self._matrix(found.shape))]

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """The permutation undone."""
        permutation = self._permutation(len(shape))
        whole = parts[0].reshape([shape[axis] for axis in permutation])
        return np.transpose(whole, [permutation.index(axis) for axis in range(len(shape))])

    def _matrix(self, shape: Shape) -> Shape:
        """A convolution by single positions is a matrix product."""
        return shape[:2] if self.canonical == "OI*" and prod(shape[2:]) == 1 else shape


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
class DepthwiseRows:
    """``[1, k..., C*M]``, as TensorFlow Lite has it; canonical as for `Depthwise`."""

    def parts(self, shape: Shape) -> list[Part]:
        """One part; see `Layout`."""
        if len(shape) < 3 or shape[0] != 1:
            raise ValueError(f"a depthwise kernel cannot have the shape {shape}")
        return [Part("weight", (shape[-1], 1, *shape[1:-1]))]

    def split(self, array: Array) -> list[Array]:
        """Filters first."""
        return [np.moveaxis(array, -1, 0)]

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """Filters last."""
        return np.moveaxis(parts[0], 0, -1)


@dataclass(frozen=True, slots=True)
class Heads:
    """The matrix of an attention layer with its heads apart: ``[E, H, D]``, or ``[H, D, E]`` if they are the inputs."""

    inputs: bool = False

    def parts(self, shape: Shape) -> list[Part]:
        """One part; see `Layout`."""
        if len(shape) != 3:
            raise ValueError(f"a matrix with heads cannot have {len(shape)} dimensions")
        rows = shape[:2] if self.inputs else shape[:1]
        return [Part("weight", (prod(shape[len(rows) :]), prod(rows)))]

    def split(self, array: Array) -> list[Array]:
        """Outputs first."""
        return [np.transpose(array.reshape(self.parts(array.shape)[0].shape[::-1]))]

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """Outputs last."""
        return np.reshape(parts[0].T, shape)


@dataclass(frozen=True, slots=True)
class Stacked:
    """Queries, keys and values of attention one behind the other: matrices ``[3*E, I]`` or vectors ``[3*E]``."""

    role: str
    count: int = 3
    transposed: bool = False

    def parts(self, shape: Shape) -> list[Part]:
        """One part for each; see `Layout`."""
        rows = shape[::-1] if self.transposed else shape
        if not rows or rows[0] % self.count or (self.role == "weight") != (len(shape) == 2):
            raise ValueError(f"shape {shape} is not that of {self.count} projections")
        return [Part(self.role, (rows[0] // self.count, *rows[1:]))] * self.count

    def split(self, array: Array) -> list[Array]:
        """Each for itself."""
        return np.split(array.T if self.transposed else array, self.count)

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """One behind the other."""
        return np.concatenate([part.T for part in parts], 1) if self.transposed else np.concatenate(parts)


@dataclass(frozen=True, slots=True)
class Vector:
    """One number for each channel, or for each position of several axes; canonical is one axis."""

    role: str

    def parts(self, shape: Shape) -> list[Part]:
        """One part; see `Layout`."""
        return [Part(self.role, (prod(shape),))]

    def split(self, array: Array) -> list[Array]:
        """One flat array."""
        return [array.reshape(-1)]

    def join(self, parts: Sequence[Array], shape: Shape) -> Array:
        """In the shape of the tensor."""
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


def _pytorch_cell(cell: str, gates: str) -> dict[str, Layout]:
    return {
        f"{cell}.input": Gates(cell, gates, "input_weight"),
        f"{cell}.state": Gates(cell, gates, "state_weight"),
        **{f"{cell}.{role}": GateBias(cell, gates, role) for role in BIASES},
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
    "projections": Stacked("weight"),
    "projections_input_first": Stacked("weight", transposed=True),
    "projection_biases": Stacked("bias"),
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
        "heads": Heads(),
        "heads_first": Heads(inputs=True),
        **_keras_cell("lstm", "ifco"),
        **_keras_cell("gru", "zrh"),
        **_keras_cell("gru_reset_before", "zrh"),
        **_keras_cell("rnn", "h"),
    },
    "tflite": {
        **_COMMON,
        "conv": Axes("O*I", "OI*"),
        "deconv": Axes("O*I", "IO*"),
        "depthwise": DepthwiseRows(),
        "dense": Axes("OI", "OI"),
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

CHANNELS_LAST: frozenset[str] = frozenset({"tensorflow", "tflite"})
"""Where the channels of an image vary fastest when it is flattened."""


def layout(framework: Framework, kind: str) -> Layout:
    """How ``framework`` stores a tensor of this kind; KeyError for one that it does not have."""
    if kind.endswith(BACKWARD_KIND):
        return Backward(LAYOUTS[framework][kind.removesuffix(BACKWARD_KIND)])
    return LAYOUTS[framework][kind]


def framework(name: str) -> Framework | None:
    """The framework of this name, None where weights of it have no known layout."""
    return next((known for known in get_args(Framework) if known == name), None)
