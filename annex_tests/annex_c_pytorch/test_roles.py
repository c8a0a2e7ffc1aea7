"""What the names of a state dict say about its tensors."""

from __future__ import annotations

from nnc_adapters.pytorch import roles


def kinds(**shapes):
    return roles.from_names({name.replace("__", "."): shape for name, shape in shapes.items()})["parameter_type"]


def blocks(**shapes):
    return roles.from_names({name.replace("__", "."): shape for name, shape in shapes.items()})["block_identifier"]


BN = {f"bn__{name}": (8,) for name in ("weight", "bias", "running_mean", "running_var")}


def test_statistics_tell_a_batch_normalization():
    assert kinds(**BN) == {
        "bn.weight": "bn.gamma",
        "bn.bias": "bn.beta",
        "bn.running_mean": "bn.mean",
        "bn.running_var": "bn.var",
    }
    without = {"bn__running_mean": (8,), "bn__running_var": (8,)}
    assert kinds(**without) == {"bn.running_mean": "bn.mean", "bn.running_var": "bn.var"}


def test_vectors_without_statistics_are_not_weights():
    assert kinds(n__weight=(8,), n__bias=(8,)) == {"n.weight": "unspecified", "n.bias": "unspecified"}


def test_dimensions_tell_convolutions_from_matrices():
    found = kinds(c__weight=(8, 3, 3, 3), c__bias=(8,), d__weight=(8, 3, 3), f__weight=(8, 3), f__bias=(8,))
    assert found == {
        "c.weight": "conv.weight",
        "c.bias": "conv.bias",
        "d.weight": "conv.weight",
        "f.weight": "fc.weight",
        "f.bias": "fc.bias",
    }


def test_recurrent_and_attention_layers_are_known_by_their_parameters():
    found = kinds(r__weight_ih_l0=(8, 3), r__bias_hh_l1_reverse=(8,), a__in_proj_weight=(9, 3), a__in_proj_bias=(9,))
    assert set(found.values()) == {"fc.weight", "fc.bias"}
    assert found["r.bias_hh_l1_reverse"] == found["a.in_proj_bias"] == "fc.bias"


def test_of_other_names_nothing_is_said():
    assert kinds(cls_token=(1, 1, 8), pos_embed=(1, 9, 8), m__scale=(8,), m__bias=(8,)) == {}


def test_a_block_is_a_weight_its_bias_and_the_normalization_after_it():
    members = ["c.weight", "c.bias", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"]
    assert blocks(c__weight=(8, 3, 3, 3), c__bias=(8,), **BN) == dict.fromkeys(members, "c.weight")
    assert blocks(c__weight=(8, 3), **BN).keys() == set(members) - {"c.bias"}


def test_a_normalization_of_other_channels_or_elsewhere_is_in_no_block():
    assert blocks(c__weight=(9, 3, 3, 3), **BN) == {}
    assert blocks(a__c__weight=(8, 3, 3, 3), **BN) == {}
    assert blocks(c__weight=(8, 3, 3, 3), x__weight=(8,), **BN) == {}
    assert blocks(**BN, c__weight=(8, 3, 3, 3)) == {}


def test_a_second_normalization_is_in_no_block():
    second = {name.replace("bn", "bn2"): shape for name, shape in BN.items()}
    assert "bn2.weight" not in blocks(c__weight=(8, 3, 3, 3), **BN, **second)


def test_a_weight_alone_is_in_no_block():
    assert blocks(c__weight=(8, 3, 3, 3)) == {}
