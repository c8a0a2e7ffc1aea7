"""Updates of networks whose batch-norm is folded (clause 8.3.8): differences of foldings, not folded differences.

Folding is not linear. So both ends keep the model in its folded form, as the base of the chain; a receiver unfolds what
it has when it needs the network, and never what it goes on from.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from nnc_core.approximator import part18
from nnc_core.approximator.data import ApproxData
from nnc_core.nnr_model import ModelInfo
from nnc_core.nnr_model.blocks import member_names
from nnc_core.tables.blocks import Member, parameter_types

__all__ = ["fold_batch_norm", "unfold_batch_norm"]

Tensors = Mapping[str, NDArray[Any]]


def fold_batch_norm(model: Tensors, model_info: ModelInfo) -> dict[str, NDArray[Any]]:
    """The model with a scaling and a bias (float32) in the place of each batch-norm that ``model_info`` knows."""
    data = ApproxData(parameters=dict(model))
    return dict(part18.fold_bn(model_info, data)["parameters"])


def unfold_batch_norm(model: Tensors, model_info: ModelInfo) -> dict[str, NDArray[Any]]:
    """The network of a folded model, with scaled weights and a batch-norm that adds what folding left for it."""
    folded = int(parameter_types([Member.SCALING, Member.BIAS]))
    identifiers = set(model_info.get("block_identifier", {}).values())
    types = {each: folded for each in identifiers if Member.GAMMA in member_names(model_info, each)}
    data = ApproxData(parameters=dict(model), compressed_parameter_types=types)
    part18.unfold_bn(model_info, data)
    return dict(part18.apply_lsa(model_info, data)["parameters"])
