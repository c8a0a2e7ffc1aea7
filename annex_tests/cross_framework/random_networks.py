"""Random small networks, each in PyTorch and in Keras: whether weights move between the two, and never wrongly.

    python -m annex_tests.cross_framework.random_networks [--count N] [--seed S]

A network is a list of steps that both builders follow; modules of PyTorch are defined in a random order.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")

TOLERANCE = 1e-4
EPSILON = 1e-3

Value = Any


@dataclass
class Step:
    """``kind`` with ``options`` makes ``output`` of ``inputs``, which are numbers of values."""

    kind: str
    inputs: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass
class Network:
    """``shapes`` are those of the inputs without the batch, channels first; value k is input k or a step's result."""

    shapes: list[tuple[int, ...]]
    steps: list[Step]
    outputs: list[int]
    integers: bool = False


class Drawing:
    """Draws a network step by step, and knows the shape of every value: ``(C, H, W)``, ``(T, F)`` or ``(F,)``."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.inputs: list[tuple[int, ...]] = []
        self.steps: list[Step] = []
        self.shapes: list[tuple[int, ...]] = []
        self.integers = False

    def input(self, shape: tuple[int, ...]) -> int:
        assert not self.steps
        self.inputs.append(shape)
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def step(self, kind: str, inputs: tuple[int, ...], shape: tuple[int, ...], **options: Any) -> int:
        self.steps.append(Step(kind, inputs, options))
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def network(self, outputs: list[int]) -> Network:
        return Network(self.inputs, self.steps, outputs, self.integers)

    def choice(self, *options: Any) -> Any:
        return self.random.choice(options)


def _image(d: Drawing) -> Network:
    size = d.choice(8, 10, 12)
    x = d.input((d.choice(1, 3), size, size if d.random.random() < 0.7 else size - 2))
    extra = d.input((d.choice(3, 5),)) if d.random.random() < 0.25 else None
    x = _conv(d, x, d.choice(4, 6, 8))
    for _ in range(d.choice(1, 2, 3, 4)):
        x = d.choice(_conv, _conv, _block, _depthwise, _branches, _norm, _prelu, _separable, _pool)(d, x)
    tail = d.choice("flatten", "flatten", "flatten", "average", "recurrent", "heads", "map")
    if tail == "map":
        c, h, w = d.shapes[x]
        return d.network([d.step("conv", (x,), (2, h, w), filters=2, kernel=1, stride=1, groups=1, bias=True)])
    if tail == "recurrent":
        c, h, w = d.shapes[x]
        return d.network([_dense(d, _recurrent(d, d.step("rows", (x,), (h, c * w)), last=True), 3)])
    if tail == "average":
        x = d.step("average", (x,), d.shapes[x][:1])
    else:
        if np.prod(d.shapes[x]) > 600:
            x = _pool(d, x)
        x = d.step("flatten", (x,), (int(np.prod(d.shapes[x])),))
    if extra is not None:
        x = d.step(
            "concat", (x, extra) if d.random.random() < 0.5 else (extra, x), (d.shapes[x][0] + d.shapes[extra][0],)
        )
    if d.random.random() < 0.3:
        x = _batch_norm(d, x)
    if tail == "heads":
        return d.network([_dense(d, x, 4), _dense(d, x, d.choice(4, 3))])
    for _ in range(d.choice(0, 1, 2)):
        x = d.step("relu", (_dense(d, x, d.choice(8, 10, 12)),), (0,))
        d.shapes[x] = d.shapes[x - 1]
    return d.network([_dense(d, x, d.choice(3, 5))])


def _decoder(d: Drawing) -> Network:
    x = d.input((d.choice(5, 7),))
    c, h, w = d.choice(4, 6), d.choice(3, 4), d.choice(2, 3)
    x = _dense(d, x, c * h * w)
    if d.random.random() < 0.6:
        x = _batch_norm(d, x)
    x = d.step("relu", (x,), d.shapes[x])
    x = d.step("image", (x,), (c, h, w))
    for _ in range(d.choice(1, 2)):
        c, h, w = d.shapes[x]
        filters = d.choice(3, 4)
        x = d.step("deconv", (x,), (filters, 2 * h, 2 * w), filters=filters, kernel=2, stride=2)
        x = _norm(d, x) if d.random.random() < 0.5 else x
    return d.network([x])


def _words(d: Drawing) -> Network:
    d.integers = True
    x = d.input((d.choice(5, 6),))
    size = d.choice(8, 12)
    x = d.step("embedding", (x,), (d.shapes[x][0], size), rows=11)
    x = d.choice(_transformer, _recurrent, _stack)(d, x)
    if d.random.random() < 0.4:
        x = _transformer(d, x)
    x = d.step("mean", (x,), d.shapes[x][1:])
    return d.network([_dense(d, x, 3)])


def _sequence(d: Drawing) -> Network:
    x = d.input((d.choice(5, 6), d.choice(4, 8)))
    for _ in range(d.choice(1, 2)):
        x = d.choice(_stack, _recurrent, _transformer, _wide)(d, x)
    if d.random.random() < 0.5:
        return d.network([_dense(d, d.step("flatten", (x,), (int(np.prod(d.shapes[x])),)), 4)])
    return d.network([_dense(d, x, 4)])


def _signal(d: Drawing) -> Network:
    x = d.input((d.choice(2, 3), d.choice(16, 20)))
    for _ in range(d.choice(1, 2, 3)):
        filters = d.choice(4, 6)
        c, n = d.shapes[x]
        x = d.step(
            "conv", (x,), (filters, n), filters=filters, kernel=3, stride=1, groups=1, bias=d.choice(True, False)
        )
        x = d.choice(_norm, _prelu, _relu)(d, x)
    c, n = d.shapes[x]
    if d.random.random() < 0.4:
        x = d.step("steps", (x,), (n, c))
        return d.network([_dense(d, _recurrent(d, x, last=True), 3)])
    return d.network([_dense(d, d.step("flatten", (x,), (c * n,)), 3)])


def _relu(d: Drawing, x: int) -> int:
    return d.step(d.choice("relu", "tanh", "relu"), (x,), d.shapes[x])


def _conv(d: Drawing, x: int, filters: int | None = None) -> int:
    c, h, w = d.shapes[x]
    filters = filters or d.choice(c, 4, 6, 8)
    stride = 2 if min(h, w) >= 8 and d.random.random() < 0.2 else 1
    groups = 2 if c % 2 == 0 and filters % 2 == 0 and c > 2 and filters != c and d.random.random() < 0.2 else 1
    kernel = d.choice(1, 3, 3)
    bias = d.random.random() < 0.6
    shape = (filters, -(-h // stride), -(-w // stride))
    x = d.step("conv", (x,), shape, filters=filters, kernel=kernel, stride=stride, groups=groups, bias=bias)
    if d.random.random() < 0.5:
        x = _batch_norm(d, x)
    return _relu(d, x) if d.random.random() < 0.7 else x


def _depthwise(d: Drawing, x: int) -> int:
    c, h, w = d.shapes[x]
    many = d.choice(1, 1, 2)
    return _relu(
        d, d.step("depthwise", (x,), (c * many, h, w), multiplier=many, channels=c, bias=d.choice(True, False))
    )


def _separable(d: Drawing, x: int) -> int:
    return _conv(d, _depthwise(d, x))


def _block(d: Drawing, x: int) -> int:
    """A residual block whose shortcut may have the shape of the main path."""
    main = _same_conv(d, x)
    if d.random.random() < 0.5:
        main = _same_conv(d, d.step("relu", (main,), d.shapes[x]))
    side = _same_conv(d, x) if d.random.random() < 0.5 else x
    return d.step("relu", (d.step("add", (main, side), d.shapes[x]),), d.shapes[x])


def _same_conv(d: Drawing, x: int) -> int:
    c, h, w = d.shapes[x]
    found = d.step("conv", (x,), (c, h, w), filters=c, kernel=3, stride=1, groups=1, bias=True)
    return _batch_norm(d, found) if d.random.random() < 0.5 else found


def _branches(d: Drawing, x: int) -> int:
    found = [_same_conv(d, x) for _ in range(d.choice(2, 3))]
    c, h, w = d.shapes[x]
    return d.step("concat", tuple(found), (c * len(found), h, w))


def _batch_norm(d: Drawing, x: int) -> int:
    affine = d.random.random() < 0.9
    return d.step("batch_norm", (x,), d.shapes[x], channels=d.shapes[x][0], affine=affine, rank=len(d.shapes[x]))


def _norm(d: Drawing, x: int) -> int:
    shape = d.shapes[x]
    kind = d.choice("batch_norm", "group_norm", "layer_norm")
    if kind == "group_norm" and shape[0] % 2 == 0:
        return d.step("group_norm", (x,), shape, channels=shape[0])
    if kind == "layer_norm":
        return d.step("layer_norm", (x,), shape, sizes=shape)
    return _batch_norm(d, x)


def _prelu(d: Drawing, x: int) -> int:
    return d.step("prelu", (x,), d.shapes[x], channels=d.shapes[x][0], rank=len(d.shapes[x]))


def _pool(d: Drawing, x: int) -> int:
    c, h, w = d.shapes[x]
    if min(h, w) < 4:
        return x
    return d.step("pool", (x,), (c, h // 2, w // 2), how=d.choice("max", "mean"))


def _dense(d: Drawing, x: int, size: int) -> int:
    return d.step("dense", (x,), (*d.shapes[x][:-1], size), features=d.shapes[x][-1], units=size)


def _wide(d: Drawing, x: int) -> int:
    return d.step("relu", (_dense(d, x, d.shapes[x][-1]),), d.shapes[x])


def _recurrent(d: Drawing, x: int, last: bool = False) -> int:
    steps, features = d.shapes[x]
    cell, both, state = d.choice("lstm", "gru", "rnn"), d.random.random() < 0.4, d.choice(4, 6)
    size = state * (2 if both else 1)
    both, size = (False, state) if last else (both, size)
    shape = (size,) if last else (steps, size)
    return d.step("recurrent", (x,), shape, cell=cell, state=state, both=both, last=last, features=features)


def _stack(d: Drawing, x: int) -> int:
    return _recurrent(d, _recurrent(d, x))


def _transformer(d: Drawing, x: int) -> int:
    steps, size = d.shapes[x]
    if size % 4:
        x = _dense(d, x, 8)
        size = 8
    shape = (steps, size)
    y = d.step("attention", (x,), shape, size=size, heads=d.choice(2, 4))
    x = d.step("layer_norm", (d.step("add", (x, y), shape),), shape, sizes=(size,))
    y = _dense(d, d.step("relu", (_dense(d, x, 2 * size),), (steps, 2 * size)), size)
    return d.step("layer_norm", (d.step("add", (x, y), shape),), shape, sizes=(size,))


# PyTorch


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


# Keras


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


def complete(network: Network) -> Network:
    """Give steps what they need to know of their inputs."""
    shapes: list[tuple[int, ...]] = list(network.shapes)
    drawn = network.steps
    for step in drawn:
        given = shapes[step.inputs[0]]
        if step.kind in ("conv", "deconv"):
            step.options["channels"] = given[0]
        if step.kind == "conv":
            step.options["rank"] = len(given) - 1
        shapes.append(step.options.pop("result"))
        if step.kind == "image":
            step.options["shape"] = shapes[-1]
        if step.kind == "embedding":
            step.options["size"] = shapes[-1][-1]
    return network


def network(seed: int) -> Network:
    d = Drawing(seed)
    family = d.choice("image", "image", "image", "image", "words", "sequence", "decoder", "signal")
    found = globals()[f"_{family}"](d)
    for step, shape in zip(found.steps, d.shapes[len(found.shapes) :], strict=True):
        step.options["result"] = shape
    return complete(found)


# What happens to a network


@dataclass
class Outcome:
    """Of one conversion: ``right``, ``refused`` or ``wrong``, and why."""

    way: str
    result: str
    reason: str = ""


def outcomes(seed: int, folder: Path) -> list[Outcome]:
    """Convert in both directions: with the module, and without it with every question answered as usual."""
    import keras
    import torch

    drawn = network(seed)
    module, model = torch_module(drawn, seed), keras_model(drawn)
    given = _inputs(drawn, seed)
    # Keras cannot load what it saves as .h5 where a layer normalizes several axes
    several = any(step.kind == "layer_norm" and len(step.options["sizes"]) > 1 for step in drawn.steps)
    torch_file, keras_file = folder / "net.pt", folder / f"net{'.keras' if seed % 3 or several else '.h5'}"
    torch.save(module.state_dict(), torch_file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(keras_file)

    def by_torch(path: Path) -> list[Any]:
        module.load_state_dict(torch.load(path, weights_only=True))
        with torch.no_grad():
            return _list(module(*(torch.from_numpy(array) for array in given)))

    def by_keras(path: Path) -> list[Any]:
        moved = [_last(drawn, array) for array in given]
        found = _list(keras.models.load_model(path)(moved if len(moved) > 1 else moved[0]))
        return [np.moveaxis(array, -1, 1) if array.ndim == 4 else array for array in found]

    ours, theirs = by_torch(torch_file), by_keras(keras_file)
    found = []
    for options in ({"module": module}, {}):
        name = "with the module" if options else "without it"
        there, back = folder / f"there{keras_file.suffix}", folder / "back.pt"
        found.append(_outcome(f"to Keras, {name}", torch_file, keras_file, there, options, by_keras, ours))
        found.append(_outcome(f"to PyTorch, {name}", keras_file, torch_file, back, options, by_torch, theirs))
    return found


def _outcome(
    way: str, source: Path, into: Path, target: Path, options: dict[str, Any], run: Callable[[Path], Any], expected: Any
) -> Outcome:
    from nnc_adapters.convert import convert, plan
    from nnc_core import ModelError

    try:
        flatten = {}
        if not options:
            flatten = plan(source, into)["questions"]
        convert(source, target, into=into, force=True, flatten=flatten, **options)
    except ModelError as error:
        return Outcome(way, "refused", str(error))
    worst = max(_difference(array, other) for array, other in zip(run(target), expected, strict=True))
    return Outcome(way, "right" if worst < TOLERANCE else "wrong", f"outputs differ by {worst:.2g}")


def _difference(one: Any, other: Any) -> float:
    return float(np.abs(one - other).max() / max(np.abs(other).max(), 1e-6))


def _inputs(drawn: Network, seed: int) -> list[Any]:
    generator = np.random.default_rng(seed)
    if drawn.integers:
        return [generator.integers(0, 11, (2, *shape)) for shape in drawn.shapes]
    return [generator.standard_normal((2, *shape)).astype(np.float32) for shape in drawn.shapes]


def _last(drawn: Network, array: Any) -> Any:
    moves = array.ndim == 4 or network_is_signal(drawn, array.shape[1:])
    return np.moveaxis(array, 1, -1) if moves else array


def _list(value: Any) -> list[Any]:
    return [item.numpy() for item in (value if isinstance(value, list | tuple) else [value])]


def main() -> int:
    parser = argparse.ArgumentParser(description="Convert random networks between PyTorch and Keras.")
    parser.add_argument("--count", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    counts: Counter[tuple[str, str]] = Counter()
    started = time.perf_counter()
    for seed in range(options.seed, options.seed + options.count):
        with tempfile.TemporaryDirectory() as folder:
            for outcome in outcomes(seed, Path(folder)):
                counts[outcome.way, outcome.result] += 1
                if outcome.result == "wrong" or (
                    outcome.result == "refused" and (options.verbose or "with the" in outcome.way)
                ):
                    print(f"seed {seed}, {outcome.way}: {outcome.result}: {outcome.reason[:400]}")
    for way in sorted({way for way, _ in counts}):
        total = sum(n for (w, _), n in counts.items() if w == way)
        shares = {result: counts[way, result] for result in ("right", "refused", "wrong")}
        print(f"{way:28} {shares}  {100 * shares['right'] / total:.1f} % converted")
    print(f"{time.perf_counter() - started:.0f} s")
    return 1 if any(result == "wrong" for _, result in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
