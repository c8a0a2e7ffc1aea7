"""One update of one tensor as a data unit: the contexts of the updates before it are used where they save bytes."""

from __future__ import annotations

from typing import Final, NamedTuple

from nnc_core.approximator.approximation import Approximation
from nnc_core.coder.encoder import CodedUnit, Coding, CodingBlock, Node, encode_block
from nnc_core.coder.history import History
from nnc_core.coder.payload import Effort
from nnc_core.tables.blocks import Member

__all__ = ["CODING", "CodedUpdate", "coded_update"]

CODING: Final = Coding(
    qp_density=4, temporal_context_modeling_flag=True, effort=Effort(hist_dep_sig_prob_enabled_flag=True)
)
"""All that saves bytes, and steps that are fine enough to follow the size of a change."""


class CodedUpdate(NamedTuple):
    """A data unit, and what it leaves for the next update of its tensor."""

    unit: CodedUnit
    history: History


def coded_update(name: str, tensor: Approximation, history: History, coding: Coding) -> CodedUpdate | None:
    """Code an update that follows on ``history``; None where it is all zero."""
    node = Node(
        device_id=history.device_id or 0,
        parameter_id=history.parameter_id or 0,
        parent_node_id_present_flag=True,
        parent_device_id=history.device_id or 0,
    )
    before = {name: history}
    names = {Member.WEIGHT: name}
    for unit in encode_block(CodingBlock({Member.WEIGHT: tensor}, names, tensor.values.shape, node, before), coding):
        return CodedUpdate(unit, unit.histories(before)[name])
    return None
