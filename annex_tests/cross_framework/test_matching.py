"""Which tensor is which: found, refused, or said by a mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnc_adapters.convert import _plan
from nnc_adapters.convert.layouts import Framework, Same, layout
from nnc_adapters.convert.mapping import MappingFile, load
from nnc_adapters.convert.matching import By, Matched, match
from nnc_adapters.convert.moving import moved
from nnc_adapters.convert.network import Network, Parameter
from nnc_adapters.pytorch.kinds import kinds as pytorch_kinds
from nnc_adapters.tensorflow.kinds import kinds_by_names as tensorflow_kinds
from nnc_core import ModelError

Tensors = dict[str, tuple[str, tuple[int, ...]]]


def network(framework: Framework, tensors: Tensors) -> Network:
    """A network of tensors: name -> kind and shape; what follows what is not known."""
    found = {}
    for name, (kind, shape) in tensors.items():
        entry = layout(framework, kind)
        found[name] = Parameter(name, shape, kind, entry, tuple(entry.parts(shape)), assumed=True)
    return Network(framework, found)


def pairs(matched: Matched) -> dict[str, Any]:
    plan: dict[str, Any] = _plan(matched)["matched"]
    return plan


TORCH = network(
    "pytorch",
    {
        "conv.weight": ("conv", (4, 1, 3, 3)),
        "conv.bias": ("bias", (4,)),
        "fc.weight": ("dense", (10, 4)),
        "fc.bias": ("bias", (10,)),
    },
)
KERAS = network(
    "tensorflow",
    {
        "dense/kernel": ("dense", (4, 10)),
        "dense/bias": ("bias", (10,)),
        "conv2d/kernel": ("conv", (3, 3, 1, 4)),
        "conv2d/bias": ("bias", (4,)),
    },
)
TWINS = network("pytorch", {"a": ("dense", (4, 4)), "b": ("dense", (4, 4))})
KERAS_TWINS = network("tensorflow", {"x": ("dense", (4, 4)), "y": ("dense", (4, 4))})


def test_tensors_that_alone_have_a_role_and_shape_find_each_other_in_any_order() -> None:
    found = match(TORCH, KERAS)
    assert pairs(found) == {
        "dense/kernel": "fc.weight",
        "dense/bias": "fc.bias",
        "conv2d/kernel": "conv.weight",
        "conv2d/bias": "conv.bias",
    }
    assert found.doubtful == []


@pytest.mark.parametrize("by", [None, "structure", "order"])
def test_twins_are_told_apart_by_their_order_and_are_doubtful(by: By | None) -> None:
    found = match(TWINS, KERAS_TWINS, by)
    assert pairs(found) == {"x": "a", "y": "b"}
    assert found.doubtful == ["x", "y"]


def test_twins_of_which_a_mapping_says_one_are_not_doubtful() -> None:
    found = match(TWINS, KERAS_TWINS, None, load({"x": "b"}))
    assert pairs(found) == {"x": "b", "y": "a"}
    assert found.doubtful == []


def test_twins_with_equal_names_are_told_apart_by_these() -> None:
    swapped = network("tensorflow", {"b": ("dense", (4, 4)), "a": ("dense", (4, 4))})
    assert pairs(match(TWINS, swapped)) == {"b": "b", "a": "a"}
    assert match(TWINS, swapped).doubtful == []


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "backbone."])
def test_a_prefix_that_all_names_have_on_one_side_does_not_matter(prefix: str) -> None:
    named = {f"{prefix}{name}": ("dense", (4, 4)) for name in ("b.weight", "a.weight")}
    plain = dict.fromkeys(("a.weight", "b.weight"), ("dense", (4, 4)))
    for ours, theirs in ((named, plain), (plain, named)):
        found = match(network("pytorch", ours), network("pytorch", theirs))
        assert {name.removeprefix(prefix): source.removeprefix(prefix) for name, source in pairs(found).items()} == {
            "a.weight": "a.weight",
            "b.weight": "b.weight",
        }
        assert found.doubtful == []


def test_layers_of_one_name_are_the_same_whatever_their_tensors_are_called() -> None:
    ours = network("pytorch", {"l1.a.weight": ("dense", (4, 4)), "l1.b.weight": ("dense", (4, 4))})
    theirs = network("tensorflow", {"l1_b/kernel": ("dense", (4, 4)), "l1_a/kernel": ("dense", (4, 4))})
    found = match(ours, theirs)
    assert pairs(found) == {"l1_b/kernel": "l1.b.weight", "l1_a/kernel": "l1.a.weight"}
    assert found.doubtful == []


def test_a_bias_belongs_to_the_layer_whose_matrix_is_alone() -> None:
    ours = network(
        "pytorch",
        {
            "p.weight": ("dense", (4, 3)),
            "p.bias": ("bias", (4,)),
            "q.weight": ("dense", (4, 5)),
            "q.bias": ("bias", (4,)),
        },
    )
    theirs = network(
        "tensorflow",
        {
            "y/kernel": ("dense", (5, 4)),
            "y/bias": ("bias", (4,)),
            "x/kernel": ("dense", (3, 4)),
            "x/bias": ("bias", (4,)),
        },
    )
    found = match(ours, theirs)
    assert pairs(found)["y/bias"] == "q.bias"
    assert found.doubtful == []


def test_an_equal_name_that_does_not_fit_decides_nothing() -> None:
    ours = network("pytorch", {"w": ("dense", (3, 4)), "v": ("dense", (5, 6))})
    theirs = network("tensorflow", {"w": ("dense", (6, 5)), "v": ("dense", (4, 3))})
    assert pairs(match(ours, theirs)) == {"w": "v", "v": "w"}
    assert match(ours, theirs, "names").missing == ["w", "v"]


def test_an_order_that_leads_to_other_shapes_decides_by_shape_and_is_doubtful() -> None:
    ours = network("pytorch", {"a": ("dense", (4, 4)), "b": ("dense", (4, 4)), "c": ("dense", (2, 4))})
    theirs = network("pytorch", {"z": ("dense", (2, 4)), "x": ("dense", (4, 4)), "y": ("dense", (4, 4))})
    found = match(ours, theirs, "structure")
    assert (pairs(found)["z"], found.doubtful) == ("c", ["x", "y"])


def test_matrices_of_one_name_and_shape_are_stored_alike_and_square_ones_could_be_transposed() -> None:
    shapes = {"h.weight": (4, 4), "g.weight": (4, 6)}
    ours = network("pytorch", {name: ("dense", shape) for name, shape in shapes.items()})
    graph = network("onnx", {name: ("dense_input_first", shape) for name, shape in shapes.items()})
    known = Network(
        "onnx", {p.name: Parameter(p.name, p.shape, p.kind, p.layout, p.parts) for p in graph.parameters.values()}
    )
    for source, target in ((ours, known), (known, ours)):
        found = match(source, target)
        assert pairs(found) == {name: name for name in shapes} or pairs(found) == {n: n for n in reversed(shapes)}
        assert found.doubtful == ["h.weight"]
        tensors = {name: np.random.default_rng(0).standard_normal(shape) for name, shape in shapes.items()}
        for name, array in moved(found, tensors).items():
            np.testing.assert_array_equal(array, tensors[name])


def test_a_tensor_of_which_nothing_is_known_moves_only_by_its_name_within_its_family() -> None:
    def unknown(name: str, family: str) -> Network:
        entry = Same(f"unknown in {family}")
        return Network(None, {name: Parameter(name, (4, 4), None, entry, tuple(entry.parts((4, 4))))})

    assert pairs(match(unknown("w", "gguf"), unknown("w", "gguf"))) == {"w": "w"}
    for ours in (unknown("v", "gguf"), unknown("w", "onnx")):
        for by in (None, "structure"):
            assert match(ours, unknown("w", "gguf"), by).missing == ["w"]  # type: ignore[arg-type]


def test_what_is_left_over_is_named_on_both_sides_and_unused_tensors_block_nothing() -> None:
    ours = network("pytorch", {"a": ("dense", (4, 4)), "extra": ("dense", (7, 7))})
    theirs = network("pytorch", {"a": ("dense", (4, 4)), "missing": ("bias", (4,))})
    found = match(ours, theirs)
    assert (found.missing, found.unused) == (["missing"], ["extra"])
    assert match(ours, network("pytorch", {"a": ("dense", (4, 4))})).missing == []


def test_by_order_says_where_the_orders_part() -> None:
    with pytest.raises(ModelError, match=r"number 1 in order is dense/kernel .* conv\.weight"):
        match(TORCH, KERAS, "order")


def cell(framework: Framework, tensors: Tensors) -> Network:
    backward = ("backward", "_reverse")
    ends = {name: ".backward" if any(word in name for word in backward) else "" for name in tensors}
    return network(framework, {name: (f"lstm.{kind}{ends[name]}", shape) for name, (kind, shape) in tensors.items()})


H, I = 3, 2  # noqa: E741
TORCH_LSTM = cell(
    "pytorch",
    {
        f"r.{kind}_l0{direction}": (place, shape)
        for direction in ("", "_reverse")
        for kind, place, shape in (
            ("weight_ih", "input", (4 * H, I)),
            ("weight_hh", "state", (4 * H, H)),
            ("bias_ih", "input_bias", (4 * H,)),
            ("bias_hh", "state_bias", (4 * H,)),
        )
    },
)
ONNX_LSTM = cell("onnx", {"W": ("input", (2, 4 * H, I)), "R": ("state", (2, 4 * H, H)), "B": ("bias", (2, 8 * H))})
KERAS_LSTM = cell(
    "tensorflow",
    {
        f"{direction}/{name}": (place, shape)
        for direction in ("forward", "backward")
        for name, place, shape in (
            ("kernel", "input", (I, 4 * H)),
            ("recurrent_kernel", "state", (H, 4 * H)),
            ("bias", "bias", (4 * H,)),
        )
    },
)


def test_a_recurrent_layer_is_one_tensor_here_and_several_there() -> None:
    assert pairs(match(TORCH_LSTM, ONNX_LSTM)) == {
        "W": {"from": ["r.weight_ih_l0", "r.weight_ih_l0_reverse"]},
        "R": {"from": ["r.weight_hh_l0", "r.weight_hh_l0_reverse"]},
        "B": {"from": ["r.bias_ih_l0", "r.bias_hh_l0", "r.bias_ih_l0_reverse", "r.bias_hh_l0_reverse"]},
    }
    back = pairs(match(ONNX_LSTM, TORCH_LSTM))
    assert back["r.bias_hh_l0_reverse"] == {"from": "B", "part": [3]}
    assert pairs(match(ONNX_LSTM, KERAS_LSTM))["backward/bias"] == {"from": "B", "part": [2, 3]}


def test_a_recurrent_layer_survives_the_way_through_onnx_and_back() -> None:
    generator = np.random.default_rng(1)
    tensors = {name: generator.standard_normal(p.shape) for name, p in TORCH_LSTM.parameters.items()}
    there = moved(match(TORCH_LSTM, ONNX_LSTM), tensors)
    back = moved(match(ONNX_LSTM, TORCH_LSTM), there)
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array)
    keras = moved(match(TORCH_LSTM, KERAS_LSTM), tensors)
    np.testing.assert_array_equal(keras["backward/kernel"], tensors["r.weight_ih_l0_reverse"].T)
    np.testing.assert_array_equal(keras["forward/bias"], tensors["r.bias_ih_l0"] + tensors["r.bias_hh_l0"])


FLAT = network("pytorch", {"conv.weight": ("conv", (2, 1, 3, 3)), "fc.weight": ("dense", (5, 12))})
KERAS_FLAT = network("tensorflow", {"fc/kernel": ("dense", (12, 5)), "conv/kernel": ("conv", (3, 3, 1, 2))})


@pytest.mark.parametrize(("ours", "theirs"), [(FLAT, KERAS_FLAT), (KERAS_FLAT, FLAT)])
def test_a_matrix_that_may_take_a_flattened_image_is_a_question_in_whatever_order_tensors_are_stored(
    ours: Network, theirs: Network
) -> None:
    (question,) = match(ours, theirs).orders.questions
    assert question.name.startswith("fc")
    assert question.image == (2, 0, 0)


def test_a_flattened_image_raises_no_question_between_frameworks_that_flatten_alike() -> None:
    assert match(FLAT, FLAT).orders.questions == []


@pytest.mark.parametrize("answer", [[2, 2, 3], False])
def test_an_answer_says_what_was_flattened(answer: Any) -> None:
    stated = load({"fc/kernel": {"from": "fc.weight", "flatten": answer}})
    found = match(FLAT, KERAS_FLAT, None, stated)
    assert found.orders.questions == []
    weight = np.arange(60.0).reshape(5, 12)
    kernel = moved(found, {"fc.weight": weight, "conv.weight": np.zeros((2, 1, 3, 3))})["fc/kernel"]
    image = np.random.default_rng(0).standard_normal((2, 2, 3))
    last = np.moveaxis(image, 0, -1) if answer else image
    np.testing.assert_allclose(last.reshape(-1) @ kernel, weight @ image.reshape(-1))


def test_an_answer_that_does_not_make_the_inputs_is_refused() -> None:
    with pytest.raises(ModelError, match="does not make 12 inputs"):
        match(FLAT, KERAS_FLAT, answers={"fc/kernel": (2, 2, 4)})


STEPS = [
    ({"from": "fc.weight", "transpose": [1, 0]}, lambda w: w.T),
    ({"from": "fc.weight", "steps": [{"reshape": [4, 10]}]}, lambda w: w.reshape(4, 10)),
    ({"from": "fc.weight", "steps": [{"take": [*range(9, -1, -1)]}, {"transpose": [1, 0]}]}, lambda w: w[::-1].T),
    (
        {"from": ["fc.weight"] * 2, "steps": [{"slice": [0, 5]}, {"join": 0}, {"transpose": [1, 0]}]},
        lambda w: np.concatenate([w[:5], w[:5]]).T,
    ),
]


@pytest.mark.parametrize(("value", "expected"), STEPS)
def test_a_mapping_may_transpose_reshape_permute_cut_and_join(value: Any, expected: Any) -> None:
    found = match(TORCH, KERAS, None, load({"dense/kernel": value}))
    weight = np.random.default_rng(0).standard_normal((10, 4))
    tensors = {name: np.zeros(p.shape) for name, p in TORCH.parameters.items()}
    array = moved(found, {**tensors, "fc.weight": weight})["dense/kernel"]
    np.testing.assert_array_equal(array, expected(weight))
    assert load({"dense/kernel": pairs(found)["dense/kernel"]}).entries == load({"dense/kernel": value}).entries
    assert pairs(found)["dense/bias"] == "fc.bias"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nothing", "which the source does not have"),
        ("fc.bias", r"is weight \[10, 4\], but fc\.bias is bias \[10\]"),
        (
            {"from": "fc.weight", "transpose": [0, 1]},
            r"has the shape \[4, 10\], the steps of the mapping make \[10, 4\]",
        ),
        ({"from": "fc.weight", "transpose": [0, 0]}, "not possible"),
        ({"from": ["fc.weight", "fc.bias"], "transpose": [1, 0]}, "not possible"),
        ({"from": ["fc.weight", "fc.weight"], "transpose": [1, 0]}, "need a step that joins"),
        ({"from": ["fc.weight", "fc.bias"], "steps": [{"join": 0}]}, "cannot be joined"),
        ({"from": "fc.weight", "steps": [{"slice": [3, 3]}]}, "not possible"),
        ({"from": "fc.weight", "steps": [{"slice": [3]}]}, "expected"),
        ({"from": "fc.weight", "steps": [{"take": [10]}]}, "not possible"),
        ({"from": "fc.weight", "steps": [{"turn": [10]}]}, "has the step"),
        ({"from": "fc.weight", "steps": 7}, "expected a list of objects"),
        ({"from": "fc.weight", "part": 0, "steps": []}, "steps take whole tensors"),
        ({"from": "fc.weight", "part": 1}, "there is no part"),
        ({"from": "fc.weight", "part": []}, "there is no part"),
        ({"from": "fc.weight", "flatten": [2, 3, 4]}, "flatten has an answer for dense/kernel"),
        ({"from": "fc.weight", "transposed": [1, 0]}, "expected a source name"),
        ({"from": "fc.weight", "transpose": "no"}, "expected whole numbers|expected"),
        ({"from": "fc.weight", "transpose": [True, False]}, "expected whole numbers"),
        ({"from": []}, "expected a source name"),
        (7, "expected a source name"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        match(TORCH, KERAS, None, load({"dense/kernel": value}))


def test_a_mapping_for_a_tensor_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="target has no such tensor"):
        match(TORCH, KERAS, None, load({"who": None}))


@pytest.mark.parametrize("text", ["{", "[]", '{"a": "b", "a": "c"}', '"\\ud800', b"\xff", "[" * 100_000])
def test_a_mapping_file_that_is_not_one_is_refused(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "map.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError) as caught:
        load(path)
    assert caught.value.file == str(path)


def test_a_printed_mapping_leads_to_the_same_pairs() -> None:
    for ours, theirs in ((ONNX_LSTM, TORCH_LSTM), (FLAT, KERAS_FLAT), (TORCH, KERAS)):
        found = match(ours, theirs)
        again = match(ours, theirs, None, load(_plan(found)))
        assert again.pairs == found.pairs
        assert again.orders.questions == found.orders.questions


def test_an_empty_mapping_says_nothing() -> None:
    assert match(TORCH, KERAS, None, MappingFile()).pairs == match(TORCH, KERAS).pairs


def test_the_kinds_of_a_state_dict_follow_from_its_names() -> None:
    kinds = pytorch_kinds(
        {
            "conv.weight": (4, 3, 3, 3),
            "bn.weight": (4,),
            "bn.bias": (4,),
            "bn.running_mean": (4,),
            "bn.running_var": (4,),
            "fc.weight": (5, 4),
            "lstm.weight_ih_l0": (12, 2),
            "lstm.weight_hh_l0": (12, 3),
            "gru.weight_hh_l1_reverse": (9, 3),
            "gru.bias_hh_l1_reverse": (9,),
            "cell.weight_hh": (3, 3),
            "mha.in_proj_weight": (12, 4),
            "pos_embed": (1, 7, 4),
            "several.weight": (4, 7, 7),
            "several.bias": (4, 7, 7),
            "lost.bias_hh_l0": (9,),
        }
    )
    assert list(kinds.values()) == [
        "conv", "scale", "shift", "mean", "variance", "dense", "lstm.input", "lstm.state", "gru.state.backward",
        "gru.state_bias.backward", "rnn.state", "projections", "other", "scale", "shift", "other",
    ]  # fmt: skip


def test_the_kinds_of_variables_follow_from_their_names_and_roles() -> None:
    kinds = tensorflow_kinds(
        {
            "conv2d/kernel": (3, 3, 1, 4),
            "conv2d_transpose/kernel:0": (3, 3, 4, 1),
            "depthwise_conv2d/kernel": (3, 3, 4, 1),
            "separable/depthwise_kernel": (3, 3, 4, 1),
            "separable/pointwise_kernel": (1, 1, 4, 1),
            "bn/gamma": (4,),
            "bn/moving_variance": (4,),
            "dense/kernel": (4, 5),
            "embedding/embeddings": (9, 4),
            "lstm/lstm_cell/kernel": (2, 12),
            "lstm/lstm_cell/recurrent_kernel": (3, 12),
            "lstm/lstm_cell/bias": (12,),
            "gru/cell/recurrent_kernel": (3, 9),
            "gru/cell/bias": (2, 9),
            "old/recurrent_kernel": (3, 9),
            "old/bias": (9,),
            "layers/lstm/cell/vars/1": (3, 12),
            "layers/lstm/cell/vars/2": (12,),
            "variables/7": (4, 5),
            "variables/8": (4, 5),
        },
        {"parameter_type": {"variables/7": "fc.weight"}},
    )
    assert list(kinds.values()) == [
        "conv", "deconv", "depthwise", "depthwise", "conv", "scale", "variance", "dense", "embedding",
        "lstm.input", "lstm.state", "lstm.bias", "gru.state", "gru.bias", "gru_reset_before.state",
        "gru_reset_before.bias", "lstm.state", "lstm.bias", "dense", None,
    ]  # fmt: skip
