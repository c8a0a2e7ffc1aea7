"""Modules of PyTorch with local scaling (clause 8.3.9): steps of each row from gradients, and factors that are trained.

A row of a weight that the loss minds more gets a finer step: it is divided by a factor before quantization, and the
bitstream has the factor as local scaling. The factors can then be trained on, with all weights as the decoder has them.
Any decoder of the standard reads the result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import nnc_core
from nnc_adapters.pytorch.calibration import evaluating, recording
from nnc_core import CodingParameters, Method, ModelPlan, SourceModel
from nnc_core.approximator.approximation import Approximation, quantized, reconstructed
from nnc_core.approximator.calibrated import LayerInputs, quantize_calibrated
from nnc_core.approximator.data import ApproxData, empty
from nnc_core.approximator.part18 import restored
from nnc_core.approximator.step import step_size
from nnc_core.coder import part18 as coder
from nnc_core.errors import ModelError
from nnc_core.nnr_model import ModelInfo
from nnc_core.nnr_model.blocks import derived_name
from nnc_core.tables.blocks import Member, parameter_types

__all__ = ["compress_scaled", "fisher_information", "row_scaling"]

Loss = Callable[[Callable[..., Any], Any], torch.Tensor]
"""The loss for a batch of any kind, a scalar, of a module that is to be called."""

Scaling = dict[str, NDArray[np.float32]]
_COARSE, _FINE = 4, 6
"""Negative logarithms of the steps of factors: rows are divided by rounded ones, and trained ones must be finer."""

_BOUNDS = (0.25, 4.0)

_DENSITY = 2
"""``qp_density`` of factors by themselves; their steps are whole powers of two, so that any other will do."""


def compress_scaled(
    module: nn.Module,
    batches: Iterable[Any],
    loss: Loss,
    *,
    parameters: CodingParameters | None = None,
    rows: bool = True,
    epochs: int = 0,
    learning_rate: float = 1e-3,
) -> bytes:
    """The bitstream of a module whose weights have local scaling, for `nnc_adapters.pytorch.load`.

    ``loss(module, batch)`` is a scalar; it is taken of all ``batches``, which may be of any kind. Linear and
    convolutional weights are quantized for the least error of their outputs, as with ``calibrate`` of `compress`, and
    with ``rows`` the steps of each row follow the gradients of the loss. In each of the ``epochs`` the factors of all
    rows are trained on all batches (Adam), while the weights stay. ``parameters`` are those of the weights divided by
    their factors; the factors come on top of a target. The module is left as it was. Raises `ModelError` without
    batches, and for a loss that is not finite.
    """
    batches = list(batches)
    if not batches:
        raise ModelError("there are no batches to take the loss of")
    state = {name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()}
    with evaluating(module), recording(module) as recorder:
        information = fisher_information(module, batches, loss)
    layers = {name: each for name, each in recorder.layers.items() if name in state}
    # Where rows are inputs, other factors would be needed.
    chosen = {name: information[name] for name, each in layers.items() if name in information and not each.input_first}
    factors = {name: row_scaling(each) if rows else np.ones(len(each), np.float32) for name, each in chosen.items()}
    dq_flag = parameters is None or parameters.dq_flag
    rounded = {name: _rounded(each, _COARSE, dq_flag) for name, each in factors.items()}
    scaling = {name: reconstructed(each, _DENSITY).values for name, each in rounded.items()}
    gains = {name: float(np.mean(each * np.square(scaling[name]))) for name, each in chosen.items()}
    tensors = {**state, **{name: state[name] / _along_rows(each, state[name]) for name, each in scaling.items()}}
    model = SourceModel(tensors, inputs=layers, sensitivities=gains)
    data = _approximated(model, nnc_core.plan(model, parameters))
    if epochs:
        with evaluating(module):
            trained = _trained(module, data, scaling, batches, loss, learning_rate, epochs)
        rounded = {name: _rounded(each, _FINE, dq_flag) for name, each in trained.items()}
    return coder.encode({}, ModelInfo(), _with_scaling(data, rounded))


def fisher_information(module: nn.Module, batches: Iterable[Any], loss: Loss) -> dict[str, NDArray[np.float64]]:
    """For each row of the parameters with two dimensions or more, the mean square of its gradients over the batches.

    Batches of one example tell most. Raises `ModelError` for gradients that are not finite.
    """
    weights = {name: w for name, w in module.named_parameters() if w.ndim > 1 and w.requires_grad}
    found = {name: np.zeros(len(w)) for name, w in weights.items()}
    for batch in batches:
        gradients = torch.autograd.grad(loss(module, batch), list(weights.values()), allow_unused=True)
        for name, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                found[name] += gradient.double().flatten(1).square().mean(1).cpu().numpy()
    for name, each in found.items():
        if not np.isfinite(each).all():
            raise ModelError("the loss or its gradients are not finite", tensor=name)
    return found


def row_scaling(information: NDArray[np.float64]) -> NDArray[np.float32]:
    """Factors of the rows of a weight, in inverse proportion to the root of their Fisher information.

    Their geometric mean is 1, and none is below a quarter or above 4, however much a row seems to matter.
    """
    if not information.any():
        return np.ones(len(information), np.float32)
    logarithms = -0.5 * np.log(np.maximum(information, information[information > 0].min()))
    factors: NDArray[np.float64] = np.clip(np.exp(logarithms - logarithms.mean()), *_BOUNDS)
    return factors.astype(np.float32)


def _rounded(factors: NDArray[np.float32], octaves: int, dq_flag: bool) -> Approximation:
    """Factors as integers, in the way that the weights are quantized: both share a unit."""
    return quantized(factors, -octaves << _DENSITY, _DENSITY, dq_flag)


def _along_rows(factors: Any, weight: Any) -> Any:
    return factors.reshape(-1, *(1,) * (weight.ndim - 1))


# --- quantization -----------------------------------------------------------------------------------------------------


def _approximated(model: SourceModel, plan: ModelPlan) -> ApproxData:
    """The dictionaries of Part 18: what is to be quantized as planned, weights with their inputs."""
    data = empty(plan.qp_density)
    for name, array in model.tensors.items():
        tensor = _approximation(array, name, plan, model.inputs.get(name))
        data["parameters"][name] = tensor.values
        if tensor.qp is not None:
            data["approx_method"][name], data["qp"][name] = "uniform", tensor.qp
            data["dq_flag"][name], data["scan_order"][name] = int(tensor.dq_flag), tensor.scan_order
    return data


def _approximation(array: NDArray[Any], name: str, plan: ModelPlan, inputs: LayerInputs | None) -> Approximation:
    known = plan.tensors[name]
    array = array.reshape(array.shape or (1,))
    if array.dtype.kind != "f":
        return Approximation(array.astype(np.int32))
    values = np.ascontiguousarray(array, np.float32)
    if known.method != Method.QUANTIZED or known.exact:
        return Approximation(values)
    rate = known.lambda_scale
    if inputs is None:
        return quantized(values, known.qp, plan.qp_density, known.dq_flag, 0, rate)
    whole = Approximation(values, known.qp, known.dq_flag)
    step = step_size(known.qp, plan.qp_density)
    levels = quantize_calibrated(whole.matrix(), step, inputs.calibration(), dq_flag=known.dq_flag, lambda_scale=rate)
    return Approximation(levels.reshape(array.shape), known.qp, known.dq_flag)


def _with_scaling(data: ApproxData, scaling: Mapping[str, Approximation]) -> ApproxData:
    """The dictionaries with factors in blocks with their weights; blocks are called like these."""
    found = ApproxData(**data)
    factors = {derived_name(name, Member.SCALING): each for name, each in scaling.items()}
    found["parameters"] = {**data["parameters"], **{name: each.values for name, each in factors.items()}}
    found["approx_method"] = {**data["approx_method"], **dict.fromkeys(factors, "uniform")}
    found["dq_flag"] = {**data["dq_flag"], **{name: int(each.dq_flag) for name, each in factors.items()}}
    found["qp"] = {
        **data["qp"],
        **{name: _rescaled(each.qp or 0, data["qp_density"]) for name, each in factors.items()},
    }
    found["compressed_parameter_types"] = dict.fromkeys(scaling, int(parameter_types([Member.SCALING])))
    return found


def _rescaled(qp: int, density: int) -> int:
    """A parameter of whole octaves in another density."""
    return qp >> _DENSITY << density


# --- training ---------------------------------------------------------------------------------------------------------


def _trained(
    module: nn.Module, data: ApproxData, scaling: Scaling, batches: Iterable[Any], loss: Loss, rate: float, epochs: int
) -> Scaling:
    """The factors after so many passes over all batches, with everything else as the decoder has it."""
    fixed = _decoded(module, data)
    factors = {name: torch.tensor(each, requires_grad=True) for name, each in scaling.items()}
    optimizer = torch.optim.Adam(factors.values(), lr=rate)
    for batch in (batch for _ in range(epochs) for batch in batches):
        scaled = {name: fixed[name] * _along_rows(each, fixed[name]) for name, each in factors.items()}
        optimizer.zero_grad()
        value = loss(partial(_called, module, {**fixed, **scaled}), batch)
        torch.autograd.backward(value)
        optimizer.step()
    return {name: each.detach().numpy() for name, each in factors.items()}


def _decoded(module: nn.Module, data: ApproxData) -> dict[str, torch.Tensor]:
    """The parameters that a decoder makes of the dictionaries, without scaling."""
    plain = restored(data, ModelInfo())["parameters"]
    return {name: torch.from_numpy(plain[name]).reshape(each.shape) for name, each in module.named_parameters()}


def _called(module: nn.Module, tensors: dict[str, torch.Tensor], *arguments: Any, **named: Any) -> Any:
    return torch.func.functional_call(module, tensors, arguments, named)
