"""Random small networks as lists of steps, drawn piece by piece."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import numpy as np


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
