"""What variables are for (ISO/IEC 15938-18, Table 3), as far as the names that Keras and its ancestors give them tell.

Weights have their output channels in the last dimension here, so that no blocks are formed of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from nnc_core.nnr_model import ParameterType

__all__ = ["by_name", "masks"]

_Shapes = Mapping[str, tuple[int, ...]]

_NORMS: dict[str, ParameterType] = {
    "gamma": "bn.gamma",
    "beta": "bn.beta",
    "moving_mean": "bn.mean",
    "moving_variance": "bn.var",
}
_STATISTICS = {"moving_mean", "moving_variance"}
_CONVOLUTIONS = {"depthwise_kernel", "pointwise_kernel", "depthwise_weights", "pointwise_weights"}
_MATRICES = {"kernel", "recurrent_kernel", "weights"}  # or convolutions, if they have more dimensions
_BIASES = {"bias", "biases"}


def by_name(shapes: _Shapes) -> dict[str, ParameterType]:
    """The roles of those variables whose name tells, from ``layer/variable`` names and shapes."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        layer, leaf = _split(name)
        layers.setdefault(layer, {})[leaf] = shape
    found = {name: _role(_split(name)[1], layers[_split(name)[0]]) for name in shapes}
    return {name: role for name, role in found.items() if role is not None}


_MASK = re.compile(
    r"(?P<layer>(?:.*?/)?prune_low_magnitude_[^/]*/)(?:.*/)?mask(?:_\d+)?(?::0)?|(?P<keys>.*/)pruning_vars/\d+/1"
)
_OF_WRAPPERS = re.compile(r"(?:mask|threshold|pruning_step)(?:_\d+)?(?::0)?")


def masks(shapes: _Shapes) -> dict[str, str]:
    """The masks of pruning wrappers (``PruneLowMagnitude``), each with the weight of its shape in the same layer.

    >>> layer = "prune_low_magnitude_dense/"
    >>> masks({layer + "dense/kernel:0": (4, 8), layer + "dense/bias:0": (8,), layer + "mask:0": (4, 8)})
    {'prune_low_magnitude_dense/mask:0': 'prune_low_magnitude_dense/dense/kernel:0'}
    """
    found: dict[str, str] = {}
    for mask, match in ((name, match) for name in shapes if (match := _MASK.fullmatch(name))):
        layer = match["layer"] or match["keys"]
        free = (name for name in shapes if name.startswith(layer) and name not in found.values() and _is_weight(name))
        weight = next((name for name in free if shapes[name] == shapes[mask]), None)
        if weight is not None:
            found[mask] = weight
    return found


def _is_weight(name: str) -> bool:
    return not (_MASK.fullmatch(name) or _OF_WRAPPERS.fullmatch(name.rpartition("/")[2]))


def _split(name: str) -> tuple[str, str]:
    layer, _, leaf = name.removesuffix(":0").rpartition("/")
    return layer, leaf


def _role(leaf: str, layer: _Shapes) -> ParameterType | None:
    if leaf in _NORMS and layer.keys() >= _STATISTICS:
        return _NORMS[leaf]
    if leaf == "embeddings":
        return "fc.weight"
    if leaf in _BIASES:
        return _bias(leaf, layer)
    return _weight(leaf, layer[leaf])


def _weight(leaf: str, shape: tuple[int, ...]) -> ParameterType | None:
    if leaf in _CONVOLUTIONS or (leaf in _MATRICES and len(shape) >= 4):
        return "conv.weight"
    # three dimensions: a convolution over time, or a matrix that is split into heads
    return "fc.weight" if leaf in _MATRICES and len(shape) == 2 else None


def _bias(leaf: str, layer: _Shapes) -> ParameterType | None:
    weights = {_weight(other, shape) for other, shape in layer.items()}
    if "conv.weight" in weights:
        return "conv.bias"
    return "fc.bias" if "fc.weight" in weights or len(layer[leaf]) > 1 else None
