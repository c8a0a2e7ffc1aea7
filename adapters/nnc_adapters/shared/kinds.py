"""What tensors are to a network, in words that all frameworks share: the rows of `nnc_adapters.convert.layouts`."""

from __future__ import annotations

from collections.abc import Mapping

from nnc_adapters.shared.dtypes import FLOATS
from nnc_core.nnr_model import SourceModel

__all__ = ["BACKWARD_KIND", "CELLS", "TURNED", "VECTORS", "Shapes", "shapes_of"]

Shapes = Mapping[str, tuple[int, ...]]

BACKWARD_KIND = ".backward"
"""How the kind of a tensor ends that belongs to the backward direction of a recurrent layer."""

CELLS = {4: "lstm", 3: "gru", 1: "rnn"}
"""Recurrent cells by the number of their gates."""

TURNED = {"dense": "dense_input_first", "dense_input_first": "dense"}
"""What a matrix is when it is transposed."""

VECTORS = ("bias", "shift", "scale", "mean", "variance")


def shapes_of(model: SourceModel) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of floats."""
    arrays = ((name, model.tensors[name]) for name in model.tensors)
    return {name: array.shape for name, array in arrays if array.dtype.name in FLOATS}
