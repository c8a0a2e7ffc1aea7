"""Training for a small bitstream: what the loss terms and local scaling do to a network for handwritten digits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import nnc_core
from nnc_adapters import pytorch
from nnc_adapters.pytorch.scaling import fisher_information, row_scaling
from nnc_core import CodingParameters, ModelError
from nnc_core.reduction import prune_and_sparsify

Term = Callable[[nn.Module], torch.Tensor]

_PIXELS, _LABELS = load_digits(return_X_y=True)
_IMAGES, LABELS = torch.tensor(_PIXELS / 16, dtype=torch.float32), torch.tensor(_LABELS)
_HELD_OUT = torch.arange(len(LABELS)) % 4 == 0
TRAINING, TRUE = _IMAGES[~_HELD_OUT], LABELS[~_HELD_OUT]
WEIGHTS = ("0.weight", "2.weight")


def accuracy(module: Callable[..., Any]) -> float:
    """Of the quarter that no training has seen."""
    with torch.no_grad():
        return float((module(_IMAGES[_HELD_OUT]).argmax(1) == LABELS[_HELD_OUT]).float().mean())


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(zip(TRAINING.split(64), TRUE.split(64), strict=True))


def cross_entropy(module: Callable[..., Any], batch: Any) -> torch.Tensor:
    images, labels = batch
    return nn.functional.cross_entropy(module(images), labels)


def train(module: nn.Module, optimizer: torch.optim.Optimizer, term: Term | None, factor: float, epochs: int) -> None:
    order = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for chosen in torch.randperm(len(TRUE), generator=order).split(64):
            optimizer.zero_grad()
            loss = cross_entropy(module, (TRAINING[chosen], TRUE[chosen]))
            if term is not None:
                loss = loss + factor * term(module)
            torch.autograd.backward(loss)
            optimizer.step()


def trained(term: Term | None = None, factor: float = 0.0) -> nn.Sequential:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 10))
    train(module, torch.optim.Adam(module.parameters(), lr=3e-3), term, factor, 25)
    return module


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks as small as these only wait for other threads; and results do not depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def plain(one_thread: None) -> nn.Sequential:
    return trained()


def arrays(module: nn.Module) -> dict[str, Any]:
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def sent(module: nn.Module, data: bytes) -> nn.Module:
    return pytorch.load(data, deepcopy(module))


# --- loss terms -------------------------------------------------------------------------------------------------------


def linear(*rows: list[float]) -> nn.Linear:
    module = nn.Linear(len(rows[0]), len(rows))
    with torch.no_grad():
        module.weight.copy_(torch.tensor(rows))
    return module


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([[2.0, 2.0], [-2.0, 2.0]], 1.0), ([[0.0, 0.0], [5.0, 0.0]], 0.5), ([[3.0, 4.0], [0.0, 0.0]], 7 / 5 / 2)],
)
def test_the_compressibility_loss_is_a_ratio_of_norms(rows: list[list[float]], expected: float) -> None:
    assert float(pytorch.compressibility_loss(linear(*rows)).detach()) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [([[1.0, 0.0], [0.0, 3.0]], 0.0), ([[1.0, 2.0], [1.0, 2.0]], 0.5), ([[1.0, 0.0], [1.0, 1.0]], 2 / 7)],
)
def test_the_diversity_loss_is_the_share_of_different_rows(rows: list[list[float]], expected: float) -> None:
    """Products of the last: 1 and 4 of rows with themselves, 1 and 1 of different ones, squared."""
    assert float(pytorch.diversity_loss(linear(*rows)).detach()) == pytest.approx(expected)


def test_loss_terms_have_finite_gradients_for_weights_of_zeros() -> None:
    module = linear([0.0, 0.0], [0.0, 0.0])
    for term in (pytorch.compressibility_loss, pytorch.diversity_loss):
        (gradient,) = torch.autograd.grad(term(module), [module.weight])
        assert torch.isfinite(gradient).all()
    with pytest.raises(ModelError, match="no parameters with two dimensions"):
        pytorch.diversity_loss(nn.ReLU())


def test_the_compressibility_loss_makes_the_bitstream_smaller_at_equal_accuracy(plain: nn.Sequential) -> None:
    module = trained(pytorch.compressibility_loss, 1.0)
    sizes = [len(nnc_core.encode(arrays(each))) for each in (plain, module)]
    assert sizes[1] < 0.75 * sizes[0]
    assert accuracy(sent(module, nnc_core.encode(arrays(module)))) > accuracy(plain) - 0.006


def test_the_diversity_loss_makes_rows_superfluous_at_equal_accuracy(plain: nn.Sequential) -> None:
    module = trained(pytorch.diversity_loss, 3.0)
    sizes = [len(nnc_core.encode(arrays(each))) for each in (plain, module)]
    assert sizes[1] < 0.9 * sizes[0]
    assert accuracy(sent(module, nnc_core.encode(arrays(module)))) > accuracy(plain) - 0.006
    losses = []
    for each in (plain, module):
        found = prune_and_sparsify(arrays(each), 0.4, inputs={"2.weight": "0.weight"})
        losses.append(accuracy(each) - accuracy(sent(each, nnc_core.encode(found.parameters))))
    assert losses[1] < losses[0] / 2


def test_what_was_reduced_stays_so_while_training_goes_on(plain: nn.Sequential) -> None:
    module = deepcopy(plain)
    found = prune_and_sparsify(arrays(module), 0.0, 0.9)
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    handle = pytorch.keep_zeros(module, optimizer, found.sparse)
    before = accuracy(module)
    train(module, optimizer, None, 0, 5)
    assert accuracy(module) > before + 0.02
    for name, mask in found.sparse.items():
        assert not arrays(module)[name][mask].any()
    handle.remove()
    train(module, optimizer, None, 0, 1)
    assert arrays(module)["0.weight"][found.sparse["0.weight"]].any()


def test_masks_must_fit_the_parameters() -> None:
    module = linear([1.0, 2.0])
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    for gone in ({"weight": np.ones((2, 2), bool)}, {"absent": np.ones((1, 2), bool)}):
        with pytest.raises(ModelError, match="is not a parameter with the shape of its mask"):
            pytorch.keep_zeros(module, optimizer, gone)


# --- local scaling ----------------------------------------------------------------------------------------------------


def test_fisher_information_is_the_mean_square_of_gradients() -> None:
    """The loss a x of a row has the gradient x: the sum of 1 + 4 + 9 + 16 over two rows and two batches."""
    module = linear([1.0, 1.0], [1.0, 1.0])
    inputs = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])]
    found = fisher_information(module, inputs, lambda module, x: (module(x) * torch.tensor([1.0, 10.0])).sum())
    np.testing.assert_allclose(found["weight"], [15, 1500])


def test_factors_of_rows_go_with_the_inverse_root_within_bounds() -> None:
    np.testing.assert_allclose(row_scaling(np.array([1.0, 4.0, 16.0])), [2, 1, 0.5])
    assert row_scaling(np.array([1e-9, 1e9])).tolist() == [4, 0.25]
    assert row_scaling(np.zeros(2)).tolist() == [1, 1]
    assert np.isfinite(row_scaling(np.array([0.0, 1.0]))).all()


def uneven() -> nn.Sequential:
    """Half of the hidden neurons matter ten times as much as the others."""
    torch.manual_seed(2)
    module = nn.Sequential(nn.Linear(32, 32, bias=False), nn.Linear(32, 8, bias=False))
    with torch.no_grad():
        module[1].weight[:, :16] *= 10
    return module


def test_rows_that_matter_more_get_finer_steps() -> None:
    module, inputs = uneven(), list(torch.randn(200, 1, 32, generator=torch.Generator().manual_seed(3)))
    probes = torch.randn(200, 8, generator=torch.Generator().manual_seed(4))

    def projected(module: Callable[..., Any], batch: int) -> torch.Tensor:
        return (module(inputs[batch]) * probes[batch]).sum()

    def error(data: bytes) -> float:
        whole = torch.cat(inputs)
        with torch.no_grad():
            return float((sent(module, data)(whole) - module(whole)).square().mean())

    settings = CodingParameters(bits_per_weight=3)
    even = pytorch.compress_scaled(module, range(200), projected, parameters=settings, rows=False)
    by_rows = pytorch.compress_scaled(module, range(200), projected, parameters=settings)
    assert error(by_rows) < 0.7 * error(even)
    assert len(by_rows) < 1.06 * len(even)


def test_any_decoder_of_the_standard_reads_local_scaling() -> None:
    """Part 18's functions give what loading gives, and a decoder without them the members of the block."""
    module = uneven()
    data = pytorch.compress_scaled(module, [torch.ones(1, 32)], lambda module, x: module(x).sum())
    whole = nnc_core.approx_coder.decode(data)["parameters"]  # type: ignore[attr-defined]
    loaded = pytorch.state_dict(data)
    assert whole.keys() == loaded.keys() == {"0.weight", "1.weight"}
    members = nnc_core.decode(data)
    for name in loaded:
        np.testing.assert_array_equal(whole[name], loaded[name].numpy())
        np.testing.assert_allclose(members[name] * members[f"{name}_scaling"][:, None], whole[name], rtol=1e-6)


def test_trained_local_scaling_makes_up_for_coarse_steps(plain: nn.Sequential) -> None:
    """At half a bit for each weight: much better than without, and than a larger bitstream without."""

    def made(bits: float, epochs: int) -> bytes:
        settings = CodingParameters(bits_per_weight=bits)
        return pytorch.compress_scaled(
            plain, batches(), cross_entropy, parameters=settings, epochs=epochs, learning_rate=5e-3
        )

    without, larger, tuned = made(0.5, 0), made(0.6, 0), made(0.5, 10)
    assert len(tuned) < len(larger)
    held_out = (_IMAGES[_HELD_OUT], LABELS[_HELD_OUT])
    with torch.no_grad():
        losses = [float(cross_entropy(sent(plain, data), held_out)) for data in (without, larger, tuned)]
    assert losses[2] < min(0.6 * losses[0], losses[1])


def test_a_module_is_left_as_it_was(plain: nn.Sequential) -> None:
    before, training = deepcopy(plain.state_dict()), plain.training
    pytorch.compress_scaled(plain, batches()[:2], cross_entropy, epochs=1)
    assert plain.training == training
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())
    assert all(parameter.grad is None or not parameter.grad.isnan().any() for parameter in plain.parameters())


def test_a_loss_that_tells_nothing_is_refused(plain: nn.Sequential) -> None:
    with pytest.raises(ModelError, match="there are no batches"):
        pytorch.compress_scaled(plain, [], cross_entropy)
    with pytest.raises(ModelError, match="gradients are not finite"):
        pytorch.compress_scaled(plain, batches()[:1], lambda module, batch: cross_entropy(module, batch) * np.inf)


# --- evaluation -------------------------------------------------------------------------------------------------------


def test_a_module_is_as_small_as_its_accuracy_allows(plain: nn.Sequential) -> None:
    before = deepcopy(plain.state_dict())
    evaluation = pytorch.evaluation(plain, accuracy, tolerance=0.01)
    plan = nnc_core.optimize(arrays(plain), evaluation)
    data = nnc_core.encode(arrays(plain), plan=plan)
    assert accuracy(sent(plain, data)) >= accuracy(plain) - 0.01
    assert len(data) < 0.6 * len(nnc_core.encode(arrays(plain)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in plain.state_dict().items())
