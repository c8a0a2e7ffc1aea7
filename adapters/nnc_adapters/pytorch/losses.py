"""Terms for the loss of a training that is to end in a small bitstream, and a hook that keeps what was reduced.

They go on top of the loss of the task, each with a factor of its own:

    loss = cross_entropy(module(images), labels) + 1.0 * compressibility_loss(module) + 1.0 * diversity_loss(module)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.hooks import RemovableHandle

from nnc_core.errors import ModelError

__all__ = ["compressibility_loss", "diversity_loss", "keep_zeros"]


def compressibility_loss(module: nn.Module) -> torch.Tensor:
    """How evenly the magnitudes of weights are spread, 0 to 1; the smaller, the fewer bits they take (clause 8).

    For each parameter with two dimensions or more the ratio of its norms, |w|_1 / |w|_2, by the largest that it can be;
    their mean. It does not depend on the scale of the weights: some become zero, and others may stay as they are.
    """
    ratios = [w.abs().sum() / _not_zero(w.norm()) / w.numel() ** 0.5 for w in _weights(module)]
    return torch.stack(ratios).mean()


def diversity_loss(module: nn.Module) -> torch.Tensor:
    """How much the rows of weights (filters, neurons) say the same, 0 to 1; superfluous ones fade away (clause 8).

    For each parameter with two dimensions or more the squared products of different rows, as a share of those of all;
    their mean. The share is taken of a constant, so that rows become different or small, and none grows instead.
    """
    shares = []
    for rows in (w.flatten(1) for w in _weights(module)):
        products = (rows @ rows.T).square()
        shares.append((products.sum() - products.diagonal().sum()) / _not_zero(products.sum().detach()))
    return torch.stack(shares).mean()


def _weights(module: nn.Module) -> list[torch.Tensor]:
    found: list[torch.Tensor] = [w for w in module.parameters() if w.ndim > 1]
    if not found:
        raise ModelError("the module has no parameters with two dimensions or more")
    return found


def _not_zero(value: torch.Tensor) -> torch.Tensor:
    return value.clamp_min(torch.finfo(value.dtype).tiny)


def keep_zeros(
    module: nn.Module, optimizer: torch.optim.Optimizer, gone: Mapping[str, NDArray[np.bool_]]
) -> RemovableHandle:
    """Set what is ``gone`` of the parameters to zero now and after every step of the optimizer, to train on.

    ``gone`` has boolean arrays by the names of parameters, such as the masks of `nnc_core.reduction`. The handle's
    ``remove`` ends that. Raises `ModelError` for a parameter that is missing, or has another shape.

    >>> module = nn.Linear(2, 1, bias=False)
    >>> handle = keep_zeros(module, torch.optim.SGD(module.parameters(), 0.1), {"weight": np.array([[True, False]])})
    >>> float(module.weight[0, 0])
    0.0
    """
    parameters = dict(module.named_parameters())
    for name, mask in gone.items():
        if name not in parameters or parameters[name].shape != mask.shape:
            raise ModelError(f"is not a parameter with the shape of its mask, {mask.shape}", tensor=name)
    masks = [(parameters[name], torch.tensor(mask, device=parameters[name].device)) for name, mask in gone.items()]

    def clear(*_: Any) -> None:
        with torch.no_grad():
            for parameter, mask in masks:
                parameter.masked_fill_(mask, 0)

    clear()
    return optimizer.register_step_post_hook(clear)
