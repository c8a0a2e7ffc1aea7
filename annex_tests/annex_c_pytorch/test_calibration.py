"""Modules compressed for their outputs on calibration batches: smaller errors, everything left as it was, errors."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from nnc_adapters.pytorch import compress, load
from nnc_adapters.pytorch.calibration import _convolved, calibrated
from nnc_adapters.shared.calibration import patches
from nnc_core import CodingParameters, ModelError, SourceModel


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


def covariances(module: nn.Module, *batches: Any) -> dict[str, list[np.ndarray]]:
    """What is recorded of the inputs of each weight."""
    tensors = {name: value.numpy() for name, value in module.state_dict().items()}
    found = calibrated(SourceModel(tensors), module, batches).inputs
    return {name: [each.mean for each in known.covariances] for name, known in found.items()}


def mean_square(inputs: torch.Tensor) -> np.ndarray:
    rows = inputs.detach().reshape(-1, inputs.shape[-1]).double().numpy()
    return rows.T @ rows / len(rows)


@pytest.mark.parametrize("kdim", [8, 6])
def test_attention_is_calibrated_with_queries_keys_values_and_what_it_mixes(kdim: int) -> None:
    torch.manual_seed(1)
    layer = nn.MultiheadAttention(8, 2, kdim=kdim, batch_first=True, bias=False).eval()
    query, key, value = (torch.randn(3, 5, width) for width in (8, kdim, 8))
    found = covariances(layer, (query, key, value))
    if kdim == 8:
        parts, weights = found.pop("in_proj_weight"), layer.in_proj_weight.chunk(3)
    else:
        parts = [found.pop(f"{name}_proj_weight")[0] for name in "qkv"]
        weights = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
    for part, inputs in zip(parts, (query, key, value), strict=True):
        np.testing.assert_allclose(part, mean_square(inputs), rtol=1e-5, atol=1e-6)
    heads = ((x @ w.T).unflatten(-1, (2, 4)).transpose(1, 2) for x, w in zip((query, key, value), weights, strict=True))
    mixed = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    np.testing.assert_allclose(found.pop("out_proj.weight")[0], mean_square(mixed), rtol=1e-4, atol=1e-6)
    assert not found


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers_are_calibrated_with_inputs_and_states(kind: str, batch_first: bool) -> None:
    torch.manual_seed(2)
    layer = getattr(nn, kind)(6, 5, num_layers=2, batch_first=batch_first)
    inputs = torch.randn(3, 4, 6)
    states = [torch.randn(2, 3 if batch_first else 4, 5) for _ in range(2 if kind == "LSTM" else 1)]
    found = covariances(layer, (inputs, tuple(states) if kind == "LSTM" else states[0]))
    steps = inputs.transpose(0, 1) if batch_first else inputs
    for index in range(2):
        cell = getattr(nn, f"{kind}Cell")(steps.shape[-1], 5)
        cell.load_state_dict(
            {n: getattr(layer, f"{n}_l{index}") for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        )
        state, before, after = tuple(each[index] for each in states), [], []
        for step in steps:
            before.append(state[0])
            state = cell(step, state) if kind == "LSTM" else (cell(step, state[0]),)
            after.append(state[0])
        np.testing.assert_allclose(found[f"weight_ih_l{index}"][0], mean_square(steps), rtol=1e-4, atol=1e-5)
        expected = mean_square(torch.cat(before))
        np.testing.assert_allclose(found[f"weight_hh_l{index}"][0], expected, rtol=1e-4, atol=1e-5)
        steps = torch.stack(after)


def test_both_ways_of_a_recurrent_layer_have_states_of_their_own() -> None:
    torch.manual_seed(3)
    layer, inputs = nn.GRU(6, 5, bidirectional=True), torch.randn(7, 1, 6)
    found = covariances(layer, inputs)
    twin = nn.GRU(6, 5)
    twin.load_state_dict({name: getattr(layer, f"{name}_reverse") for name in twin.state_dict()})
    outputs = twin(inputs.flip(0))[0]
    expected = mean_square(torch.cat([torch.zeros(1, 1, 5), outputs[:-1]]))
    np.testing.assert_allclose(found["weight_hh_l0_reverse"][0], expected, rtol=1e-4, atol=1e-6)
    packed = nn.utils.rnn.pack_padded_sequence(torch.randn(4, 2, 6), torch.tensor([4, 2]))
    assert covariances(layer, (packed,)).keys() == found.keys()


def test_cells_and_transposed_convolutions_are_calibrated() -> None:
    torch.manual_seed(4)
    cell, inputs, state = nn.GRUCell(6, 5), torch.randn(9, 6), torch.randn(9, 5)
    found = covariances(cell, (inputs, state))
    np.testing.assert_allclose(found["weight_ih"][0], mean_square(inputs), rtol=1e-5)
    np.testing.assert_allclose(found["weight_hh"][0], mean_square(state), rtol=1e-5)
    images = torch.randn(2, 3, 4, 4)
    (weight,) = covariances(nn.ConvTranspose2d(3, 5, 2), images).values()
    np.testing.assert_allclose(weight[0], mean_square(images.movedim(1, -1)), rtol=1e-5)


class Sequences(nn.Module):
    """Everything that is calibrated and is neither a matrix nor a convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(6)
        self.up = nn.ConvTranspose1d(8, 16, 2, stride=2)
        self.memory = nn.LSTM(16, 12, batch_first=True, bidirectional=True)
        self.block = nn.TransformerEncoderLayer(24, 3, 32, batch_first=True)
        self.answer = nn.Linear(24, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.answer(self.block(self.memory(self.up(rows).transpose(1, 2))[0]))


def test_a_module_of_every_kind_of_layer_errs_less() -> None:
    mixing = torch.randn(8, 8, generator=torch.Generator().manual_seed(7)) * torch.linspace(1, 0.05, 8)
    rows = (torch.randn(2, 64, 6, 8, generator=torch.Generator().manual_seed(8)) @ mixing).transpose(2, 3)
    weights = {name for name, value in Sequences().state_dict().items() if value.ndim > 1}
    assert covariances(Sequences(), rows[0]).keys() == weights
    p, errors = CodingParameters(bits_per_weight=4), []
    for data in (compress(Sequences(), parameters=p), compress(Sequences(), parameters=p, calibrate=[rows[0]])):
        with torch.no_grad():
            outputs = [module.eval()(rows[1]) for module in (Sequences(), load(data, Sequences()))]
        errors.append(float((outputs[0] - outputs[1]).square().sum()))
    assert errors[1] < 0.6 * errors[0]


def test_large_images_are_taken_in_pieces_that_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, images = nn.Conv2d(4, 6, 3, padding=1, groups=2), torch.randn(2, 4, 7, 5)
    (whole,) = covariances(layer, images).values()
    monkeypatch.setattr("nnc_adapters.shared.calibration._AT_ONCE", 100)
    (pieces,) = covariances(layer, images).values()
    np.testing.assert_allclose(pieces, whole, rtol=1e-9)


def test_weights_are_probed_with_some_of_many_batches() -> None:
    class Counted(nn.Linear):
        calls = 0

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(inputs)

    module = Counted(20, 10)
    compress(module, calibrate=list(torch.randn(130, 20)))
    assert module.calls == 130 + 2 * 44


def test_layers_with_very_many_inputs_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnc_adapters.shared.calibration.WIDEST", 100)
    data = io.BytesIO()
    report = compress(Net(), data, calibrate=[smooth_images(8, 4)])
    assert report.uncalibrated == ("third.weight",)
    assert len(report.calibrated) == 3


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
