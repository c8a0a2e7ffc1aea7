"""What is in force at a place in a bitstream (clause 6.3)."""

from __future__ import annotations

from dataclasses import replace

from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.model_parameter_set import ModelParameterSet


def with_parameters(ctx: SyntaxContext, mps: ModelParameterSet) -> SyntaxContext:
    """Take over what a model parameter set says."""
    return replace(
        ctx,
        mps_parent_signalling_enabled_flag=mps.mps_parent_signalling_enabled_flag,
        mps_topology_indexed_reference_flag=mps.mps_topology_indexed_reference_flag,
    )
