"""What the weights of PyTorch and TensorFlow are, from how these name them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

from nnc_adapters.convert.layouts import BACKWARD_KIND
from nnc_adapters.tensorflow.hdf5 import plain_name
from nnc_core.nnr_model import ModelInfo, ParameterType

__all__ = ["pytorch_kinds", "tensorflow_kinds"]

Shapes = Mapping[str, tuple[int, ...]]

_CELLS = {4: "lstm", 3: "gru", 1: "rnn"}
_PYTORCH_RNN = re.compile(r"(weight|bias)_(ih|hh)(_l\d+(?:_reverse)?)?")
_PYTORCH_PLACES = {
    ("weight", "ih"): "input",
    ("weight", "hh"): "state",
    ("bias", "ih"): "input_bias",
    ("bias", "hh"): "state_bias",
}
_PROJECTIONS = {
    "in_proj_weight": "projections",
    "in_proj_bias": "projection_biases",
    **dict.fromkeys(("q_proj_weight", "k_proj_weight", "v_proj_weight"), "dense"),
}
_VECTORS = {"weight": "scale", "running_mean": "mean", "running_var": "variance"}


def pytorch_kinds(shapes: Shapes) -> dict[str, str]:
    """The kind of every tensor of a state dict."""
    return {name: _pytorch_kind(name, shapes) for name in shapes}


def _pytorch_kind(name: str, shapes: Shapes) -> str:
    prefix, dot, last = name.rpartition(".")
    found = _PYTORCH_RNN.fullmatch(last)
    if found:
        state = shapes.get(f"{prefix}{dot}weight_hh{found[3] or ''}", ())
        cell = _CELLS.get(state[0] // max(state[1], 1)) if len(state) == 2 else None
        end = BACKWARD_KIND if (found[3] or "").endswith("_reverse") else ""
        return f"{cell}.{_PYTORCH_PLACES[found[1], found[2]]}{end}" if cell else "other"
    if last in _PROJECTIONS:
        return _PROJECTIONS[last]
    rank = len(shapes[name])
    if rank > 1 and last in ("weight", "bias"):
        pair = [shapes.get(f"{prefix}{dot}{other}") for other in ("weight", "bias")]
        if pair[0] == pair[1]:  # normalization over several axes
            return "scale" if last == "weight" else "shift"
    if rank == 1 and last == "bias":
        return "shift" if len(shapes.get(f"{prefix}{dot}weight", ())) == 1 else "bias"
    if rank == 1:
        return _VECTORS.get(last, "other")
    if last != "weight":
        return "other"
    # the kernels of transposed and depthwise convolutions and embeddings are in canonical form as well
    return "dense" if rank == 2 else "conv"


_HEADS = {**dict.fromkeys(("query", "key", "value"), "heads"), "attention_output": "heads_first"}
_KERNELS = ("kernel", "weights", "w", "W")
_TENSORFLOW: dict[str, str] = {
    "bias": "bias",
    "biases": "bias",
    "b": "bias",
    "beta": "shift",
    "gamma": "scale",
    "moving_mean": "mean",
    "moving_variance": "variance",
    "embeddings": "embedding",
    "depthwise_kernel": "depthwise",
    "pointwise_kernel": "conv",
}
_ROLES: dict[ParameterType, str] = {
    "conv.weight": "conv",
    "fc.weight": "dense",
    "conv.bias": "bias",
    "fc.bias": "bias",
    "bn.gamma": "scale",
    "bn.beta": "shift",
    "bn.mean": "mean",
    "bn.var": "variance",
}


def tensorflow_kinds(shapes: Shapes, info: ModelInfo) -> dict[str, str | None]:
    """The kind of every variable: from its name and its layer's, then from its role; None where neither says it."""
    layers: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name in shapes:
        layer, _, last = plain_name(name).partition(":")[0].rpartition("/")
        layers[layer][last] = name
    roles = info.get("parameter_type", {})
    kinds: dict[str, str | None] = {}
    for layer, members in layers.items():
        cell = _keras_cell(layer, members, shapes)
        for last, name in members.items():
            kinds[name] = _cell_kind(cell, last, layer) or _variable_kind(
                layer, last, len(shapes[name]), roles.get(name)
            )
    return {name: kinds[name] for name in shapes}


def _keras_cell(layer: str, members: Mapping[str, str], shapes: Shapes) -> str | None:
    state = shapes.get(members.get("recurrent_kernel", ""), ())
    if len(state) != 2 or not state[0]:
        return None
    cell = _CELLS.get(state[1] // state[0])
    if cell != "gru":
        return cell
    if "bias" not in members:
        return "unknown gru"  # without a bias nothing tells the two kinds apart
    return "gru" if len(shapes[members["bias"]]) == 2 else "gru_reset_before"


def _cell_kind(cell: str | None, last: str, layer: str) -> str | None:
    place = {"kernel": "input", "recurrent_kernel": "state", "bias": "bias"}.get(last)
    end = BACKWARD_KIND if any(piece.startswith("backward") for piece in layer.split("/")) else ""
    return f"{cell}.{place}{end}" if cell and place else None


def _variable_kind(layer: str, last: str, rank: int, role: ParameterType | None) -> str | None:
    if last in _KERNELS or (last not in _TENSORFLOW and role in ("conv.weight", "fc.weight")):
        return _kernel_kind(layer.rpartition("/")[2], rank)
    return _TENSORFLOW.get(last) or _ROLES.get(role or "unspecified")


def _kernel_kind(layer: str, rank: int) -> str | None:
    if rank == 3 and layer in _HEADS:
        return _HEADS[layer]
    if rank == 2:
        return "dense"
    if rank < 2:
        return None
    if "depthwise" in layer:
        return "depthwise"
    return "deconv" if "transpose" in layer else "conv"
