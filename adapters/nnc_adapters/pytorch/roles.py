"""What the tensors of a state dict are for (ISO/IEC 15938-18, Table 3), from their names and shapes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from nnc_core.nnr_model import ModelInfo, ParameterType

Shapes = Mapping[str, tuple[int, ...]]
Roles = dict[str, ParameterType]

NORM: dict[str, ParameterType] = {
    "weight": "bn.gamma",
    "bias": "bn.beta",
    "running_mean": "bn.mean",
    "running_var": "bn.var",
}
_RECURRENT = re.compile(r"(weight|bias)_(ih|hh|hr)_l\d+(_reverse)?|(weight|bias)_(ih|hh)")
_PROJECTIONS = {"in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"}


def from_names(shapes: Shapes) -> ModelInfo:
    """The roles of the tensors whose names tell, and their blocks; of the others nothing is said."""
    modules: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name in shapes:
        module, _, parameter = name.rpartition(".")
        modules[module][parameter] = name
    found: Roles = {}
    for members in modules.values():
        found.update(_module(members, shapes))
    return info(found, shapes, modules)


def masks(names: Collection[str]) -> dict[str, str]:
    """The masks of ``torch.nn.utils.prune`` with the weights that they belong to, by name.

    >>> masks(["fc.weight_orig", "fc.weight_mask", "token_mask"])
    {'fc.weight_mask': 'fc.weight_orig'}
    """
    found = {name: f"{name.removesuffix('_mask')}_orig" for name in names if name.endswith("_mask")}
    return {mask: weight for mask, weight in found.items() if weight in names}


def info(found: Roles, shapes: Shapes, modules: Mapping[str, Mapping[str, str]]) -> ModelInfo:
    """``found`` and the blocks of ``modules``, in the order of the model."""
    return ModelInfo(parameter_type=found, block_identifier=dict(_blocks(found, shapes, modules)))


def _module(members: Mapping[str, str], shapes: Shapes) -> Iterator[tuple[str, ParameterType]]:
    """The roles of the tensors of one module, by their names in it."""
    weight = shapes.get(members.get("weight", ""), ())
    for parameter, name in members.items():
        role = _special(parameter)
        if role is None and {"running_mean", "running_var"} <= members.keys() and len(shapes[name]) == 1:
            role = NORM.get(parameter)
        if role is None and parameter in ("weight", "bias") and weight:
            role = _ordinary(parameter, len(weight))
        if role is not None:
            yield name, role


def _special(parameter: str) -> ParameterType | None:
    if _RECURRENT.fullmatch(parameter) or parameter in _PROJECTIONS:
        return "fc.weight" if "weight" in parameter else "fc.bias"
    return "fc.bias" if parameter == "in_proj_bias" else None


def _ordinary(parameter: str, dimensions: int) -> ParameterType:
    """The role of ``weight`` or ``bias`` beside a weight of so many dimensions."""
    if dimensions == 1:
        return "unspecified"  # of a normalization without statistics, or an activation
    if parameter == "weight":
        return "fc.weight" if dimensions == 2 else "conv.weight"
    return "fc.bias" if dimensions == 2 else "conv.bias"


def _blocks(found: Roles, shapes: Shapes, modules: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """Tensor name -> block: a weight, its bias, and the batch normalization beside it that directly follows.

    All members have one number for each output channel, dimension 0 of the weight.
    """
    block, parent, complete = "", "", False
    for module, members in modules.items():
        here, weight = module.rpartition(".")[0], members.get("weight", "")
        kinds = {found.get(name) for name in members.values()}
        rows = shapes.get(weight, (0,))[0]
        vectors = [name for name in members.values() if name != weight and shapes[name] == (rows,)]
        if found.get(weight) in ("conv.weight", "fc.weight"):
            block, parent, complete = weight, here, False
            companions = [name for name in vectors if found.get(name) in ("conv.bias", "fc.bias")]
        elif block and not complete and here == parent and kinds >= set(NORM.values()) and rows == shapes[block][0]:
            companions, complete = [weight, *vectors], True
        else:
            block, companions = "", []
        for name in companions:
            yield name, block
        if companions:
            yield block, block
