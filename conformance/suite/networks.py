"""The networks that are trained for Table 2: like MobileNetV2, ResNet18, VGG11 and VGG16, for images of 8x8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from conformance.suite.standins import Layer as Described
from conformance.suite.standins import Model, model_of
from conformance.suite.training import (
    PARAMETER,
    BatchNorm,
    Convolution,
    Data,
    Dense,
    Depthwise,
    Layer,
    Parameters,
    Pool,
    Relu,
    Residual,
    digits,
    epoch,
    measured,
    on_grid,
)

_WARM_UP = (8, 8, 8, 8, 9, 9, 9, 10)  # rates of 2**-n, epoch by epoch
_MEASUREMENTS = 40


@dataclass(frozen=True)
class Trainable:
    """A network, its model as Part 18 describes it, and the parameters from which training starts."""

    layers: Sequence[Layer]
    model: Model
    start: Parameters

    def trained(self, *, classifier_only: bool) -> list[str]:
        """The parameters that training changes."""
        return [name for name in self.start if name.startswith("classifier") or not classifier_only]


@cache
def trainable(name: str) -> Trainable:
    """A network after some epochs on all data, so that what follows are small steps of a model that knows something."""
    described, network = _NETWORKS[name]
    model = model_of(list(described()), seed=f"trained {name}")
    data, layers = digits().part(0, 512), network()
    p = {name: values.astype(np.float64) for name, values in model.tensors.items()}
    p = _balanced(layers, {name: on_grid(_start(name, values), PARAMETER) for name, values in p.items()}, data)
    for _ in range(_MEASUREMENTS):
        measured(layers, p, data.part(0, 128))
    for rate in _WARM_UP:
        p = epoch(layers, p, data, 2.0**-rate, list(p), batch_size=16)
    return Trainable(layers, model, p)


def _start(name: str, values: NDArray[np.float64]) -> NDArray[np.float64]:
    kind = name.rpartition(".")[2]
    if values.ndim > 1:
        return values
    return np.ones_like(values) if kind == "running_var" or _is_gamma(name) else np.zeros_like(values)


def _is_gamma(name: str) -> bool:
    return name.endswith(".weight")


def _balanced(layers: Sequence[Layer], p: Parameters, data: Data) -> Parameters:
    """Weights scaled by powers of two, layer by layer, until what they give is neither small nor large."""
    for name in [name for name, values in p.items() if values.ndim > 1]:
        for _ in range(12):
            size = _size_of(layers, p, data, name)
            if 0.25 <= size < 0.75:
                break
            p[name] = on_grid(p[name] * (2.0 if size < 0.25 else 0.5), PARAMETER)
    return p


def _size_of(layers: Sequence[Layer], p: Parameters, data: Data, name: str) -> float:
    """The root mean square of what the layer called after a weight gives."""
    return next(size for found, size in _sizes(layers, p, data.images[:32]) if f"{found}.weight" == name)


def _sizes(layers: Sequence[Layer], p: Parameters, x: np.ndarray) -> Iterator[tuple[str, float]]:  # type: ignore[type-arg]
    for layer in layers:
        if isinstance(layer, Residual):
            yield from _sizes(layer.way, p, x)
            yield from _sizes(layer.shortcut, p, x)
        x = layer.forward(p, x)
        if isinstance(layer, Convolution | Depthwise | Dense):
            yield layer.name, float(np.sqrt(np.square(x).sum() / x.size))


# --- the networks -----------------------------------------------------------------------------------------------------

_VGG = {
    "VGG11": (4, 0, 8, 0, 12, 12, 0, 16, 16, 16, 16),
    "VGG16": (4, 4, 0, 8, 8, 0, 12, 12, 12, 16, 16, 16, 16, 16, 16),
}
_HIDDEN = 64


def _vgg_layers(plan: Sequence[int]) -> Iterator[Described]:
    channels, number = 1, 0
    for width in plan:
        if width:
            yield Described(f"features.{number}", (width, channels, 3, 3), bias=True)
            channels = width
        number += 2 if width else 1
    sizes = (channels * (8 >> plan.count(0)) ** 2, _HIDDEN, _HIDDEN, 10)
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        yield Described(f"classifier.{3 * number}", (outputs, inputs), bias=True)


def _vgg(plan: Sequence[int]) -> list[Layer]:
    layers: list[Layer] = []
    number = 0
    for width in plan:
        layers += [Convolution(f"features.{number}"), Relu()] if width else [Pool()]
        number += 2 if width else 1
    return [*layers, Dense("classifier.0"), Relu(), Dense("classifier.3"), Relu(), Dense("classifier.6")]


_STAGES = ((8, 8, 1), (8, 16, 2), (16, 32, 2), (32, 32, 2))


def _resnet_layers() -> Iterator[Described]:
    yield Described("conv1", (8, 1, 3, 3), "bn1")
    for number, (inputs, outputs, stride) in enumerate(_STAGES, 1):
        name = f"layer{number}.0"
        yield Described(f"{name}.conv1", (outputs, inputs, 3, 3), f"{name}.bn1")
        yield Described(f"{name}.conv2", (outputs, outputs, 3, 3), f"{name}.bn2")
        if stride > 1:
            yield Described(f"{name}.downsample.0", (outputs, inputs, 1, 1), f"{name}.downsample.1")
    yield Described("classifier", (10, 32), bias=True)


def _resnet() -> list[Layer]:
    layers: list[Layer] = [Convolution("conv1"), BatchNorm("bn1"), Relu()]
    for number, (_, _, stride) in enumerate(_STAGES, 1):
        name = f"layer{number}.0"
        way = [Convolution(f"{name}.conv1", stride), BatchNorm(f"{name}.bn1"), Relu()]
        way += [Convolution(f"{name}.conv2"), BatchNorm(f"{name}.bn2")]
        shortcut = [Convolution(f"{name}.downsample.0", stride), BatchNorm(f"{name}.downsample.1")]
        layers += [Residual(way, shortcut if stride > 1 else ()), Relu()]
    return [*layers, Dense("classifier")]


_INVERTED = ((8, 8, 1), (8, 12, 2), (12, 12, 1), (12, 16, 2), (16, 16, 2))


def _mobilenet_layers() -> Iterator[Described]:
    yield Described("features.0.0", (8, 1, 3, 3), "features.0.1")
    for number, (inputs, outputs, _) in enumerate(_INVERTED, 1):
        name, wide = f"features.{number}.conv", 3 * inputs
        yield Described(f"{name}.0.0", (wide, inputs, 1, 1), f"{name}.0.1")
        yield Described(f"{name}.1.0", (wide, 1, 3, 3), f"{name}.1.1")
        yield Described(f"{name}.2", (outputs, wide, 1, 1), f"{name}.3")
    yield Described("features.6.0", (48, 16, 1, 1), "features.6.1")
    yield Described("classifier.1", (10, 48), bias=True)


def _mobilenet() -> list[Layer]:
    layers: list[Layer] = [Convolution("features.0.0"), BatchNorm("features.0.1"), Relu()]
    for number, (inputs, outputs, stride) in enumerate(_INVERTED, 1):
        name = f"features.{number}.conv"
        way = [Convolution(f"{name}.0.0"), BatchNorm(f"{name}.0.1"), Relu()]
        way += [Depthwise(f"{name}.1.0", stride), BatchNorm(f"{name}.1.1"), Relu()]
        way += [Convolution(f"{name}.2"), BatchNorm(f"{name}.3")]
        layers += [Residual(way)] if inputs == outputs and stride == 1 else way
    return [*layers, Convolution("features.6.0"), BatchNorm("features.6.1"), Relu(), Dense("classifier.1")]


_NETWORKS = {
    "MobileNetV2": (_mobilenet_layers, _mobilenet),
    "ResNet18": (_resnet_layers, _resnet),
    "VGG11": (lambda: _vgg_layers(_VGG["VGG11"]), lambda: _vgg(_VGG["VGG11"])),
    "VGG16": (lambda: _vgg_layers(_VGG["VGG16"]), lambda: _vgg(_VGG["VGG16"])),
}
