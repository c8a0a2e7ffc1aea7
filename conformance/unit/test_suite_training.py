"""Training for the suite is exact, so that every machine makes the same updates."""

from zlib import crc32

import numpy as np
import pytest

from conformance.suite import training
from conformance.suite.networks import _NETWORKS, _balanced, _start
from conformance.suite.standins import Layer, integers, layers, model_of, stand_in
from conformance.suite.training import (
    PARAMETER,
    BatchNorm,
    Convolution,
    Data,
    Dense,
    Depthwise,
    Pool,
    Relu,
    Residual,
    digits,
    epoch,
    forward,
    on_grid,
)

WIDE = np.finfo(np.longdouble).nmant > 60


def small_layers() -> list[Layer]:
    convolution = Layer("first", (4, 1, 3, 3), "first_bn")
    return [convolution, Layer("second", (4, 1, 3, 3), "second_bn"), Layer("last", (10, 64), bias=True)]


def small_network() -> list[training.Layer]:
    way = [Depthwise("second", 2), BatchNorm("second_bn")]
    return [Convolution("first"), BatchNorm("first_bn"), Relu(), Residual(way, [Pool()]), Relu(), Dense("last")]


SMALL = (small_layers, small_network)
"""Every kind of layer that there is."""


def network(name: str) -> tuple[list[training.Layer], training.Parameters]:
    described, made = SMALL if name == "small" else _NETWORKS[name]
    model, built = model_of(list(described()), seed=name), made()
    values = {tensor: _start(tensor, array.astype(np.float64)) for tensor, array in model.tensors.items()}
    start = {tensor: on_grid(array, PARAMETER) for tensor, array in values.items()}
    return built, _balanced(built, start, digits().part(0, 16))


@pytest.mark.skipif(not WIDE, reason="no floats here that are wider than binary64")
@pytest.mark.parametrize("name", ["small", "VGG11"])
def test_an_epoch_is_the_same_in_wider_arithmetic(name: str) -> None:
    built, start = network(name)
    data = digits().part(100, 8)
    usual = epoch(built, start, data, 2.0**-8, list(start), batch_size=8)
    wide = {tensor: values.astype(np.longdouble) for tensor, values in start.items()}
    wider = epoch(built, wide, Data(data.images.astype(np.longdouble), data.labels), 2.0**-8, list(start), batch_size=8)
    assert all(np.array_equal(usual[tensor], wider[tensor]) for tensor in start)
    assert any((usual[tensor] != start[tensor]).any() for tensor in start)


def test_an_epoch_does_not_depend_on_the_order_of_a_batch() -> None:
    built, start = network("VGG11")
    data = digits().part(100, 64)
    turned = Data(data.images[::-1].copy(), data.labels[::-1].copy())
    one, other = (epoch(built, start, each, 2.0**-8, list(start)) for each in (data, turned))
    assert all(np.array_equal(one[name], other[name]) for name in start)


def test_parameters_stay_on_their_grid_which_float32_holds() -> None:
    built, start = network("small")
    after = epoch(built, start, digits().part(0, 8), 2.0**-8, list(start), batch_size=8)
    for values in after.values():
        assert np.array_equal(on_grid(values, PARAMETER), values)
        assert np.array_equal(values.astype(np.float32), values)


def test_training_learns() -> None:
    built, p = network("VGG11")
    data = digits().part(0, 256)
    before = np.square(forward(built, p, data.images) - np.eye(10)[data.labels]).mean()
    for _ in range(3):
        p = epoch(built, p, data, 2.0**-8, list(p), batch_size=16)
    after = np.square(forward(built, p, data.images) - np.eye(10)[data.labels]).mean()
    assert after < 0.75 * before


def test_weights_are_hashed_numbers() -> None:
    def hashed(number: int) -> int:
        state = (number * 0x9E3779B97F4A7C15 + (crc32(b"a seed") << 32)) % (1 << 64)
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % (1 << 64)
        state = (state ^ state >> 27) * 0x94D049BB133111EB % (1 << 64)
        state ^= state >> 31
        return sum(state >> shift & 0xFFFF for shift in (0, 16, 32, 48)) - 2 * 65535

    assert integers("a seed", 100).tolist() == [hashed(number) for number in range(1, 101)]
    weights = stand_in("DCase").tensors["conv1.weight"].astype(np.float64) * 2.0**24
    assert np.array_equal(weights, np.rint(weights))


@pytest.mark.parametrize(
    ("name", "millions"), [("MobileNetV2", 3.5), ("ResNet50", 25.6), ("VGG16", 138.4), ("DCase", 0.12), ("UC12B", 0.19)]
)
def test_full_size_models_have_as_many_weights_as_the_true_ones(name: str, millions: float) -> None:
    count = sum(int(np.prod(layer.shape)) for layer in layers(name, full_size=True))
    assert count / 1e6 == pytest.approx(millions, rel=0.05)
