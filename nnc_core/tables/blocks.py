"""The members of a block and their two orders (ISO/IEC 15938-17, NNR_PT_BLOCK): names in the header, tensors coded."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from functools import cache
from typing import Final

from nnc_core.tables.code_points import CompressedParameterTypes


class Member(Enum):
    """What a tensor is within its block."""

    WEIGHT = "weight"
    G = "G"
    H = "H"
    SCALING = "scaling"
    BETA = "beta"
    GAMMA = "gamma"
    MEAN = "mean"
    VAR = "var"
    BIAS = "bias"


HEADER_ORDER: Final = tuple(Member)
"""The order of the names in the header."""

PAYLOAD_ORDER: Final = (
    Member.SCALING,
    Member.BIAS,
    Member.BETA,
    Member.GAMMA,
    Member.MEAN,
    Member.VAR,
    Member.WEIGHT,
    Member.G,
    Member.H,
)
"""The order of the tensors in the payload."""

FACTORS: Final = (Member.G, Member.H)
WEIGHTS: Final = (Member.WEIGHT, *FACTORS)
"""The members that are not vectors."""
BATCH_NORM: Final = (Member.BETA, Member.GAMMA, Member.MEAN, Member.VAR)

_DC = CompressedParameterTypes.NNR_CPT_DC
_BN = CompressedParameterTypes.NNR_CPT_BN
_BI = CompressedParameterTypes.NNR_CPT_BI
_TYPE: Final = {
    Member.G: _DC,
    Member.H: _DC,
    Member.SCALING: CompressedParameterTypes.NNR_CPT_LS,
    **dict.fromkeys(BATCH_NORM, _BN),
    Member.BIAS: _BI,
}


@cache
def members(types: int) -> tuple[Member, ...]:
    """The members of a block with these ``compressed_parameter_types``, in header order."""
    weight = Member.G if types & _DC else Member.WEIGHT
    return tuple(m for m in HEADER_ORDER if (types & _TYPE[m] if m in _TYPE else m == weight))


@cache
def named_members(types: int, names: int) -> tuple[Member, ...]:
    """The members of a block with ``names`` names and these ``compressed_parameter_types``, in header order.

    Two readings of the types are in use, which exchange the bits of batch-norm and bias. They differ in the number of
    names, so that it tells which one is meant; there are no members if neither fits.
    """
    readings = (members(types), members(_exchanged(types)))
    return next((found for found in readings if len(found) == names), ())


def parameter_types(block: Iterable[Member]) -> CompressedParameterTypes:
    """The ``compressed_parameter_types`` of a block with these members."""
    types = CompressedParameterTypes(0)
    for member in block:
        types |= _TYPE.get(member, CompressedParameterTypes(0))
    return types


def _exchanged(types: int) -> int:
    others = types & ~(_BN | _BI)
    return others | (_BI if types & _BN else 0) | (_BN if types & _BI else 0)
