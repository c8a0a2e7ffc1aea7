"""Which tensor is which: found, refused, or said by a mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnc_adapters.convert.layouts import LAYOUTS, Framework, Same
from nnc_adapters.convert.mapping import check, converted, load, to_json
from nnc_adapters.convert.matching import By, match, unanswered, with_questions
from nnc_adapters.convert.names import pytorch_kinds, tensorflow_kinds
from nnc_adapters.convert.network import Network, Parameter
from nnc_core import ModelError

Tensors = dict[str, tuple[str, tuple[int, ...]]]


def network(framework: Framework, tensors: Tensors) -> Network:
    """A network of tensors: name -> kind and shape."""
    found = {}
    for name, (kind, shape) in tensors.items():
        entry = LAYOUTS[framework][kind]
        found[name] = Parameter(name, shape, kind, entry, tuple(entry.parts(shape)))
    return Network(framework, found)


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
    assert to_json(match(TORCH, KERAS)) == {
        "dense/kernel": "fc.weight",
        "dense/bias": "fc.bias",
        "conv2d/kernel": "conv.weight",
        "conv2d/bias": "conv.bias",
    }


def test_twins_are_ambiguous_and_both_candidates_are_named() -> None:
    with pytest.raises(ModelError, match=r"ambiguous are weight \[4, 4\]: x / y from a / b; --by structure .*mapping"):
        match(TWINS, KERAS_TWINS)


@pytest.mark.parametrize("by", ["structure", "order"])
def test_twins_are_told_apart_by_their_order_where_this_is_asked_for(by: By) -> None:
    assert to_json(match(TWINS, KERAS_TWINS, by)) == {"x": "a", "y": "b"}


def test_twins_with_equal_names_are_told_apart_by_these() -> None:
    swapped = network("tensorflow", {"b": ("dense", (4, 4)), "a": ("dense", (4, 4))})
    assert to_json(match(TWINS, swapped)) == {"b": "b", "a": "a"}


def test_an_equal_name_that_does_not_fit_decides_nothing() -> None:
    ours = network("pytorch", {"w": ("dense", (3, 4)), "v": ("dense", (5, 6))})
    theirs = network("tensorflow", {"w": ("dense", (6, 5)), "v": ("dense", (4, 3))})
    assert to_json(match(ours, theirs)) == {"w": "v", "v": "w"}
    with pytest.raises(ModelError, match=r"the target needs w \(weight \[5, 6\]\)"):
        match(ours, theirs, "names")


def test_an_order_that_leads_to_other_shapes_does_not_decide_between_twins() -> None:
    ours = network("pytorch", {"a": ("dense", (4, 4)), "b": ("dense", (4, 4)), "c": ("dense", (2, 4))})
    theirs = network("pytorch", {"z": ("dense", (2, 4)), "x": ("dense", (4, 4)), "y": ("dense", (4, 4))})
    with pytest.raises(ModelError, match="ambiguous"):
        match(ours, theirs, "structure")


def test_a_tensor_of_which_nothing_is_known_moves_only_by_its_name_within_its_family() -> None:
    def unknown(name: str, family: str) -> Network:
        entry = Same(f"unknown in {family}")
        return Network(None, {name: Parameter(name, (4, 4), None, entry, tuple(entry.parts((4, 4))))})

    assert to_json(match(unknown("w", "tflite"), unknown("w", "tflite"))) == {"w": "w"}
    for ours in (unknown("v", "tflite"), unknown("w", "onnx")):
        for by in (None, "structure"):
            with pytest.raises(ModelError, match=r"the target needs w \(unknown in tflite \[4, 4\]\)"):
                match(ours, unknown("w", "tflite"), by)  # type: ignore[arg-type]


def test_what_is_left_over_is_named_on_both_sides() -> None:
    ours = network("pytorch", {"a": ("dense", (4, 4)), "extra": ("dense", (7, 7))})
    theirs = network("pytorch", {"a": ("dense", (4, 4)), "missing": ("bias", (4,))})
    with pytest.raises(ModelError, match=r"target needs missing \(bias \[4\]\); the source has left extra"):
        match(ours, theirs)


def test_by_order_says_where_the_orders_part() -> None:
    with pytest.raises(ModelError, match=r"number 1 in order is dense/kernel .* conv\.weight"):
        match(TORCH, KERAS, "order")


def cell(framework: Framework, tensors: Tensors) -> Network:
    return network(framework, {name: (f"lstm.{kind}", shape) for name, (kind, shape) in tensors.items()})


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
    assert to_json(match(TORCH_LSTM, ONNX_LSTM, "structure")) == {
        "W": {"from": ["r.weight_ih_l0", "r.weight_ih_l0_reverse"]},
        "R": {"from": ["r.weight_hh_l0", "r.weight_hh_l0_reverse"]},
        "B": {"from": ["r.bias_ih_l0", "r.bias_hh_l0", "r.bias_ih_l0_reverse", "r.bias_hh_l0_reverse"]},
    }
    back = to_json(match(ONNX_LSTM, TORCH_LSTM, "structure"))
    assert back["r.bias_hh_l0_reverse"] == {"from": "B", "part": [3]}
    assert to_json(match(ONNX_LSTM, KERAS_LSTM, "structure"))["backward/bias"] == {"from": "B", "part": [2, 3]}


def all_converted(ours: Network, theirs: Network, tensors: dict[str, Any], by: By | None = None) -> dict[str, Any]:
    plan = match(ours, theirs, by)
    check(plan, ours, theirs)
    pairs = {name: entry for name, entry in plan.items() if entry is not None}
    return {n: converted(e, theirs.parameters[n], ours, theirs, tensors) for n, e in pairs.items()}


def test_a_recurrent_layer_survives_the_way_through_onnx_and_back() -> None:
    generator = np.random.default_rng(1)
    tensors = {name: generator.standard_normal(p.shape) for name, p in TORCH_LSTM.parameters.items()}
    there = all_converted(TORCH_LSTM, ONNX_LSTM, tensors, "structure")
    back = all_converted(ONNX_LSTM, TORCH_LSTM, there, "structure")
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array)
    keras = all_converted(TORCH_LSTM, KERAS_LSTM, tensors, "structure")
    np.testing.assert_array_equal(keras["backward/kernel"], tensors["r.weight_ih_l0_reverse"].T)
    np.testing.assert_array_equal(keras["forward/bias"], tensors["r.bias_ih_l0"] + tensors["r.bias_hh_l0"])


FLAT = network("pytorch", {"conv.weight": ("conv", (2, 1, 3, 3)), "fc.weight": ("dense", (5, 12))})
KERAS_FLAT = network("tensorflow", {"conv/kernel": ("conv", (3, 3, 1, 2)), "fc/kernel": ("dense", (12, 5))})


@pytest.mark.parametrize(("ours", "theirs"), [(FLAT, KERAS_FLAT), (KERAS_FLAT, FLAT)])
def test_a_matrix_that_may_follow_a_flattened_image_is_a_question(ours: Network, theirs: Network) -> None:
    plan = match(ours, theirs)
    (name,) = unanswered(plan)
    assert name.startswith("fc")
    entry = plan[name]
    assert entry is not None
    assert entry.flatten == (2, 0, 0)


def test_a_flattened_image_is_no_question_between_frameworks_that_flatten_alike() -> None:
    assert unanswered(match(FLAT, FLAT)) == []


@pytest.mark.parametrize("answer", [[2, 2, 3], False])
def test_a_mapping_says_what_was_flattened(answer: Any) -> None:
    plan = load({"conv/kernel": "conv.weight", "fc/kernel": {"from": "fc.weight", "flatten": answer}})
    assert unanswered(with_questions(plan, FLAT, KERAS_FLAT)) == []
    check(plan, FLAT, KERAS_FLAT)
    weight = np.arange(60.0).reshape(5, 12)
    entry = plan["fc/kernel"]
    assert entry is not None
    found = converted(entry, KERAS_FLAT.parameters["fc/kernel"], FLAT, KERAS_FLAT, {"fc.weight": weight})
    image = np.random.default_rng(0).standard_normal((2, 2, 3))
    last = np.moveaxis(image, 0, -1) if answer else image
    np.testing.assert_allclose(last.reshape(-1) @ found, weight @ image.reshape(-1))


def test_a_mapping_may_transpose_keep_and_leave_out() -> None:
    plan = load({"dense/kernel": {"from": "fc.weight", "transpose": [1, 0]}, "dense/bias": "fc.bias"})
    with pytest.raises(ModelError, match=r"does not say where 2 tensors .*conv2d/kernel, conv2d/bias"):
        check(plan, TORCH, KERAS)
    check({**plan, "conv2d/kernel": None, "conv2d/bias": None}, TORCH, KERAS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nothing", "which the source does not have"),
        ("fc.bias", r"is weight \[10, 4\], but fc\.bias is bias \[10\]"),
        ({"from": "fc.weight", "transpose": [0, 1]}, "transposed by"),
        ({"from": "fc.weight", "transpose": [0, 0]}, "transposed by"),
        ({"from": ["fc.weight", "fc.bias"], "transpose": [1, 0]}, "one source"),
        ({"from": "fc.weight", "part": 1}, "does not exist"),
        ({"from": "fc.weight", "flatten": [2, 3, 4]}, "flattened from"),
        ({"from": "fc.weight", "transposed": [1, 0]}, "expected a source name"),
        ({"from": "fc.weight", "transpose": "no"}, "expected whole numbers"),
        ({"from": "fc.weight", "transpose": [True, False]}, "expected whole numbers"),
        ({"from": []}, "expected a source name"),
        (7, "expected a source name"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(value: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        check(load({"dense/kernel": value, **dict.fromkeys(KERAS.parameters.keys() - {"dense/kernel"})}), TORCH, KERAS)
    assert caught.value.tensor == "dense/kernel"


def test_a_mapping_for_a_tensor_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match="target has no such tensor"):
        check(load({"who": None}), TORCH, KERAS)


@pytest.mark.parametrize("text", ["{", "[]", '{"a": "b", "a": "c"}', '"\\ud800', b"\xff", "[" * 100_000])
def test_a_mapping_file_that_is_none_is_refused(tmp_path: Path, text: str | bytes) -> None:
    path = tmp_path / "map.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ModelError) as caught:
        load(path)
    assert caught.value.file == str(path)


def test_a_printed_mapping_can_be_read() -> None:
    for plan in (match(ONNX_LSTM, TORCH_LSTM, "structure"), match(FLAT, KERAS_FLAT), match(TORCH, KERAS)):
        assert load(to_json(plan)) == plan


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
            "lost.bias_hh_l0": (9,),
        }
    )
    assert list(kinds.values()) == [
        "conv", "scale", "shift", "mean", "variance", "dense", "lstm.input", "lstm.state", "gru.state",
        "gru.state_bias", "rnn.state", "other", "other", "other",
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
