"""Tensors that share their storage do so afterwards, and each value is coded once."""

from __future__ import annotations

import json

import numpy as np
import pytest

from nnc_adapters.pytorch.views import View, separate
from nnc_adapters.shared import packing
from nnc_core.limits import Limits

LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def entries(read):
    """What the description says about each tensor, by its last key."""
    tensors = json.loads(packing.unpack(read.topology.data, Limits())["description.json"])["tensors"]
    return {entry["path"][-1]: entry for entry in tensors}


@pytest.fixture
def changed(torch, save, adapter, identical, tmp_path):
    """Writes a state with other values for its coded tensors; gives what torch loads, and the description."""

    def change(state, **kwargs):
        path = save(state, tmp_path / "m.pt", **kwargs)
        read = identical(path)
        new = {name: (array + 1).astype(array.dtype) for name, array in read.tensors.items()}
        adapter.write(new, read.topology, tmp_path / "out.pt", force=True)
        return torch.load(tmp_path / "out.pt", weights_only=True), entries(read), list(read.tensors)

    return change


@LEGACY
def test_tied_tensors_are_coded_once(torch, changed, legacy):
    weight = torch.randn(20, 30)
    loaded, described, coded = changed({"a": weight, "b": weight, "c": weight.view(600)}, legacy=legacy)
    assert coded == ["a"]
    assert [described[name].get("alias") for name in "abc"] == [None, "a", "a"]
    assert loaded["a"].data_ptr() == loaded["b"].data_ptr() == loaded["c"].data_ptr()
    torch.testing.assert_close(loaded["c"], weight.view(600) + 1)


@LEGACY
def test_a_transposed_tensor_is_coded_in_its_shape_and_stays_transposed(torch, changed, legacy):
    weight = torch.randn(4, 5, 6).permute(2, 0, 1)
    loaded, described, _ = changed({"w": weight}, legacy=legacy)
    assert described["w"]["order"] == [1, 2, 0]
    assert loaded["w"].stride() == weight.stride()
    torch.testing.assert_close(loaded["w"], weight + 1)


@LEGACY
def test_a_channels_last_tensor_stays_so(torch, changed, legacy):
    weight = torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last)
    loaded, _, _ = changed({"w": weight}, legacy=legacy)
    assert loaded["w"].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(loaded["w"], weight + 1)


@LEGACY
def test_parts_of_a_storage_are_coded_one_by_one_and_the_rest_is_kept(torch, changed, legacy):
    whole = torch.randn(100)
    loaded, described, coded = changed({"a": whole[10:40], "b": whole[60:80], "c": whole[65:70]}, legacy=legacy)
    assert coded == ["a", "b"]
    assert described["c"]["alias"] == "b"
    expected = whole.clone()
    expected[10:40] += 1
    expected[60:80] += 1
    torch.testing.assert_close(loaded["a"].as_strided((100,), (1,), 0), expected)


@LEGACY
def test_of_overlapping_tensors_the_largest_is_coded(torch, changed, legacy):
    whole = torch.randn(100)
    loaded, described, coded = changed({"a": whole[:40], "b": whole[30:90]}, legacy=legacy)
    assert coded == ["b"]
    assert "a" not in described
    assert torch.equal(loaded["a"][30:], loaded["b"][:10])
    torch.testing.assert_close(loaded["a"], torch.cat([whole[:30], whole[30:40] + 1]))


@LEGACY
@pytest.mark.parametrize("view", ["t[:, :5]", "t[::2]", "t[:1].expand(30, 20)", "t.as_strided((20, 20), (10, 1))"])
def test_tensors_with_gaps_or_repetitions_are_kept_exactly(torch, changed, legacy, view):
    tensor = eval(view, {"t": torch.randn(30, 20)})
    loaded, _, coded = changed({"w": tensor}, legacy=legacy)
    assert not coded
    assert torch.equal(loaded["w"], tensor)


def test_a_storage_that_is_seen_with_two_types_is_kept_exactly():
    floats = View(("f",), "float32", (20,), (1,), 0, (0, 80))
    integers = View(("i",), "int32", (20,), (1,), 0, (0, 80))
    assert list(separate([floats], lambda view: True)) == [floats]
    assert not list(separate([floats, integers], lambda view: True))


def test_tensors_inside_other_objects_protect_their_storage(torch, changed):
    indices, numbers = torch.arange(300)[None], torch.randn(300)
    sparse = torch.sparse_coo_tensor(indices, numbers, (300,), is_coalesced=True, check_invariants=False)
    loaded, _, coded = changed({"values": sparse._values(), "s": sparse, "w": torch.randn(20)})
    assert coded == ["w"]
    assert torch.equal(loaded["s"].to_dense(), numbers)


def test_a_conjugate_is_kept_and_a_negative_view_too(torch, changed):
    tensor = torch.randn(300, dtype=torch.complex64).conj()
    loaded, _, coded = changed({"c": tensor})
    assert not coded
    assert torch.equal(loaded["c"].resolve_conj(), tensor.resolve_conj())
    negative = torch._neg_view(torch.randn(300))
    loaded, _, coded = changed({"n": negative})
    assert not coded
    assert torch.equal(loaded["n"], negative)


def test_keys_that_differ_only_in_their_type_get_different_names(torch, changed, adapter, tmp_path):
    _, _, coded = changed({1: torch.randn(20), "1": torch.randn(30), None: torch.randn(40)})
    assert coded == ["1", "1#2", "None"]


def test_names_that_nnr_cannot_express_are_replaced(torch, changed):
    _, _, coded = changed({"a\0b": torch.randn(20), "x" * 5000: torch.randn(30), "ü": torch.randn(40)})
    assert coded == ["tensor0", "tensor1", "ü"]


def test_names_are_relative_to_the_state_dict_that_holds_all_weights(torch, changed):
    weights = {"a.w": torch.randn(20), "b.w": torch.randn(30)}
    assert changed({"net": {"state": weights}, "loss": torch.tensor(1.0), "n": 5})[2] == ["a.w", "b.w"]
    assert changed({"model": weights, "ema": {"a.w": torch.randn(20)}})[2] == ["model.a.w", "model.b.w", "ema.a.w"]


def test_an_archive_keeps_its_alignment(torch, save, adapter, tmp_path):
    weight = torch.randn(1000)
    read = adapter.read(save({"a": torch.ones(3), "w": weight}, tmp_path / "m.pt"))
    adapter.write(read.tensors, read.topology, tmp_path / "out.pt")
    mapped = torch.load(tmp_path / "out.pt", weights_only=True, mmap=True)["w"]
    assert mapped.data_ptr() % 64 == 0
    np.testing.assert_array_equal(mapped.numpy(), weight.numpy())
