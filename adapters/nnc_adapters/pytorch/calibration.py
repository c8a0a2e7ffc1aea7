"""Calibration of modules of PyTorch: hooks on their layers record the inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nnc_adapters.shared.calibration import Convolution, Recorder, measured
from nnc_core.errors import ModelError
from nnc_core.nnr_model import SourceModel

__all__ = ["calibrated"]

_Convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def calibrated(model: SourceModel, module: nn.Module, batches: Iterable[Any]) -> SourceModel:
    """The model of a module, with what was measured of it on ``batches``; the module is left as it was.

    A batch is what the module takes: a tensor, a tuple of arguments, or a dictionary of them by name.
    """
    batches = list(batches)
    if not batches:
        raise ModelError("there are no batches to calibrate with")
    recorder = Recorder()
    with _evaluating(module):
        with ExitStack() as hooks:
            for name, layer in module.named_modules():
                record = _recording(layer, f"{name}.weight" if name else "weight", recorder)
                if record is not None:
                    hooks.callback(layer.register_forward_hook(record).remove)
            for _ in _outputs(module, batches):
                pass
        run = partial(_run, module, batches)
        return measured(model, recorder.layers, module.state_dict(), run)


def _recording(layer: nn.Module, name: str, recorder: Recorder) -> Callable[[nn.Module, Any, Any], None] | None:
    if isinstance(layer, nn.Linear):
        return lambda _, arguments, output: recorder.product(name, _array(arguments[0]))
    if isinstance(layer, _Convolutions):
        return lambda _, arguments, output: recorder.convolution(name, *_convolved(layer, _array(arguments[0])))
    return None


def _convolved(layer: Any, inputs: NDArray[Any]) -> tuple[NDArray[Any], Convolution]:
    """The inputs, as a batch, and how the layer takes patches of them."""
    spatial = len(layer.kernel_size)
    batch = inputs.reshape(-1, *inputs.shape[-1 - spatial :])
    ends = layer._reversed_padding_repeated_twice  # of the last dimension before and after, of the one before it, ...
    pads = tuple(zip(ends[::2], ends[1::2], strict=True))[::-1]
    way = (layer.kernel_size, layer.stride, layer.dilation, pads, layer.groups, _MODES[layer.padding_mode])
    return batch, Convolution(*way)


def _array(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.detach().float().cpu().numpy()
    return array


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout, statistics of batches and gradients."""
    training = [each for each in module.modules() if each.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for each in training:
            each.training = True


def _run(
    module: nn.Module, batches: list[Any], name: str | None, values: NDArray[Any] | None
) -> Iterator[NDArray[Any]]:
    if name is None or values is None:
        yield from _outputs(module, batches)
        return
    parameter = module.state_dict(keep_vars=True)[name]
    original = parameter.detach().clone()
    parameter.copy_(torch.from_numpy(values).reshape(parameter.shape))
    try:
        yield from _outputs(module, batches)
    finally:
        parameter.copy_(original)


def _outputs(module: nn.Module, batches: list[Any]) -> Iterator[NDArray[Any]]:
    for index, batch in enumerate(batches):
        try:
            output = _called(module, batch)
        except ModelError:
            raise
        except Exception as error:  # of many types
            raise ModelError(f"the module does not take calibration batch {index}: {error}") from error
        tensors = list(_tensors(output))
        yield np.concatenate([_array(tensor).reshape(-1) for tensor in tensors] or [np.zeros(0, np.float32)])


def _called(module: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        return module(**batch)
    return module(*batch) if isinstance(batch, (tuple, list)) else module(batch)


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    """The floating-point tensors in what a module returns."""
    if isinstance(output, torch.Tensor):
        if output.is_floating_point():
            yield output
        return
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    for each in values:
        yield from _tensors(each)
