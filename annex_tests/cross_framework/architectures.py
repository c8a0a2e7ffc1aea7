"""Well-known networks of images in PyTorch and Keras, whose weights move both ways.

    python -m annex_tests.cross_framework.architectures [NAME ...]

Weights and statistics are random; epsilons and paddings are those of the other framework. Input is 64 x 64, so that
what is flattened is an image of 2 x 2.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

SIZE = 64
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Pair:
    """A network twice, with other weights."""

    module: Any
    model: Any


def _module(run: Callable[..., Any], **layers: Any) -> Any:
    import torch

    class Net(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for name, layer in layers.items():
                setattr(self, name, layer)

        def forward(self, x: Any) -> Any:
            return run(self, x)

    return Net()


def _unit(
    nn: Any, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: Any = None
) -> Any:
    """Convolution without bias, batch normalization, and an activation."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), *([act] if act else []))


def _keras_unit(
    x: Any, outputs: int, kernel: int = 3, stride: int = 1, *, depthwise: bool = False, act: Any = None
) -> Any:
    from keras import layers

    if kernel > 1:
        x = layers.ZeroPadding2D(kernel // 2)(x)
    if depthwise:
        x = layers.DepthwiseConv2D(kernel, strides=stride, use_bias=False)(x)
    else:
        x = layers.Conv2D(outputs, kernel, strides=stride, use_bias=False)(x)
    x = layers.BatchNormalization(epsilon=1e-5)(x)
    return layers.ReLU(max_value=act)(x) if act is not False else x


def resnet18(width: int = 64) -> Pair:
    """As torchvision has it."""
    import keras
    from keras import layers
    from torch import nn

    def block(inputs: int, outputs: int, stride: int) -> Any:
        parts = {"conv1": nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), "bn1": nn.BatchNorm2d(outputs)}
        parts |= {"relu": nn.ReLU(True), "conv2": nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)}
        parts["bn2"] = nn.BatchNorm2d(outputs)
        if stride > 1:
            parts["downsample"] = _unit(nn, inputs, outputs, 1, stride)

        def run(s: Any, x: Any) -> Any:
            y = s.bn2(s.conv2(s.relu(s.bn1(s.conv1(x)))))
            return s.relu(y + (s.downsample(x) if stride > 1 else x))

        return _module(run, **parts)

    sizes = [width, width, 2 * width, 4 * width, 8 * width]
    stages = {
        f"layer{k}": nn.Sequential(block(sizes[k - 1], sizes[k], 1 if k == 1 else 2), block(sizes[k], sizes[k], 1))
        for k in range(1, 5)
    }

    def run(s: Any, x: Any) -> Any:
        x = s.maxpool(s.relu(s.bn1(s.conv1(x))))
        for name in stages:
            x = getattr(s, name)(x)
        return s.fc(s.avgpool(x).flatten(1))

    first = {"conv1": nn.Conv2d(3, width, 7, 2, 3, bias=False), "bn1": nn.BatchNorm2d(width), "relu": nn.ReLU(True)}
    last = {"avgpool": nn.AdaptiveAvgPool2d(1), "fc": nn.Linear(8 * width, 10)}
    module = _module(run, **first, maxpool=nn.MaxPool2d(3, 2, 1), **stages, **last)

    inputs = keras.Input((SIZE, SIZE, 3))
    x = _keras_unit(inputs, width, 7, 2)
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    for k in range(1, 5):
        for stride in (1 if k == 1 else 2, 1):
            y = _keras_unit(_keras_unit(x, sizes[k], 3, stride), sizes[k], act=False)
            side = _keras_unit(x, sizes[k], 1, stride, act=False) if stride > 1 else x
            x = layers.ReLU()(layers.Add()([y, side]))
    return Pair(module, keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x))))


def _mobile_settings() -> list[tuple[int, int, int, int]]:
    """Expansion, channels, how often, stride."""
    return [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]


def _mobile_module(epsilon: float) -> Any:
    from torch import nn

    def block(inputs: int, outputs: int, stride: int, times: int) -> Any:
        hidden = inputs * times
        parts = [_unit(nn, inputs, hidden, 1, act=nn.ReLU6())] if times > 1 else []
        parts += [_unit(nn, hidden, hidden, 3, stride, hidden, nn.ReLU6()), _unit(nn, hidden, outputs, 1)]
        same = stride == 1 and inputs == outputs
        return _module(lambda s, x: s.conv(x) + x if same else s.conv(x), conv=nn.Sequential(*parts))

    features, channels = [_unit(nn, 3, 32, 3, 2, act=nn.ReLU6())], 32
    for times, outputs, count, stride in _mobile_settings():
        for k in range(count):
            features.append(block(channels, outputs, stride if k == 0 else 1, times))
            channels = outputs
    features.append(_unit(nn, channels, 1280, 1, act=nn.ReLU6()))
    module = _module(
        lambda s, x: s.classifier(s.features(x).mean((2, 3))),
        features=nn.Sequential(*features),
        classifier=nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 10)),
    )
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eps = epsilon
    return module


def mobilenet_v2() -> Pair:
    """As torchvision has it."""
    import keras
    from keras import layers

    inputs = keras.Input((SIZE, SIZE, 3))
    x, channels = _keras_unit(inputs, 32, 3, 2, act=6.0), 32
    for times, outputs, count, first in _mobile_settings():
        for k in range(count):
            stride = first if k == 0 else 1
            y = _keras_unit(x, channels * times, 1, act=6.0) if times > 1 else x
            y = _keras_unit(_keras_unit(y, 0, 3, stride, depthwise=True, act=6.0), outputs, 1, act=False)
            x = layers.Add()([x, y]) if stride == 1 and channels == outputs else y
            channels = outputs
    x = layers.GlobalAveragePooling2D()(_keras_unit(x, 1280, 1, act=6.0))
    return Pair(_mobile_module(1e-5), keras.Model(inputs, layers.Dense(10)(layers.Dropout(0.2)(x))))


def _vgg_module(settings: list[int], hidden: int) -> Any:
    from torch import nn

    features, channels = [], 3
    for size in settings:
        features += [nn.MaxPool2d(2)] if size == 0 else [nn.Conv2d(channels, size, 3, padding=1), nn.ReLU(True)]
        channels = size or channels
    head = [nn.Linear(channels * 4, hidden), nn.ReLU(True), nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU(True)]
    return _module(
        lambda s, x: s.classifier(s.features(x).flatten(1)),
        features=nn.Sequential(*features),
        classifier=nn.Sequential(*head, nn.Dropout(), nn.Linear(hidden, 10)),
    )


def vgg11() -> Pair:
    """As torchvision has it."""
    import keras
    from keras import layers

    settings = [64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0]
    x = inputs = keras.Input((SIZE, SIZE, 3))
    for size in settings:
        x = layers.Conv2D(size, 3, padding="same", activation="relu")(x) if size else layers.MaxPooling2D()(x)
    x = layers.Flatten()(x)
    for _ in range(2):
        x = layers.Dropout(0.5)(layers.Dense(1024, activation="relu")(x))
    return Pair(_vgg_module(settings, 1024), keras.Model(inputs, layers.Dense(10)(x)))


def keras_vgg16() -> Pair:
    """As keras.applications has it."""
    import keras

    settings = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0]
    options = {"weights": None, "input_shape": (SIZE, SIZE, 3), "classes": 10, "classifier_activation": None}
    return Pair(_vgg_module(settings, 4096), keras.applications.VGG16(**options))


def keras_mobilenet_v2() -> Pair:
    """As keras.applications has it: padded at the lower right where it strides."""
    import keras
    from torch import nn

    module = _mobile_module(1e-3)
    for layer in list(module.modules()):
        for name, inner in list(layer.named_children()):
            if isinstance(inner, nn.Conv2d) and inner.stride == (2, 2):
                inner.padding = (0, 0)
                setattr(layer, name, nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), inner))
    options = {"weights": None, "input_shape": (SIZE, SIZE, 3), "classes": 10, "classifier_activation": None}
    return Pair(module, keras.applications.MobileNetV2(**options))


def keras_resnet50() -> Pair:
    """As keras.applications has it: convolutions with biases, strides in the first of a block."""
    import keras
    from torch import nn

    def unit(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> Any:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs, eps=1.001e-5))

    def block(inputs: int, size: int, stride: int, side: bool) -> Any:
        parts = {"a": unit(inputs, size, 1, stride), "b": unit(size, size, 3), "c": unit(size, 4 * size)}
        parts |= {"side": unit(inputs, 4 * size, 1, stride)} if side else {}

        def run(s: Any, x: Any) -> Any:
            y = s.c(s.b(s.a(x).relu()).relu())
            return (y + (s.side(x) if side else x)).relu()

        return _module(run, **parts)

    stages, channels = [], 64
    for size, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for k in range(count):
            stages.append(block(channels, size, stride if k == 0 else 1, k == 0))
            channels = 4 * size
    module = _module(
        lambda s, x: s.fc(s.stages(s.pool(s.stem(x).relu())).mean((2, 3))),
        stem=unit(3, 64, 7, 2), pool=nn.MaxPool2d(3, 2, 1), stages=nn.Sequential(*stages), fc=nn.Linear(2048, 10),
    )  # fmt: skip
    options = {"weights": None, "input_shape": (SIZE, SIZE, 3), "classes": 10, "classifier_activation": None}
    return Pair(module, keras.applications.ResNet50(**options))


PAIRS: dict[str, Callable[[], Pair]] = {
    "resnet18": resnet18,
    "mobilenet_v2": mobilenet_v2,
    "vgg11": vgg11,
    "keras_vgg16": keras_vgg16,
    "keras_mobilenet_v2": keras_mobilenet_v2,
    "keras_resnet50": keras_resnet50,
}


def randomize(pair: Pair, seed: int = 1) -> None:
    """Statistics as of a trained network; the weights are random from the start."""
    generator = np.random.default_rng(seed)
    import torch

    for name, tensor in pair.module.state_dict().items():
        if tensor.dim() == 1 and tensor.is_floating_point():
            low, high = (0.5, 1.5) if "var" in name or name.endswith("weight") else (-0.2, 0.2)
            tensor.copy_(torch.from_numpy(generator.uniform(low, high, tuple(tensor.shape)).astype(np.float32)))
    for variable in pair.model.variables:
        if len(variable.shape) == 1:
            low, high = (0.5, 1.5) if variable.name in ("gamma", "moving_variance") else (-0.2, 0.2)
            variable.assign(generator.uniform(low, high, variable.shape).astype(np.float32))


@dataclass(frozen=True)
class Result:
    """Of one conversion."""

    way: str
    asked: int
    difference: float
    seconds: float


def results(pair: Pair, folder: Path, *, through_nnr: bool = False) -> Iterator[Result]:
    """Both ways with the module, then with nothing but the usual answer to what is flattened."""
    import keras
    import torch

    from nnc_adapters.convert import convert, plan

    randomize(pair)
    module = pair.module.eval()
    ours, theirs = folder / "net.pt", folder / "net.keras"
    torch.save(module.state_dict(), ours)
    pair.model.save(theirs)
    x = np.random.default_rng(2).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)

    def by_torch(path: Path) -> Any:
        module.load_state_dict(torch.load(path, weights_only=True))
        with torch.no_grad():
            return module(torch.from_numpy(x)).numpy()

    def by_keras(path: Path) -> Any:
        return keras.models.load_model(path, compile=False)(np.moveaxis(x, 1, -1)).numpy()

    expected = by_torch(ours), by_keras(theirs)
    for way, source, into, run, wanted in (
        ("to Keras", ours, theirs, by_keras, expected[0]),
        ("to PyTorch", theirs, ours, by_torch, expected[1]),
    ):
        started = time.perf_counter()
        target = folder / f"out{into.suffix}"
        asked = len(plan(source, into)["questions"])
        convert(source, target, into=into, module=module, force=True)
        found = run(target)
        difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        yield Result(way, asked, difference, time.perf_counter() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description="Convert well-known networks between PyTorch and Keras.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PAIRS))
    names = parser.parse_args().names or list(PAIRS)
    warnings.simplefilter("ignore")
    worst = 0.0
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            for result in results(PAIRS[name](), Path(folder)):
                worst = max(worst, result.difference)
                print(
                    f"{name:20} {result.way:12} differs by {result.difference:.1e}, {result.seconds:.1f} s", flush=True
                )
    return int(worst > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
