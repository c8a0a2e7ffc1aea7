"""What the weights of PyTorch are, from their names in a state dict and their shapes."""

from __future__ import annotations

import re

from nnc_adapters.shared.kinds import BACKWARD_KIND, CELLS, Shapes

__all__ = ["kinds"]

_RNN = re.compile(r"(weight|bias)_(ih|hh)(_l\d+(?:_reverse)?)?")
_PLACES = {
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


def kinds(shapes: Shapes) -> dict[str, str | None]:
    """The kind of every tensor of a state dict."""
    return {name: _kind(name, shapes) for name in shapes}


def _kind(name: str, shapes: Shapes) -> str:
    prefix, dot, last = name.rpartition(".")
    found = _RNN.fullmatch(last)
    if found:
        state = shapes.get(f"{prefix}{dot}weight_hh{found[3] or ''}", ())
        cell = CELLS.get(state[0] // max(state[1], 1)) if len(state) == 2 else None
        end = BACKWARD_KIND if (found[3] or "").endswith("_reverse") else ""
        return f"{cell}.{_PLACES[found[1], found[2]]}{end}" if cell else "other"
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
