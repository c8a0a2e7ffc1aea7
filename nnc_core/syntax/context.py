"""What a syntax table is told beside its record: parameter sets in force, references, parameters from outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import NamedTuple

from nnc_core.limits import Limits
from nnc_core.records import dataclass


@dataclass(frozen=True, slots=True)
class InputParameters:
    """Input parameters of a tensor that reach the decoder by other ways than the data unit; ``None``: not known."""

    tensor_dimensions: tuple[int, ...] | None = None
    cabac_unary_length_minus1: int | None = None
    compressed_parameter_types: int | None = None
    decomposition_rank: int | None = None
    g_number_of_rows: int | None = None


def nothing_known(topology_elem_id: str) -> InputParameters | None:
    """Know no input parameters of any tensor."""
    return None


class Decomposition(NamedTuple):
    """What the headers of two factors G and H in units of their own have in common."""

    tensor_dimensions: tuple[int, ...]
    decomposition_rank: int | None
    g_number_of_rows: int | None


@dataclass(frozen=True, slots=True)
class SyntaxContext:
    """What a syntax table needs from other units and from outside the bitstream.

    ``block_partitioning`` tells that tensors are cut into blocks, for the hints of aggregate units;
    ``topology_elements`` is the reference list that indices point into. ``input_parameters`` looks up what is known
    of a tensor by its name. ``factor_g`` is the decomposition that the data unit just before began, if that one holds
    the factor G alone: a unit in hand with the same decomposition holds H.
    """

    general_profile_idc: int = 1
    mps_parent_signalling_enabled_flag: bool = False
    mps_topology_indexed_reference_flag: bool = False
    block_partitioning: bool = False
    topology_elements: tuple[str, ...] = ()
    input_parameters: Callable[[str], InputParameters | None] = nothing_known
    factor_g: Decomposition | None = None
    limits: Limits = field(default_factory=Limits)
