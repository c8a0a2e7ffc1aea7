"""What the variables of TensorFlow and Keras are, from how they and their layers are called."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from nnc_adapters.shared.kinds import BACKWARD_KIND, CELLS, Shapes, shapes_of
from nnc_adapters.tensorflow.hdf5 import plain_name
from nnc_adapters.tensorflow.keras_files import KERAS, read_keras
from nnc_adapters.tensorflow.keras_names import kinds_by_layer_names
from nnc_adapters.tensorflow.manifest import Manifest
from nnc_core.nnr_model import ModelInfo, ParameterType, SourceModel

__all__ = ["kinds_by_names", "kinds_of"]

_HEADS = {**dict.fromkeys(("query", "key", "value"), "heads"), "attention_output": "heads_first"}
_KERNELS = ("kernel", "weights", "w", "W")
_KINDS: dict[str, str] = {
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


def kinds_of(model: SourceModel, manifest: Manifest) -> dict[str, str | None]:
    """The kind of every variable; None where nothing tells. In TFLite, names tell nothing."""
    if manifest.kind == "tflite":
        return {}
    shapes = shapes_of(model)
    found = kinds_by_names(shapes, model.model_info)
    if manifest.kind in KERAS:
        found |= kinds_by_layer_names(read_keras(manifest, shapes).variables)
    return found


def kinds_by_names(shapes: Shapes, info: ModelInfo) -> dict[str, str | None]:
    """The kind of every variable: from its name and its layer's, then from its role; None where neither says it."""
    layers: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name in shapes:
        layer, _, last = plain_name(name).partition(":")[0].rpartition("/")
        layers[layer][last] = name
    roles = info.get("parameter_type", {})
    kinds: dict[str, str | None] = {}
    for layer, members in layers.items():
        cell = _keras_cell(members, shapes)
        for last, name in members.items():
            kinds[name] = _cell_kind(cell, last, layer) or _variable_kind(
                layer, last, len(shapes[name]), roles.get(name)
            )
    return {name: kinds[name] for name in shapes}


def _keras_cell(members: Mapping[str, str], shapes: Shapes) -> str | None:
    state = shapes.get(members.get("recurrent_kernel", ""), ())
    if len(state) != 2 or not state[0]:
        return None
    cell = CELLS.get(state[1] // state[0])
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
    if last in _KERNELS or (last not in _KINDS and role in ("conv.weight", "fc.weight")):
        return _kernel_kind(layer.rpartition("/")[2], rank)
    return _KINDS.get(last) or _ROLES.get(role or "unspecified")


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
