"""The names of tensors in files of PyTorch, and loading into modules."""

from __future__ import annotations

import pytest

import nnc_adapters
from annex_tests.support.torch_files import case, linear, near, tensors, torch
from nnc_adapters.pytorch import PytorchAdapter
from nnc_core.errors import ModelError


@pytest.mark.parametrize(
    "other", [torch.tensor([5]), torch.tensor([2**40]), torch.arange(400), torch.arange(400) << 40]
)
def test_the_names_of_tensors_do_not_depend_on_values(saved, other):
    path = saved({"model": {"w": torch.randn(32, 24)}, "queue": other})
    assert [name for name in PytorchAdapter().read(path).tensors if name.endswith("w")] == ["w"]


def test_reported_files_of_one_structure_have_the_same_names():
    names = [list(PytorchAdapter().read(case(f"prefix_{size}_integer.pth")).tensors) for size in ("small", "large")]
    assert names[0] == names[1] == ["0.weight", "0.bias"]


def loaded(state, module=None, **options):
    module = module or linear()
    data = nnc_adapters.pytorch.compress(state)
    return nnc_adapters.pytorch.load(data, module, **options)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_of_wrapped_modules_fit_plain_ones(prefix):
    weight = torch.randn(32, 24)
    assert near(loaded({f"{prefix}0.weight": weight, f"{prefix}0.bias": torch.randn(32)}), weight)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_names_of_plain_modules_fit_wrapped_ones():
    weight = torch.randn(32, 24)
    state = {"0.weight": weight, "0.bias": torch.randn(32)}
    assert near(loaded(state, torch.nn.DataParallel(linear())), weight)
    assert near(loaded(state, torch.compile(linear())), weight)
    inside = torch.nn.Sequential(torch.compile(linear()[0]))
    assert near(loaded(state, inside), weight)


def test_a_module_that_is_called_module_keeps_its_name():
    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = linear()
            self.head = torch.nn.Linear(24, 32)

    outer = Outer()
    again = loaded(outer.state_dict(), Outer())
    assert near(again, outer.state_dict()["module.0.weight"])


def test_a_state_dict_inside_a_checkpoint_is_found():
    weight = torch.randn(32, 24)
    state = {"0.weight": weight, "0.bias": torch.randn(32)}
    assert near(loaded({"epoch": 3, "state_dict": state}), weight)
    assert near(
        loaded({"net": {"module." + name: tensor for name, tensor in state.items()}, "mean": torch.randn(40)}), weight
    )


def test_of_two_state_dicts_one_is_chosen():
    first, second = torch.randn(32, 24), torch.randn(32, 24)
    checkpoint = {
        "state_dict": {"0.weight": first, "0.bias": torch.randn(32)},
        "state_dict_ema": {"0.weight": second, "0.bias": torch.randn(32)},
    }
    with pytest.raises(ModelError, match=r"prefix=, of 'state_dict\.', 'state_dict_ema\.'"):
        loaded(checkpoint)
    assert near(loaded(checkpoint, prefix="state_dict."), first)
    assert near(loaded(checkpoint, prefix="state_dict_ema."), second)


def test_the_state_dict_of_the_network_is_found_beside_that_of_another():
    weight = torch.randn(32, 24)
    checkpoint = {"a": {"0.weight": weight, "0.bias": torch.randn(32)}, "b": {"x.weight": torch.randn(9, 9)}}
    assert near(loaded(checkpoint), weight)


@pytest.mark.parametrize("name", ["compiled_module_prefix.pth", "two_state_dicts.pth"])
def test_reported_checkpoints_load_into_a_module(tmp_path, name):
    nnc_adapters.compress(case(name), tmp_path / "m.nnr")
    options = {"prefix": "state_dict_ema."} if "two" in name else {}
    module = nnc_adapters.pytorch.load(tmp_path / "m.nnr", linear(), **options)
    before = tensors(case(name))
    expected = next(t for key, t in before.items() if key.endswith("weight") and ("two" not in name or "ema" in key))
    assert near(module, expected)


def test_the_extra_state_of_a_module_is_loaded():
    class Counting(torch.nn.Linear):
        seen = 0

        def get_extra_state(self):
            return {"seen": self.seen}

        def set_extra_state(self, state):
            self.seen = state["seen"]

    module = Counting(24, 32)
    module.seen = 7
    again = nnc_adapters.pytorch.load(nnc_adapters.pytorch.compress(module), Counting(24, 32))
    assert again.seen == 7
