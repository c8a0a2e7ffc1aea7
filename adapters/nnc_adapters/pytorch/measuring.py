"""How good a module of PyTorch is with other tensors: the hook of `nnc_core.optimize`, and of Part 18's functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import nn

from nnc_adapters.pytorch.calibration import evaluating
from nnc_core.nnr_model import Evaluation

__all__ = ["evaluation"]


def evaluation(
    module: nn.Module,
    measure: Callable[[nn.Module], float],
    tolerance: float = 0.0,
    *,
    bound: float | None = None,
    lower_is_better: bool = False,
) -> Evaluation:
    """The evaluation that puts tensors into ``module`` and has it measured, without gradients, in evaluation mode.

    ``measure`` returns the accuracy of the module, or with ``lower_is_better`` a loss; the other arguments are those of
    `nnc_core.Evaluation`. Tensors have the names of the state dict; those that are not given stay. Afterwards the
    module is as it was. RuntimeError for tensors that do not fit it.
    """

    def evaluate(tensors: Mapping[str, NDArray[Any]]) -> float:
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        given = {name: torch.tensor(array).reshape(before[name].shape) for name, array in tensors.items()}
        try:
            module.load_state_dict({**before, **given})
            with evaluating(module), torch.no_grad():
                return float(measure(module))
        finally:
            module.load_state_dict(before)

    return Evaluation(evaluate, tolerance, bound, lower_is_better)
