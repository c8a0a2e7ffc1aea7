"""Lists of steps as networks of PyTorch and of Keras; modules of PyTorch are defined in a random order."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from annex_tests.cross_framework.drawn_networks import Network, Step

EPSILON = 1e-3


def torch_module(network: Network, seed: int) -> Any:
    import torch

    nn = torch.nn

    class Drawn(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            numbers = [k for k, step in enumerate(network.steps) if step.kind in TORCH]
            random.Random(seed).shuffle(numbers)
            for k in numbers:
                self.add_module(f"m{k}", TORCH[network.steps[k].kind](nn, **network.steps[k].options))

        def forward(self, *values: Any) -> Any:
            found = list(values)
            for k, step in enumerate(network.steps):
                given = [found[place] for place in step.inputs]
                found.append(_torch_step(torch, step, getattr(self, f"m{k}", None), given))
            results = tuple(found[place] for place in network.outputs)
            return results if len(results) > 1 else results[0]

    torch.manual_seed(seed)
    module = Drawn().eval()
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and tensor.dim() == 1:
            low, high = (0.5, 1.5) if "var" in name or name.endswith("weight") else (-0.5, 0.5)
            tensor.uniform_(low, high, generator=generator)
    return module


TORCH: dict[str, Callable[..., Any]] = {
    "conv": lambda nn, filters, kernel, stride, groups, bias, channels, rank: getattr(nn, f"Conv{rank}d")(
        channels, filters, kernel, stride=stride, groups=groups, bias=bias
    ),
    "depthwise": lambda nn, multiplier, channels, bias: nn.Conv2d(
        channels, channels * multiplier, 3, padding=1, groups=channels, bias=bias
    ),
    "deconv": lambda nn, filters, kernel, stride, channels: nn.ConvTranspose2d(
        channels, filters, kernel, stride=stride
    ),
    "batch_norm": lambda nn, channels, affine, rank: (nn.BatchNorm2d if rank == 3 else nn.BatchNorm1d)(
        channels, eps=EPSILON, affine=affine
    ),
    "group_norm": lambda nn, channels: nn.GroupNorm(2, channels, eps=EPSILON),
    "layer_norm": lambda nn, sizes: nn.LayerNorm(sizes, eps=EPSILON),
    "prelu": lambda nn, channels, rank: nn.PReLU(channels),
    "dense": lambda nn, features, units: nn.Linear(features, units),
    "embedding": lambda nn, rows, size: nn.Embedding(rows, size),
    "attention": lambda nn, size, heads: nn.MultiheadAttention(size, heads, batch_first=True),
    "recurrent": lambda nn, cell, state, both, last, features: {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[cell](
        features, state, batch_first=True, bidirectional=both
    ),
}


def _torch_step(torch: Any, step: Step, module: Any, given: list[Any]) -> Any:
    x, options = given[0], step.options
    functional = torch.nn.functional
    match step.kind:
        case "conv":
            # as Keras pads: what is odd behind
            pads: list[int] = []
            for n in reversed(x.shape[2:]):
                total = max((-(-n // options["stride"]) - 1) * options["stride"] + options["kernel"] - n, 0)
                pads += [total // 2, total - total // 2]
            return module(functional.pad(x, pads) if any(pads) else x)
        case "attention":
            return module(x, x, x, need_weights=False)[0]
        case "recurrent":
            found = module(x)[0]
            return found[:, -1] if options["last"] else found
        case "relu":
            return torch.relu(x)
        case "tanh":
            return torch.tanh(x)
        case "add":
            return x + given[1]
        case "concat":
            return torch.cat(given, 1)
        case "pool":
            return (functional.max_pool2d if options["how"] == "max" else functional.avg_pool2d)(x, 2)
        case "average":
            return x.mean((2, 3))
        case "mean":
            return x.mean(1)
        case "flatten":
            return x.flatten(1)
        case "image":
            return x.reshape(len(x), *options["shape"])
        case "rows":
            return x.permute(0, 2, 1, 3).reshape(len(x), x.shape[2], -1)
        case "steps":
            return x.transpose(1, 2)
    return module(x)


def keras_model(network: Network) -> Any:
    import keras

    layers = keras.layers
    dtype = "int32" if network.integers else "float32"
    inputs = [
        keras.Input(
            (*shape[1:], shape[0]) if len(shape) == 3 or network_is_signal(network, shape) else shape, dtype=dtype
        )
        for shape in network.shapes
    ]
    found: list[Any] = list(inputs)
    for step in network.steps:
        found.append(_keras_step(layers, step, [found[place] for place in step.inputs]))
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], [found[place] for place in network.outputs])


def network_is_signal(network: Network, shape: tuple[int, ...]) -> bool:
    """Whether an input of two axes has its channels first in PyTorch."""
    return len(shape) == 2 and any(step.kind == "conv" and step.options["rank"] == 1 for step in network.steps)


def _keras_step(layers: Any, step: Step, given: list[Any]) -> Any:
    x, o = given[0], step.options
    match step.kind:
        case "conv":
            layer = layers.Conv1D if o["rank"] == 1 else layers.Conv2D
            made = layer(
                o["filters"], o["kernel"], strides=o["stride"], padding="same", groups=o["groups"], use_bias=o["bias"]
            )
        case "depthwise":
            made = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=o["multiplier"], use_bias=o["bias"])
        case "deconv":
            made = layers.Conv2DTranspose(o["filters"], o["kernel"], strides=o["stride"])
        case "batch_norm":
            made = layers.BatchNormalization(epsilon=EPSILON, scale=o["affine"], center=o["affine"])
        case "group_norm":
            made = layers.GroupNormalization(2, epsilon=EPSILON)
        case "layer_norm":
            made = layers.LayerNormalization(
                axis=list(range(1, len(x.shape))) if len(o["sizes"]) > 1 else -1, epsilon=EPSILON
            )
        case "prelu":
            made = layers.PReLU(shared_axes=list(range(1, len(x.shape) - 1)))
        case "dense":
            made = layers.Dense(o["units"])
        case "embedding":
            made = layers.Embedding(o["rows"], o["size"])
        case "attention":
            return layers.MultiHeadAttention(o["heads"], o["size"] // o["heads"])(x, x)
        case "recurrent":
            cell = {"lstm": layers.LSTM, "gru": layers.GRU, "rnn": layers.SimpleRNN}[o["cell"]]
            made = cell(o["state"], return_sequences=not o["last"])
            made = layers.Bidirectional(made) if o["both"] else made
        case "add":
            return layers.Add()(given)
        case "concat":
            return layers.Concatenate()(given)
        case "pool":
            made = layers.MaxPooling2D() if o["how"] == "max" else layers.AveragePooling2D(2)
        case "average":
            made = layers.GlobalAveragePooling2D()
        case "mean":
            made = layers.GlobalAveragePooling1D()
        case "flatten":
            made = layers.Flatten()
        case "image":
            c, *rest = o["shape"]
            made = layers.Reshape((*rest, c))
        case "rows":
            made = layers.Reshape((x.shape[1], -1))
        case "steps":
            return x
        case kind:
            made = layers.Activation(kind)
    return made(x)
