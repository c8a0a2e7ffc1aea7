"""What the weights of Keras 3 files are where no configuration tells: from the names that Keras gives to layers, which
are those of their classes, and from how many weights there are."""

from __future__ import annotations

import re
from collections.abc import Sequence

from nnc_adapters.shared.kinds import BACKWARD_KIND
from nnc_adapters.tensorflow.keras_files import Path, Variables

__all__ = ["kinds_by_layer_names"]

Shape = tuple[int, ...]

_COUNTED = re.compile(r"_\d+$")
_SPATIAL = ("1d", "2d", "3d")
_CELLS = {"lstm_cell": (4, "lstm"), "gru_cell": (3, "gru"), "simple_rnn_cell": (1, "rnn")}
_ORDERS: dict[str, tuple[str, ...]] = {
    "dense": ("dense", "bias"),
    **{f"conv{n}": ("conv", "bias") for n in _SPATIAL},
    **{f"conv{n}_transpose": ("deconv", "bias") for n in _SPATIAL},
    **{f"depthwise_conv{n}": ("depthwise", "bias") for n in _SPATIAL},
    **{f"separable_conv{n}": ("depthwise", "conv", "bias") for n in _SPATIAL},
    **dict.fromkeys(("query", "key", "value"), ("heads", "bias")),
    "attention_output": ("heads_first", "bias"),
    "embedding": ("embedding",),
    "p_re_lu": ("scale",),
}


def kinds_by_layer_names(variables: Variables) -> dict[str, str | None]:
    """The kinds of numbered variables; None where there are several possibilities."""
    found: dict[str, str | None] = {}
    for path, group in variables.groups.items():
        if path and all(leaf.isdecimal() for leaf in group):
            names = [group[leaf] for leaf in sorted(group, key=int)]
            shapes = [variables.shapes[name] for name in names]
            found.update(zip(names, _kinds(path, shapes), strict=True))
    return found


def _kinds(path: Path, shapes: Sequence[Shape]) -> Sequence[str | None]:
    name, count = _COUNTED.sub("", path[-1]), len(shapes)
    if name == "batch_normalization":
        # without scale or without shift: which of the two is there cannot be seen
        first: dict[int, list[str | None]] = {4: ["scale", "shift"], 3: [None], 2: []}
        return [*first[count], "mean", "variance"] if count in first else [None] * count
    if name in ("layer_normalization", "group_normalization"):
        return [*(("scale", "shift") if count == 2 else [None] * count)]
    if name in _CELLS:
        return _cell(path, name, shapes)
    order = _ORDERS.get(name) or _by_shapes(shapes)
    return [*order[:count], *[None] * (count - len(order))]


def _cell(path: Path, name: str, shapes: Sequence[Shape]) -> Sequence[str | None]:
    gates, cell = _CELLS[name]
    end = BACKWARD_KIND if any(piece.startswith("backward") for piece in path) else ""
    if len(shapes) < 2 or len(shapes[1]) != 2 or shapes[1][1] != gates * shapes[1][0]:
        return [None] * len(shapes)
    if cell == "gru" and len(shapes) == 2:
        return [None, None]  # whether it resets before or after the product would show in the bias
    if cell == "gru" and len(shapes[2]) == 1:
        cell = "gru_reset_before"
    return [f"{cell}.{place}{end}" for place, _ in zip(("input", "state", "bias"), shapes, strict=False)]


def _by_shapes(shapes: Sequence[Shape]) -> Sequence[str | None]:
    """A layer that somebody named: a kernel, and a bias that tells which axis the outputs are in."""
    kernel, biases = shapes[0], shapes[1:]
    if len(kernel) == 2 and biases in ([], [kernel[1:]]):
        return ["dense", "bias"]
    if len(kernel) not in (3, 4, 5) or len(biases) != 1:
        return [None] * len(shapes)
    sizes = {"conv": kernel[-1], "deconv": kernel[-2], "depthwise": kernel[-1] * kernel[-2]}
    fitting = [kind for kind, size in sizes.items() if biases[0] == (size,)]
    return [fitting[0], "bias"] if len(fitting) == 1 else [None, "bias"]
