"""Modules compressed for their outputs on calibration batches: smaller errors, everything left as it was, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nnc_adapters.pytorch import compress, load
from nnc_adapters.pytorch.calibration import _convolved
from nnc_adapters.shared.calibration import patches
from nnc_core import CodingParameters, ModelError


class Net(nn.Module):
    """A convolution, one in groups, dropout, and two matrices."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, stride=2, groups=4)
        self.drop = nn.Dropout()
        self.third = nn.Linear(16 * 9, 32)
        self.last = nn.Linear(32, 10, bias=False)

    def forward(self, images: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        hidden = self.second(self.first(images).relu() * scale).relu()
        return self.last(self.third(self.drop(hidden).flatten(1)).relu())


def smooth_images(seed: int, count: int = 96) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 3, 4, 4, generator=generator)
    return functional.interpolate(noise, size=8, mode="bilinear") + 0.02 * torch.randn(
        count, 3, 8, 8, generator=generator
    )


def output_error(data: bytes) -> float:
    before, after = Net().eval(), load(data, Net()).eval()
    with torch.no_grad():
        return float((before(smooth_images(9)) - after(smooth_images(9))).square().sum())


@pytest.mark.parametrize("bits", [2.5, 4])
def test_a_calibrated_module_of_the_same_size_errs_much_less(bits: float) -> None:
    p = CodingParameters(bits_per_weight=bits)
    usual, data = compress(Net(), parameters=p), compress(Net(), parameters=p, calibrate=[smooth_images(8)])
    assert len(data) <= 1.01 * len(usual)
    assert output_error(data) < 0.6 * output_error(usual)


@pytest.mark.parametrize("batch", [lambda x: x, lambda x: (x, 1.0), lambda x: {"images": x, "scale": 1.0}])
def test_batches_are_given_as_the_module_takes_them(batch: Callable[[torch.Tensor], Any]) -> None:
    batches = [batch(part) for part in smooth_images(8, 8).split(4)]
    p = CodingParameters(bits_per_weight=3)
    assert compress(Net(), parameters=p, calibrate=batches) == compress(
        Net(), parameters=p, calibrate=iter(smooth_images(8, 8).split(4)), threads=3
    )


def test_calibration_leaves_the_module_as_it_was() -> None:
    net = Net()
    net.first.eval()
    compress(net, calibrate=[smooth_images(8, 4)])
    assert [m.training for m in net.children()] == [False, True, True, True, True]
    assert net.training
    assert all(not m._forward_hooks for m in net.modules())
    for name, value in Net().state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value, rtol=0, atol=0)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 3, padding=2, dilation=2),
        nn.Conv1d(4, 6, 3, padding="same"),
        nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(0, 1), groups=2),
        nn.Conv2d(4, 6, 3, padding=(1, 2), padding_mode="reflect"),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="replicate"),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"),
        nn.Conv3d(4, 6, 2, padding=(1, 0, 1)),
    ],
)
def test_kernels_times_patches_make_the_outputs_of_a_convolution(layer: nn.Conv2d) -> None:
    inputs = torch.randn(2, 4, *[7] * len(layer.kernel_size))
    with torch.no_grad():
        expected = (layer(inputs) - layer.bias.reshape(-1, *[1] * len(layer.kernel_size))).numpy()
    kernels = np.split(layer.weight.detach().numpy().reshape(6, -1), layer.groups)
    found = [k @ p.T for k, p in zip(kernels, patches(*_convolved(layer, inputs.numpy())), strict=True)]
    np.testing.assert_allclose(np.concatenate(found), np.moveaxis(expected, 1, 0).reshape(6, -1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "there are no batches"),
        ([torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 9, 5)], "does not take calibration batch 1"),
        ([torch.zeros(1, 2, 8, 8)], "does not take calibration batch 0"),
        ([{"pictures": torch.zeros(1, 3, 8, 8)}], "pictures"),
        ([torch.full((1, 3, 8, 8), torch.nan)], "tensor 'first.weight': cannot be calibrated: inputs have values"),
    ],
)
def test_batches_that_do_not_fit_are_refused(batches: list[Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        compress(Net(), calibrate=batches)


def test_a_state_dict_cannot_be_calibrated() -> None:
    with pytest.raises(ModelError, match="give the module"):
        compress(Net().state_dict(), calibrate=[smooth_images(8, 4)])
