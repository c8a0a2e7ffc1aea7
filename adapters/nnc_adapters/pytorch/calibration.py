"""Calibration of modules of PyTorch: hooks on their layers record the inputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from nnc_adapters.shared.calibration import Convolution, Recorder, measured, probing
from nnc_core.errors import ModelError
from nnc_core.nnr_model import SourceModel

__all__ = ["calibrated", "evaluating", "recording"]

Record = Callable[..., None]
_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def calibrated(model: SourceModel, module: nn.Module, batches: Iterable[Any]) -> SourceModel:
    """The model of a module, with what was measured of it on ``batches``; the module is left as it was.

    A batch is what the module takes: a tensor, a tuple of arguments, or a dictionary of them by name.
    """
    batches = list(batches)
    if not batches:
        raise ModelError("there are no batches to calibrate with")
    with evaluating(module), torch.no_grad():
        with recording(module) as recorder:
            for _ in _outputs(module, batches):
                pass
        run = partial(_run, module, probing(batches))
        return measured(model, recorder.layers, module.state_dict(), run)


@contextmanager
def recording(module: nn.Module) -> Iterator[Recorder]:
    """Record the inputs of the module's layers whenever it runs."""
    recorder = Recorder()
    with ExitStack() as hooks:
        for name, layer in module.named_modules():
            record = _recording(layer, f"{name}." if name else "", recorder)
            if record is not None:
                hook = layer.register_forward_hook(partial(_called_with, record), with_kwargs=True)
                hooks.callback(hook.remove)
        yield recorder


# --- layers ----------------------------------------------------------------------------------------------------------


def _recording(layer: nn.Module, prefix: str, recorder: Recorder) -> Record | None:
    for types, make in _RECORDS.items():
        if isinstance(layer, types):
            return make(layer, prefix, recorder)
    return None


def _linear(layer: nn.Module, prefix: str, recorder: Recorder) -> Record:
    return lambda inputs: recorder.product(f"{prefix}weight", _array(inputs))


def _convolution(layer: nn.Module, prefix: str, recorder: Recorder) -> Record:
    return lambda inputs: recorder.convolution(f"{prefix}weight", *_convolved(layer, _array(inputs)))


def _transposed(layer: Any, prefix: str, recorder: Recorder) -> Record | None:
    """Each of its inputs is multiplied with all the kernels of its channel; groups share no inputs."""

    def record(inputs: torch.Tensor, *_: Any) -> None:
        channels = inputs.movedim(-1 - len(layer.kernel_size), -1)
        recorder.product(f"{prefix}weight", _array(channels), input_first=True)

    return record if layer.groups == 1 else None


def _attention(layer: Any, prefix: str, recorder: Recorder) -> Record:
    """The last product's inputs are the outputs of a twin that passes them on."""
    twin = deepcopy(layer)
    nn.init.eye_(twin.out_proj.weight)
    if twin.out_proj.bias is not None:
        nn.init.zeros_(twin.out_proj.bias)

    def record(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *others: Any, **named: Any) -> None:
        inputs = [_array(each) for each in (query, key, value)]
        if layer.in_proj_weight is not None:
            recorder.products(f"{prefix}in_proj_weight", inputs)
        else:
            for name, array in zip("qkv", inputs, strict=True):
                recorder.product(f"{prefix}{name}_proj_weight", array)
        recorder.product(f"{prefix}out_proj.weight", _array(twin(query, key, value, *others, **named)[0]))

    return record


def _cell(layer: Any, prefix: str, recorder: Recorder) -> Record:
    def record(inputs: torch.Tensor, states: Any = None) -> None:
        recorder.product(f"{prefix}weight_ih", _array(inputs))
        hidden = states[0] if isinstance(states, tuple) else states
        if hidden is not None:
            recorder.product(f"{prefix}weight_hh", _array(hidden))

    return record


def _recurrent(layer: Any, prefix: str, recorder: Recorder) -> Record:
    """Its layers one by one: those inside do not show their outputs."""
    ways = ["", "_reverse"] if layer.bidirectional else [""]
    singles = [_single(layer, index) for index in range(layer.num_layers)]

    def record(inputs: Any, states: Any = None) -> None:
        for index, single in enumerate(singles):
            own = slice(index * len(ways), (index + 1) * len(ways))
            start = tuple(each[own] for each in states) if isinstance(states, tuple) else states
            start = states[own] if isinstance(states, torch.Tensor) else start
            outputs = single(inputs, start)[0]
            hidden = start[0] if isinstance(start, tuple) else start
            for place, way in enumerate(ways):
                recorder.product(f"{prefix}weight_ih_l{index}{way}", _array(_data(inputs)))
                for before in _hidden(single, outputs, hidden, place):
                    recorder.product(f"{prefix}weight_hh_l{index}{way}", _array(before))
            inputs = outputs

    return record


def _single(layer: Any, index: int) -> Any:
    """One layer of a recurrent module as a module."""
    options = {"bias": layer.bias, "batch_first": layer.batch_first, "bidirectional": layer.bidirectional}
    if isinstance(layer, nn.RNN):
        options["nonlinearity"] = layer.nonlinearity
    if isinstance(layer, nn.LSTM):
        options["proj_size"] = layer.proj_size
    state = {name: value for name, value in layer.state_dict().items() if f"_l{index}" in name}
    width = state[f"weight_ih_l{index}"].shape[1]
    single = type(layer)(width, layer.hidden_size, **options).to(layer.weight_ih_l0).eval()
    single.load_state_dict({name.replace(f"_l{index}", "_l0"): value for name, value in state.items()})
    return single


def _hidden(layer: Any, outputs: Any, start: torch.Tensor | None, place: int) -> Iterator[torch.Tensor]:
    """The states that one of the ways of a layer multiplies: its start, and its outputs but for the last."""
    every = _data(outputs).chunk(2 if layer.bidirectional else 1, -1)[place]
    if isinstance(outputs, PackedSequence):
        yield every
        return
    steps = int(layer.batch_first and every.ndim == 3)
    yield start[place] if start is not None else torch.zeros_like(every.narrow(steps, 0, 1))
    yield every.narrow(steps, place, every.shape[steps] - 1)


def _data(inputs: Any) -> torch.Tensor:
    found: torch.Tensor = inputs.data if isinstance(inputs, PackedSequence) else inputs
    return found


_RECORDS: dict[Any, Callable[[Any, str, Recorder], Record | None]] = {
    nn.Linear: _linear,
    (nn.Conv1d, nn.Conv2d, nn.Conv3d): _convolution,
    (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d): _transposed,
    nn.MultiheadAttention: _attention,
    nn.RNNCellBase: _cell,
    nn.RNNBase: _recurrent,
}
"""What is called with the arguments of each kind of layer."""


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


def _called_with(record: Record, layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], _: Any) -> None:
    bound = inspect.signature(layer.forward).bind(*arguments, **named)
    with torch.no_grad():
        record(*bound.args, **bound.kwargs)


# --- running ---------------------------------------------------------------------------------------------------------


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout and statistics of batches, and with layers that are called one by one; then as it was."""
    training = [each for each in module.modules() if each.training]
    fast = torch.backends.mha.get_fastpath_enabled()
    module.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for each in training:
            each.training = True


def _run(
    module: nn.Module, batches: Sequence[Any], name: str | None, values: NDArray[Any] | None
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


def _outputs(module: nn.Module, batches: Sequence[Any]) -> Iterator[NDArray[Any]]:
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
