"""Training in exact arithmetic, for updates that are the same on every machine.

All numbers are multiples of powers of two that binary64 holds exactly, and so are their products and sums, in whatever
order a machine forms them. Rounding is done on purpose: to the grid of activations, of gradients, or of parameters.
Square roots and quotients are rounded alike everywhere (IEC 60559); there are no other functions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Parameters = dict[str, Array]

_ACTIVATION, _GRADIENT, PARAMETER = 2.0**-8, 2.0**-18, 2.0**-18
"""The grids."""
_LARGEST = 8.0
_EPSILON = 2.0**-16
_MOMENTUM = 2.0**-3
_MOST = 2.0**-6


def on_grid(values: Array, grid: float) -> Array:
    """The nearest multiples of ``grid``, which is a power of two; ties upwards."""
    rounded: Array = np.floor(values / grid + 0.5) * grid
    return rounded


def _activation(values: Array) -> Array:
    return np.clip(on_grid(values, _ACTIVATION), -_LARGEST, _LARGEST)


def _gradient(values: Array) -> Array:
    return np.clip(on_grid(values, _GRADIENT), -_LARGEST, _LARGEST)


class Layer:
    """One step of a network; ``forward`` keeps what ``backward`` needs."""

    def forward(self, p: Parameters, x: Array) -> Array:
        raise NotImplementedError

    def backward(self, p: Parameters, dy: Array, gradients: Parameters) -> Array:
        raise NotImplementedError

    def measure(self, p: Parameters) -> None:
        """Let running statistics follow the last batch."""


@dataclass
class Convolution(Layer):
    """A convolution with padding that keeps the size, or halves it with ``stride`` 2.

    Weights have the shape (outputs, inputs, size, size).
    """

    name: str
    stride: int = 1
    _patches: Array = field(default_factory=lambda: np.zeros(0), repr=False)
    _shape: tuple[int, ...] = ()

    def forward(self, p: Parameters, x: Array) -> Array:
        weight, self._shape = p[f"{self.name}.weight"], x.shape
        taps = [np.moveaxis(part, 1, -1) for _, part in _taps(_padded(x, weight), weight, self.stride)]
        self._patches = np.stack(taps, -1)
        y = self._patches.reshape(*taps[0].shape[:3], -1) @ weight.reshape(len(weight), -1).T
        if (bias := p.get(f"{self.name}.bias")) is not None:
            y = y + bias
        return _activation(np.moveaxis(y, -1, 1))

    def backward(self, p: Parameters, dy: Array, gradients: Parameters) -> Array:
        weight = p[f"{self.name}.weight"]
        flat, patches = np.moveaxis(dy, 1, -1).reshape(-1, len(weight)), self._patches
        if f"{self.name}.bias" in p:
            gradients[f"{self.name}.bias"] = flat.sum(0)
        gradients[f"{self.name}.weight"] = (flat.T @ patches.reshape(len(flat), -1)).reshape(weight.shape)
        spread = (flat @ weight.reshape(len(weight), -1)).reshape(patches.shape)
        around = _padded(np.zeros(self._shape), weight)
        for (_, part), change in zip(_taps(around, weight, self.stride), np.moveaxis(spread, -1, 0), strict=True):
            part += np.moveaxis(change, -1, 1)
        return _gradient(_inner(around, weight))


@dataclass
class Depthwise(Layer):
    """A convolution of each channel with a weight of its own; weights have the shape (channels, 1, size, size)."""

    name: str
    stride: int = 1
    _x: Array = field(default_factory=lambda: np.zeros(0), repr=False)

    def forward(self, p: Parameters, x: Array) -> Array:
        weight = p[f"{self.name}.weight"]
        self._x = _padded(x, weight)
        return _activation(
            sum(part * weight[:, 0, i, j, None, None] for (i, j), part in _taps(self._x, weight, self.stride))
        )

    def backward(self, p: Parameters, dy: Array, gradients: Parameters) -> Array:
        weight = p[f"{self.name}.weight"]
        around, gradient = np.zeros_like(self._x), np.zeros_like(weight)
        for ((i, j), x), (_, part) in zip(
            _taps(self._x, weight, self.stride), _taps(around, weight, self.stride), strict=True
        ):
            gradient[:, 0, i, j] = (x * dy).sum((0, 2, 3))
            part += dy * weight[:, 0, i, j, None, None]
        gradients[f"{self.name}.weight"] = gradient
        return _gradient(_inner(around, weight))


def _padded(x: Array, weight: Array) -> Array:
    around = weight.shape[-1] // 2
    return np.pad(x, ((0, 0), (0, 0), (around, around), (around, around)))


def _inner(padded: Array, weight: Array) -> Array:
    around = weight.shape[-1] // 2
    return padded[:, :, around : padded.shape[2] - around, around : padded.shape[3] - around]


def _taps(padded: Array, weight: Array, stride: int) -> Iterator[tuple[tuple[int, int], Array]]:
    """For each place of the weight, the view of the pixels that it meets."""
    size = weight.shape[-1]
    for i, j in np.ndindex(size, size):
        height, width = padded.shape[2] - size + 1 + i, padded.shape[3] - size + 1 + j
        yield (i, j), padded[:, :, i:height:stride, j:width:stride]


@dataclass
class Dense(Layer):
    """A full connection with a bias; takes what is left of an image as one vector."""

    name: str
    _x: Array = field(default_factory=lambda: np.zeros(0), repr=False)
    _shape: tuple[int, ...] = ()

    def forward(self, p: Parameters, x: Array) -> Array:
        self._shape, self._x = x.shape, x.reshape(len(x), -1)
        return _activation(self._x @ p[f"{self.name}.weight"].T + p[f"{self.name}.bias"])

    def backward(self, p: Parameters, dy: Array, gradients: Parameters) -> Array:
        gradients[f"{self.name}.weight"] = dy.T @ self._x
        gradients[f"{self.name}.bias"] = dy.sum(0)
        return _gradient(dy @ p[f"{self.name}.weight"]).reshape(self._shape)


@dataclass
class BatchNorm(Layer):
    """A batch-norm by the running statistics, which follow the batches."""

    name: str
    _x: Array = field(default_factory=lambda: np.zeros(0), repr=False)

    def _factor(self, p: Parameters) -> Array:
        return on_grid(p[f"{self.name}.weight"] / np.sqrt(p[f"{self.name}.running_var"] + _EPSILON), 2.0**-10)

    def forward(self, p: Parameters, x: Array) -> Array:
        self._x = x - on_grid(p[f"{self.name}.running_mean"], 2.0**-10)[:, None, None]
        shift = on_grid(p[f"{self.name}.bias"], 2.0**-18)
        return _activation(self._x * self._factor(p)[:, None, None] + shift[:, None, None])

    def backward(self, p: Parameters, dy: Array, gradients: Parameters) -> Array:
        inverse = on_grid(1 / np.sqrt(p[f"{self.name}.running_var"] + _EPSILON), 2.0**-6)
        gradients[f"{self.name}.weight"] = (dy * self._x).sum((0, 2, 3)) * inverse
        gradients[f"{self.name}.bias"] = dy.sum((0, 2, 3))
        return _gradient(dy * self._factor(p)[:, None, None])

    def measure(self, p: Parameters) -> None:
        mean, variance = p[f"{self.name}.running_mean"], p[f"{self.name}.running_var"]
        x = self._x + on_grid(mean, 2.0**-10)[:, None, None]
        count = x.size // x.shape[1]
        found = x.sum((0, 2, 3)) / count
        spread = np.square(x).sum((0, 2, 3)) / count - np.square(found)
        p[f"{self.name}.running_mean"] = on_grid(mean + _MOMENTUM * (found - mean), PARAMETER)
        p[f"{self.name}.running_var"] = on_grid(variance + _MOMENTUM * (np.maximum(spread, 0) - variance), PARAMETER)


@dataclass
class Relu(Layer):
    """Zero in place of what is negative."""

    _positive: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool), repr=False)

    def forward(self, p: Parameters, x: Array) -> Array:
        self._positive = x > 0
        return np.where(self._positive, x, 0.0)

    def backward(self, p: Parameters, dy: Array, gradients: Parameters) -> Array:
        return np.where(self._positive, dy, 0.0)


@dataclass
class Pool(Layer):
    """The mean of 2x2 pixels."""

    def forward(self, p: Parameters, x: Array) -> Array:
        n, c, h, w = x.shape
        return _activation(x.reshape(n, c, h // 2, 2, w // 2, 2).sum((3, 5)) / 4)

    def backward(self, p: Parameters, dy: Array, gradients: Parameters) -> Array:
        return _gradient(dy.repeat(2, 2).repeat(2, 3) / 4)


@dataclass
class Residual(Layer):
    """Two ways, whose results are added; without ``shortcut`` the second one changes nothing."""

    way: Sequence[Layer]
    shortcut: Sequence[Layer] = ()

    def forward(self, p: Parameters, x: Array) -> Array:
        return np.clip(forward(self.way, p, x) + forward(self.shortcut, p, x), -_LARGEST, _LARGEST)

    def backward(self, p: Parameters, dy: Array, gradients: Parameters) -> Array:
        return _gradient(backward(self.way, p, dy, gradients) + backward(self.shortcut, p, dy, gradients))

    def measure(self, p: Parameters) -> None:
        for layer in (*self.way, *self.shortcut):
            layer.measure(p)


def forward(network: Sequence[Layer], p: Parameters, x: Array) -> Array:
    """What the layers make of ``x``, one after another."""
    for layer in network:
        x = layer.forward(p, x)
    return x


def backward(network: Sequence[Layer], p: Parameters, dy: Array, gradients: Parameters) -> Array:
    """What a change of ``dy`` in the result means for the input, and in ``gradients`` for the parameters."""
    for layer in reversed(network):
        dy = layer.backward(p, dy, gradients)
    return dy


@dataclass(frozen=True)
class Data:
    """Images (n, 1, 8, 8) and what they show, as a number."""

    images: Array
    labels: NDArray[np.int64]

    def part(self, first: int, count: int) -> Data:
        return Data(self.images[first : first + count], self.labels[first : first + count])

    def batches(self, size: int) -> Iterator[Data]:
        return (self.part(first, size) for first in range(0, len(self.labels) - size + 1, size))


def digits() -> Data:
    """Handwritten digits, with values from -1 to 1 in steps of 1/8."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return Data(found.images[:, None].astype(np.float64) / 8 - 1, found.target.astype(np.int64))


def epoch(
    network: Sequence[Layer], p: Parameters, data: Data, rate: float, trained: Sequence[str], batch_size: int = 64
) -> Parameters:
    """The parameters after one epoch of gradient descent on the squared error; only those ``trained`` change.

    ``rate`` is a power of two, and becomes smaller where a tensor would move by too much of its size.
    """
    p = dict(p)
    for batch in data.batches(batch_size):
        wanted = np.eye(10)[batch.labels]
        error = forward(network, p, batch.images) - wanted
        gradients: Parameters = {}
        backward(network, p, _gradient(error), gradients)
        for name in trained:
            if name in gradients:
                step = min(rate, _MOST * _size(p[name], 2.0**-4) / _size(gradients[name], _GRADIENT))
                p[name] = on_grid(p[name] - step * on_grid(gradients[name], _GRADIENT), PARAMETER)
    if any("running" in name for name in trained):
        measured(network, p, data.part(0, 128))
    return p


def measured(network: Sequence[Layer], p: Parameters, data: Data) -> None:
    """Let the running statistics of all layers follow ``data``."""
    forward(network, p, data.images)
    for layer in network:
        layer.measure(p)


def _size(values: Array, least: float) -> float:
    """The power of two above the mean magnitude, but not less than ``least``."""
    mean = float(abs(on_grid(values, _GRADIENT)).sum() / values.size)
    return max(least, float(2.0 ** np.frexp(mean)[1]))
