"""Stand-ins for the models of Part 18: the same kinds of layers, and weights that are the same on every machine.

A weight is a whole number times a power of two. The number is a sum of hashed bits, so that it is distributed almost
normally; nothing is rounded on the way, and no function of the C library takes part. ``full_size`` gives every model
its true size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from nnc_core.nnr_model.model_info import ModelInfo

Tensors = dict[str, NDArray[np.float32]]

_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_GOLDEN = 0x9E3779B97F4A7C15


@dataclass(frozen=True)
class Layer:
    """A weight, with the batch-norm or bias that belongs to it."""

    name: str
    shape: tuple[int, ...]
    batch_norm: str = ""
    bias: bool = False

    @property
    def kind(self) -> str:
        return "conv" if len(self.shape) > 2 else "fc"

    @property
    def inputs(self) -> int:
        return prod(self.shape[1:])


@dataclass
class Model:
    """The tensors of a model, and what Part 18 wants to know of them."""

    tensors: Tensors
    info: ModelInfo = field(default_factory=ModelInfo)

    @property
    def weights(self) -> list[str]:
        return [name for name, kind in self.info["parameter_type"].items() if kind.endswith(".weight")]

    @property
    def size(self) -> int:
        return sum(array.size for array in self.tensors.values())


def stand_in(name: str, *, full_size: bool = False) -> Model:
    """The model that stands in for the one that Part 18 names."""
    return model_of(layers(name, full_size=full_size), seed=name)


def layers(name: str, *, full_size: bool = False) -> list[Layer]:
    """The layers of a stand-in; KeyError for a model that no row names."""
    make, small = _MODELS[name]
    return list(make(1 if full_size else small))


def model_of(described: list[Layer], seed: str) -> Model:
    model = Model({}, ModelInfo(parameter_type={}, block_identifier={}, topology_storage_format=None))
    for layer in described:
        for suffix, kind, values in _parameters(layer, seed):
            name = suffix if "." in suffix else f"{layer.name}.{suffix}"
            model.tensors[name] = values
            model.info["parameter_type"][name] = kind  # type: ignore[assignment]
            if layer.batch_norm or layer.bias:
                model.info["block_identifier"][name] = layer.name
    model.info["parameter_index"] = {name: index for index, name in enumerate(model.tensors)}
    return model


def _parameters(layer: Layer, seed: str) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Name, parameter type and values of each tensor of a layer; a dot is in the names of another layer's."""
    rows = layer.shape[0]

    def drawn(what: str, bits: int) -> NDArray[np.float64]:
        return integers(f"{seed} {layer.name} {what}", rows) * 2.0**-bits  # type: ignore[return-value]

    yield "weight", f"{layer.kind}.weight", _weight(layer, seed)
    if layer.bias:
        yield "bias", f"{layer.kind}.bias", drawn("bias", 19).astype(np.float32)
    if layer.batch_norm:
        yield f"{layer.batch_norm}.weight", "bn.gamma", (1 + drawn("gamma", 18)).astype(np.float32)
        yield f"{layer.batch_norm}.bias", "bn.beta", drawn("beta", 19).astype(np.float32)
        yield f"{layer.batch_norm}.running_mean", "bn.mean", drawn("mean", 18).astype(np.float32)
        yield f"{layer.batch_norm}.running_var", "bn.var", (0.5 + abs(drawn("var", 16))).astype(np.float32)


def _weight(layer: Layer, seed: str) -> NDArray[np.float32]:
    """Smaller where there are more inputs, and some rows smaller than others."""
    numbers = integers(f"{seed} {layer.name}", prod(layer.shape)).reshape(layer.shape[0], -1)
    rows = 8 + abs(integers(f"{seed} {layer.name} rows", layer.shape[0])) % 8
    bits = 15 + 4 + 2 + layer.inputs.bit_length() // 2
    return (numbers * rows[:, None] * 2.0**-bits).astype(np.float32).reshape(layer.shape)


def integers(seed: str, count: int) -> NDArray[np.int64]:
    """Whole numbers within +-131070, almost normally distributed with a deviation of 37837."""
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    state += np.uint64(crc32(seed.encode()) << 32)
    for shift, factor in zip((30, 27), _MIX, strict=True):
        state = (state ^ (state >> np.uint64(shift))) * np.uint64(factor)
    state ^= state >> np.uint64(31)
    quarters = [(state >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48)]
    return sum(quarter.astype(np.int64) for quarter in quarters) - 2 * 65535  # type: ignore[return-value]


# --- the models; each takes by how much its channels are divided ------------------------------------------------------


def _mobilenet_v2(divisor: int) -> Iterator[Layer]:
    """Inverted residuals: expansion, depthwise convolution, projection, each with a batch-norm."""
    stages = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
    channels, number = 32 // divisor, 1
    yield _conv("features.0.0", channels, 3, 3, "features.0.1")
    for expansion, outputs, repeats in stages:
        for _ in range(_repeats(repeats, divisor)):
            wide, name = channels * expansion, f"features.{number}.conv"
            if expansion > 1:
                yield _conv(f"{name}.0.0", wide, channels, 1, f"{name}.0.1")
            yield _conv(f"{name}.1.0", wide, 1, 3, f"{name}.1.1")
            yield _conv(f"{name}.2", outputs // divisor, wide, 1, f"{name}.3")
            channels, number = outputs // divisor, number + 1
    yield _conv(f"features.{number}.0", 1280 // divisor, channels, 1, f"features.{number}.1")
    yield Layer("classifier.1", (1000 // divisor, 1280 // divisor), bias=True)


def _resnet50(divisor: int) -> Iterator[Layer]:
    """Bottlenecks, of which the first of each stage has a convolution in its shortcut."""
    channels = 64 // divisor
    yield _conv("conv1", channels, 3, 7, "bn1")
    for stage, (width, repeats) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        inner, outer = width // divisor, 4 * width // divisor
        for block in range(_repeats(repeats, divisor)):
            name = f"layer{stage}.{block}"
            yield _conv(f"{name}.conv1", inner, channels, 1, f"{name}.bn1")
            yield _conv(f"{name}.conv2", inner, inner, 3, f"{name}.bn2")
            yield _conv(f"{name}.conv3", outer, inner, 1, f"{name}.bn3")
            if block == 0:
                yield _conv(f"{name}.downsample.0", outer, channels, 1, f"{name}.downsample.1")
            channels = outer
    yield Layer("fc", (1000 // divisor, channels), bias=True)


def _vgg16(divisor: int) -> Iterator[Layer]:
    """Convolutions with biases, and three full connections, of which the first is the largest by far."""
    plan = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)
    channels, number = 3, 0
    for width in plan:
        if width:
            yield Layer(f"features.{number}", (width // divisor, channels, 3, 3), bias=True)
            channels = width // divisor
        number += 2 if width else 1
    hidden = 4096 if divisor == 1 else 2048 // divisor
    yield Layer("classifier.0", (hidden, channels * 49), bias=True)
    yield Layer("classifier.3", (hidden, hidden), bias=True)
    yield Layer("classifier.6", (1000 if divisor == 1 else 500 // divisor, hidden), bias=True)


def _dcase(divisor: int) -> Iterator[Layer]:
    """A small network for acoustic scenes: two convolutions with batch-norm, two full connections."""
    yield _conv("conv1", 32 // divisor, 1, 7, "bn1")
    yield _conv("conv2", 64 // divisor, 32 // divisor, 7, "bn2")
    yield Layer("fc1", (100 // divisor, 128 // divisor), bias=True)
    yield Layer("fc2", (10, 100 // divisor), bias=True)


def _uc12b(divisor: int) -> Iterator[Layer]:
    """An auto-encoder for images: convolutions, and transposed ones back."""
    widths = (3, 32 // divisor, 64 // divisor, 128 // divisor)
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        yield Layer(f"encoder.{2 * number}", (outputs, inputs, 3, 3), bias=True)
    for number, (outputs, inputs) in enumerate(zip(widths[-2::-1], widths[:0:-1], strict=True)):
        # Transposed convolutions have their inputs first, so that a bias has another length than the rows.
        yield Layer(f"decoder.{2 * number}", (inputs, outputs, 3, 3))


def _conv(name: str, outputs: int, inputs: int, size: int, batch_norm: str) -> Layer:
    return Layer(name, (outputs, inputs, size, size), batch_norm)


def _repeats(count: int, divisor: int) -> int:
    return count if divisor == 1 else (count + 1) // 2


_MODELS = {
    "MobileNetV2": (_mobilenet_v2, 8),
    "ResNet50": (_resnet50, 8),
    "VGG16": (_vgg16, 16),
    "DCase": (_dcase, 2),
    "UC12B": (_uc12b, 2),
}
