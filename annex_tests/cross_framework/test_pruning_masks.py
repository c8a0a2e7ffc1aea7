"""Masks of PyTorch's and TensorFlow's pruning: told as pruning topology, restored exactly, and applied where asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.utils import prune

import nnc_adapters
import nnc_core
from annex_tests.support.program import checked
from nnc_adapters.api import compress, decompress
from nnc_adapters.tensorflow import roles
from nnc_adapters.verification import verify
from nnc_core import ModelError
from nnc_core.reduction import masks_of


def network() -> nn.Sequential:
    """Half of the weights of the first layer are hidden one by one, and two rows of the second as a whole."""
    torch.manual_seed(3)
    module = nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 8))
    prune.l1_unstructured(module[0], "weight", amount=0.5)
    prune.ln_structured(module[2], "weight", amount=0.25, n=2, dim=0)
    return module


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.save(network().state_dict(), tmp_path / "pruned.pt")
    return tmp_path / "pruned.pt"


def masks_in(path: Path) -> tuple[Any, Any]:
    with nnc_core.open(path) as file:
        return masks_of(file.model_info, {name: info.shape for name, info in file.tensors.items()})


def test_the_masks_of_pytorch_become_pruning_topology(checkpoint: Path, tmp_path: Path) -> None:
    compress(checkpoint, tmp_path / "m.nnr")
    pruned, sparse = masks_in(tmp_path / "m.nnr")
    state = network().state_dict()
    assert pruned.keys() == {"2.weight_orig"}
    assert sparse.keys() == {"0.weight_orig"}
    np.testing.assert_array_equal(~pruned["2.weight_orig"], state["2.weight_mask"].bool().numpy())
    np.testing.assert_array_equal(~sparse["0.weight_orig"], state["0.weight_mask"].bool().numpy())


def test_a_pruned_checkpoint_of_pytorch_comes_back_as_it_was(checkpoint: Path, tmp_path: Path) -> None:
    compress(checkpoint, tmp_path / "m.nnr")
    decompress(tmp_path / "m.nnr", tmp_path / "back.pt")
    back, state = torch.load(tmp_path / "back.pt"), network().state_dict()
    assert list(back) == list(state)
    for name, tensor in state.items():
        if name.endswith("_mask"):
            assert torch.equal(back[name], tensor)
        else:
            torch.testing.assert_close(back[name], tensor, atol=0.02, rtol=0)
    module = network()
    module.load_state_dict(back)
    assert torch.equal(module[0](torch.ones(20)) == 0, network()[0](torch.ones(20)) == 0)
    assert verify(checkpoint, tmp_path / "m.nnr").accepted


def test_modules_tell_their_masks_too(tmp_path: Path) -> None:
    nnc_adapters.pytorch.compress(network(), tmp_path / "m.nnr")  # type: ignore[attr-defined]
    pruned, sparse = masks_in(tmp_path / "m.nnr")
    assert pruned.keys() | sparse.keys() == {"0.weight_orig", "2.weight_orig"}
    module = nnc_adapters.pytorch.load(tmp_path / "m.nnr", network())  # type: ignore[attr-defined]
    assert torch.equal(module[0].weight_mask, network()[0].weight_mask)


def test_masks_stay_exact_at_any_step(checkpoint: Path, tmp_path: Path) -> None:
    compress(checkpoint, tmp_path / "m.nnr", parameters=nnc_core.CodingParameters(qp=-8, nonweight_qp=-8))
    decompress(tmp_path / "m.nnr", tmp_path / "back.pt")
    back = torch.load(tmp_path / "back.pt")
    for name in ("0.weight_mask", "2.weight_mask"):
        assert torch.equal(back[name], network().state_dict()[name])


def test_what_masks_hide_can_be_left_behind(checkpoint: Path, tmp_path: Path) -> None:
    report = compress(checkpoint, tmp_path / "m.nnr")
    assert any("pruning masks hide 43 % of their weights" in warning for warning in report.warnings)
    smaller = compress(checkpoint, tmp_path / "small.nnr", drop_masked=True)
    assert smaller.bytes_after < report.bytes_after
    assert not any("masks" in warning for warning in smaller.warnings)
    decompress(tmp_path / "small.nnr", tmp_path / "back.pt")
    back, state = torch.load(tmp_path / "back.pt"), network().state_dict()
    for layer in ("0", "2"):
        mask = state[f"{layer}.weight_mask"]
        assert torch.equal(back[f"{layer}.weight_mask"], mask)
        assert not back[f"{layer}.weight_orig"][mask == 0].any()
    assert verify(checkpoint, tmp_path / "small.nnr", drop_masked=True).accepted
    assert not verify(checkpoint, tmp_path / "small.nnr").accepted


def test_tensors_can_be_written_in_their_shapes_after_pruning(checkpoint: Path, tmp_path: Path) -> None:
    compress(checkpoint, tmp_path / "m.nnr")
    decompress(tmp_path / "m.nnr", tmp_path / "small.npz", pruned=True)
    with np.load(tmp_path / "small.npz") as small:
        found = dict(small)
    module = network()
    rows = module.state_dict()["2.weight_mask"][:, 0].bool()
    assert {name: array.shape for name, array in found.items()} == {
        "0.weight": (12, 20),
        "0.bias": (12,),
        "2.weight": (6, 12),
        "2.bias": (8,),
    }
    np.testing.assert_array_equal(found["0.weight"] == 0, module[0].weight.detach().numpy() == 0)
    np.testing.assert_allclose(found["0.weight"], module[0].weight.detach(), atol=0.02)
    np.testing.assert_allclose(found["2.weight"], module[2].weight.detach()[rows], atol=0.02)
    with pytest.raises(ModelError, match=r"go to files that end in .safetensors or .npz"):
        decompress(tmp_path / "m.nnr", tmp_path / "small.pt", pruned=True)


def test_a_bitstream_that_tells_nothing_of_pruning_has_no_shapes_after_it(tmp_path: Path) -> None:
    torch.save({"w": torch.randn(8, 8)}, tmp_path / "m.pt")
    compress(tmp_path / "m.pt", tmp_path / "m.nnr")
    with pytest.raises(ModelError, match="does not tell what was pruned"):
        decompress(tmp_path / "m.nnr", tmp_path / "small.npz", pruned=True)


def test_the_command_line_has_the_same_options(checkpoint: Path, tmp_path: Path) -> None:
    checked("compress", checkpoint, "--drop-masked")
    stream = checkpoint.with_suffix(".nnr")
    checked("verify", checkpoint, stream, "--drop-masked")
    checked("decompress", stream, "-o", tmp_path / "s.safetensors", "--pruned")
    assert set(nnc_adapters.pytorch.PytorchAdapter().read(tmp_path / "s.safetensors").tensors) == {  # type: ignore[attr-defined]
        "0.weight",
        "2.weight",
    }


def test_names_alone_make_no_mask(tmp_path: Path) -> None:
    """A buffer of floats that is called like a mask, one without a weight, and one of another shape."""
    state = {
        "a_orig": torch.randn(8, 8),
        "a_mask": torch.randn(8, 8),
        "attention_mask": torch.ones(8, 8),
        "b_orig": torch.randn(8, 8),
        "b_mask": torch.ones(64),
    }
    torch.save(state, tmp_path / "m.pt")
    compress(tmp_path / "m.pt", tmp_path / "m.nnr", drop_masked=True)
    assert masks_in(tmp_path / "m.nnr") == ({}, {})
    decompress(tmp_path / "m.nnr", tmp_path / "back.pt")
    for name, tensor in torch.load(tmp_path / "back.pt").items():
        torch.testing.assert_close(tensor, state[name], atol=0.1, rtol=0)


# --- TensorFlow, by files as its pruning wrappers leave them ----------------------------------------------------------

KERNEL = np.random.default_rng(1).normal(size=(16, 10)).astype(np.float32)
MASK = (np.abs(KERNEL) > 0.7).astype(np.float32)


def pruned_keras(path: Path, inner: str) -> Path:
    """A legacy Keras file of one wrapped layer, whose kernel lies in the group ``inner``."""
    layer = "prune_low_magnitude_dense"
    with h5py.File(path, "w") as file:
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [layer.encode()]
        variables: dict[str, NDArray[Any]] = {
            f"{inner}/kernel:0": KERNEL,
            f"{inner}/bias:0": np.arange(10, dtype=np.float32),
            f"{layer}/mask:0": MASK,
            f"{layer}/threshold:0": np.float32(0.7),  # type: ignore[dict-item]
            f"{layer}/pruning_step:0": np.int64(100),  # type: ignore[dict-item]
        }
        group = weights.create_group(layer)
        group.attrs["weight_names"] = [name.encode() for name in variables]
        for name, array in variables.items():
            group.create_dataset(name, data=array)
    return path


@pytest.mark.parametrize("inner", ["prune_low_magnitude_dense", "dense"])
def test_the_masks_of_tensorflow_become_pruning_topology(inner: str, tmp_path: Path) -> None:
    path = pruned_keras(tmp_path / "pruned.h5", inner)
    compress(path, tmp_path / "m.nnr", drop_masked=True)
    pruned, sparse = masks_in(tmp_path / "m.nnr")
    kernel = f"model_weights/prune_low_magnitude_dense/{inner}/kernel:0"
    gone = pruned.get(kernel, False) | sparse.get(kernel, False)
    np.testing.assert_array_equal(gone, MASK == 0)
    decompress(tmp_path / "m.nnr", tmp_path / "back.h5")
    with h5py.File(tmp_path / "back.h5") as back:
        layer = back["model_weights/prune_low_magnitude_dense"]
        np.testing.assert_array_equal(layer["prune_low_magnitude_dense/mask:0"][()], MASK)
        np.testing.assert_allclose(layer[f"{inner}/kernel:0"][()], KERNEL * MASK, atol=0.1)
        assert layer["prune_low_magnitude_dense/pruning_step:0"][()] == 100
        assert layer["prune_low_magnitude_dense/threshold:0"][()] == np.float32(0.7)


def test_the_pruned_shape_of_a_keras_layer_has_no_mask(tmp_path: Path) -> None:
    compress(pruned_keras(tmp_path / "pruned.h5", "dense"), tmp_path / "m.nnr")
    decompress(tmp_path / "m.nnr", tmp_path / "small.npz", pruned=True)
    with np.load(tmp_path / "small.npz") as small:
        kernel = small["model_weights/prune_low_magnitude_dense/dense/kernel:0"]
        assert not any("mask" in name for name in small)
    np.testing.assert_array_equal(kernel[kernel != 0].size, np.count_nonzero(MASK))


def test_masks_of_several_weights_go_with_these_in_their_order() -> None:
    """An LSTM has two kernels; by the keys of a checkpoint, a wrapper lists weight, mask and threshold."""
    layer = "model/prune_low_magnitude_lstm/"
    shapes = {
        layer + "lstm_cell/kernel": (4, 16),
        layer + "lstm_cell/recurrent_kernel": (4, 16),
        layer + "lstm_cell/bias": (16,),
        layer + "mask": (4, 16),
        layer + "mask_1": (4, 16),
        "model/prune_low_magnitude_other/kernel": (4, 16),
        "encoder/mask": (4, 16),
    }
    assert roles.masks(shapes) == {
        layer + "mask": layer + "lstm_cell/kernel",
        layer + "mask_1": layer + "lstm_cell/recurrent_kernel",
    }
    keys = "layer_with_weights-0/"
    found = roles.masks({keys + "layer/kernel": (4, 8), keys + "pruning_vars/0/1": (4, 8), keys + "pruning_step": ()})
    assert found == {keys + "pruning_vars/0/1": keys + "layer/kernel"}
