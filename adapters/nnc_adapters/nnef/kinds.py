"""What the variables of NNEF are, from the operations that use them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from nnc_adapters.nnef import syntax
from nnc_adapters.shared.kinds import TURNED, VECTORS, Shapes

__all__ = ["kinds"]

_KINDS: dict[tuple[str, str], str] = {
    **{(kind, "filter"): "conv" for kind in ("conv", "depthwise_conv")},
    ("deconv", "filter"): "deconv",
    ("linear", "filter"): "dense",
    ("matmul", "A"): "dense",
    ("matmul", "B"): "dense_input_first",
    **{(kind, "bias"): "bias" for kind in ("conv", "deconv", "linear")},
    ("batch_normalization", "mean"): "mean",
    ("batch_normalization", "variance"): "variance",
    ("batch_normalization", "offset"): "shift",
    ("batch_normalization", "scale"): "scale",
    ("prelu", "alpha"): "scale",
    **{("add", slot): "bias" for slot in "xy"},
    **{("mul", slot): "scale" for slot in "xy"},
}


def kinds(graph: bytes, shapes: Shapes) -> dict[str, str | None]:
    """The kind of every variable by its label, None where the operations do not tell."""
    variables: dict[object, str] = {}
    found: dict[str, set[str | None]] = {}
    for operation in syntax.parsed(graph).operations:
        name = operation.arguments.get("label")
        if operation.name == "variable" and isinstance(name, str):
            variables |= dict.fromkeys(operation.results, name)
            continue
        for slot, argument in operation.arguments.items():
            label = variables.get(argument) if isinstance(argument, syntax.Value) else None
            if label is not None and label in shapes:
                kind = _kind(operation.name, slot, operation.arguments, shapes[label])
                found.setdefault(label, set()).add(kind)
    return {label: next(iter(kinds)) if len(kinds) == 1 else None for label, kinds in found.items()}


def _kind(operation: str, slot: str, attributes: Mapping[str, Any], shape: tuple[int, ...]) -> str | None:
    kind = _KINDS.get((operation, slot))
    if kind in TURNED:
        turned = operation == "matmul" and attributes.get(f"transpose{slot}")
        return (TURNED[kind] if turned else kind) if len(shape) == 2 else None
    if kind in VECTORS and prod(shape) != max(shape, default=1):
        return None
    return kind
