"""Blocks of a model: a weight with what belongs to it (ISO/IEC 15938-18, Table 3, ``block_identifier``)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from nnc_core.nnr_model.model_info import ModelInfo
from nnc_core.records import dataclass
from nnc_core.tables.blocks import BATCH_NORM, Member

MEMBERS: Final = {
    "conv.weight": Member.WEIGHT,
    "fc.weight": Member.WEIGHT,
    "conv.bias": Member.BIAS,
    "fc.bias": Member.BIAS,
    "bn.beta": Member.BETA,
    "bn.gamma": Member.GAMMA,
    "bn.mean": Member.MEAN,
    "bn.var": Member.VAR,
}
"""The place of each parameter type in a block."""

_SUFFIXES: Final = {Member.SCALING: "_scaling", Member.BIAS: ".bias", Member.G: "_G", Member.H: "_H"}

ADDED: Final = tuple(_SUFFIXES)
"""The members that approximation may add to a block."""


@dataclass(frozen=True, slots=True)
class Block:
    """A weight and what belongs to it, by name; a lone tensor is a block whose only member is its weight."""

    identifier: str
    names: Mapping[Member, str]

    @property
    def weight(self) -> str:
        """The name of the weight, also where its factors stand for it."""
        return self.names[Member.WEIGHT]

    def name(self, member: Member) -> str:
        """The name of a member; of one that approximation adds, a name that follows from the weight's."""
        return self.names.get(member) or derived_name(self.weight, member)


def derived_name(weight: str, member: Member) -> str:
    """The name of a tensor that approximation adds to a weight: its scaling, its factors, a bias from batch-norm."""
    return weight + _SUFFIXES[member]


def member_names(model_info: ModelInfo, identifier: str) -> dict[Member, str]:
    """The names that ``model_info`` has for the members of a block."""
    types = model_info.get("parameter_type", {})
    found = {
        MEMBERS.get(types.get(name, "unspecified")): name
        for name, block in model_info.get("block_identifier", {}).items()
        if block == identifier
    }
    return {member: name for member, name in found.items() if member is not None}


def blocks(model_info: ModelInfo, names: Iterable[str]) -> Iterator[Block]:
    """The blocks of the tensors ``names``, in their order or that of ``parameter_index``, each in its weight's place.

    Tensors that do not fit into a block, because it has no weight or two of a kind, or a part of a batch-norm only,
    stand alone.
    """
    index = model_info.get("parameter_index", {})
    ordered = sorted(names, key=lambda name: index.get(name, len(index)))
    joined = _joined(model_info, ordered)
    inside = {name for block in joined.values() for name in block.names.values()}
    for name in ordered:
        if name in joined:
            yield joined[name]
        elif name not in inside:
            yield Block(name, {Member.WEIGHT: name})


def _joined(model_info: ModelInfo, names: Iterable[str]) -> dict[str, Block]:
    """The blocks that ``model_info`` speaks of, by the name of the weight."""
    types, identifiers = model_info.get("parameter_type", {}), model_info.get("block_identifier", {})
    groups: dict[str, list[tuple[Member, str]]] = {}
    for name in names:
        if name in identifiers and (member := MEMBERS.get(types.get(name, "unspecified"))) is not None:
            groups.setdefault(identifiers[name], []).append((member, name))
    found = (Block(identifier, dict(group)) for identifier, group in groups.items() if _is_block(group))
    return {block.weight: block for block in found}


def _is_block(group: list[tuple[Member, str]]) -> bool:
    kinds = [member for member, _ in group]
    batch_norm = sum(member in BATCH_NORM for member in kinds)
    return len(set(kinds)) == len(kinds) and Member.WEIGHT in kinds and batch_norm in (0, len(BATCH_NORM))
