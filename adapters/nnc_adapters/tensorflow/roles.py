"""What variables are for (ISO/IEC 15938-18, Table 3), as far as the names that Keras and its ancestors give them tell.

Weights have their output channels in the last dimension here, so that no blocks are formed of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nnc_core.nnr_model import ParameterType

__all__ = ["by_name"]

_Shapes = Mapping[str, tuple[int, ...]]
_Rule = Callable[[tuple[int, ...], _Shapes], "ParameterType | None"]

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
