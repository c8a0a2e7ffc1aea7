"""What must not change in ONNX models: scales, phases, divisors, tables; and what may."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, TensorProto, helper

import nnc_core
from annex_tests.support.onnx_models import RNG, Arrays, Read, arrays, floats, model_of, node, sqnr, whole
from annex_tests.support.program import checked
from nnc_adapters.base import Options

Q, S, Z = whole(64, 64), np.abs(floats(64, 1, scale=1e-4)), whole(64, dtype=np.int8)
SCALES: dict[str, tuple[list[NodeProto], Arrays]] = {
    "cast, mul": (
        [node("Cast", ["q"], ["f"], to=1), node("Mul", ["f", "s"], ["w"]), node("MatMul", ["x", "w"], ["y"])],
        {"q": Q, "s": S},
    ),
    "cast, sub, mul": (
        [
            node("Cast", ["q"], ["f"], to=1),
            node("Sub", ["f", "z"], ["g"]),
            node("Mul", ["s", "g"], ["w"]),
            node("MatMul", ["x", "w"], ["y"]),
        ],
        {"q": Q, "s": S, "z": floats(64, 1)},
    ),
    "groups": (
        [
            node("Reshape", ["q", "groups"], ["g"]),
            node("Cast", ["g"], ["f"], to=1),
            node("Mul", ["f", "s"], ["h"]),
            node("Reshape", ["h", "matrix"], ["w"]),
            node("MatMul", ["x", "w"], ["y"]),
        ],
        {"q": Q, "s": np.abs(floats(64, 4, 1)), "groups": np.array([64, 4, 16]), "matrix": np.array([64, 64])},
    ),
    "divided": (
        [node("Cast", ["q"], ["f"], to=1), node("Div", ["f", "s"], ["w"]), node("MatMul", ["x", "w"], ["y"])],
        {"q": Q, "s": S},
    ),
    "scales of scales": (
        [
            node("Cast", ["q"], ["f"], to=1),
            node("Mul", ["f", "s"], ["g"]),
            node("Mul", ["g", "t"], ["w"]),
            node("MatMul", ["x", "w"], ["y"]),
        ],
        {"q": Q, "s": S, "t": np.abs(floats(1, 64))},
    ),
    "rows of a table": (
        [
            node("Gather", ["q", "n"], ["g"]),
            node("Cast", ["g"], ["f"], to=1),
            node("Gather", ["s", "n"], ["t"]),
            node("Mul", ["f", "t"], ["y"]),
        ],
        {"q": Q, "s": S},
    ),
    "packed by bits": (
        [
            node("BitShift", ["packed", "four"], ["high"], direction="RIGHT"),
            node("BitwiseAnd", ["packed", "mask"], ["low"]),
            node("Concat", ["low", "high"], ["nibbles"], axis=0),
            node("Cast", ["nibbles"], ["f"], to=1),
            node("Sub", ["f", "z"], ["g"]),
            node("Mul", ["g", "s"], ["w"]),
            node("MatMul", ["x", "w"], ["y"]),
        ],
        {
            "packed": whole(32, 64, dtype=np.uint8),
            "four": np.uint8(4),
            "mask": np.uint8(15),
            "s": np.abs(floats(64, 1)),
            "z": np.abs(floats(64, 1)),
        },
    ),
    "codebook": (
        [
            node("Gather", ["book", "q"], ["values"]),
            node("Reshape", ["values", "groups"], ["g"]),
            node("Mul", ["g", "s"], ["h"]),
            node("Reshape", ["h", "matrix"], ["w"]),
            node("MatMul", ["x", "w"], ["y"]),
        ],
        {
            "q": whole(64, 64),
            "book": floats(16),
            "s": np.abs(floats(64, 1)),
            "groups": np.array([64, 64]),
            "matrix": np.array([64, 64]),
        },
    ),
    "DequantizeLinear": (
        [node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=0), node("MatMul", ["x", "w"], ["y"])],
        {"q": Q, "s": S[:, 0], "z": Z},
    ),
    "DequantizeLinear of onnxruntime": (
        [
            node("DequantizeLinear", ["q", "s", "z"], ["w"], domain="com.microsoft", axis=0),
            node("MatMul", ["x", "w"], ["y"]),
        ],
        {"q": Q, "s": S[:, 0], "z": Z},
    ),
    "MatMulInteger": (
        [
            node("DynamicQuantizeLinear", ["x"], ["a", "t", "u"]),
            node("MatMulInteger", ["a", "q", "u"], ["i"]),
            node("Cast", ["i"], ["f"], to=1),
            node("Mul", ["t", "s"], ["v"]),
            node("Mul", ["f", "v"], ["y"]),
        ],
        {"q": Q, "s": S[:, 0]},
    ),
    "ConvInteger": (
        [
            node("DynamicQuantizeLinear", ["x"], ["a", "t", "u"]),
            node("ConvInteger", ["a", "q", "u"], ["i"]),
            node("Cast", ["i"], ["f"], to=1),
            node("Mul", ["f", "s"], ["y"]),
        ],
        {"q": whole(32, 3, 3, 3), "s": np.abs(floats(1, 32, 1, 1))},
    ),
    "QLinearMatMul": (
        [
            node("QuantizeLinear", ["x", "t", "u"], ["a"]),
            node("QLinearMatMul", ["a", "t", "u", "q", "s", "z", "t", "u"], ["b"]),
            node("DequantizeLinear", ["b", "t", "u"], ["y"]),
        ],
        {"q": Q, "s": S[:, 0], "z": Z, "t": np.float32(0.1), "u": np.int8(0)},
    ),
    "MatMulNBits": (
        [node("MatMulNBits", ["x", "q", "s"], ["y"], domain="com.microsoft", K=64, N=64, bits=4, block_size=32)],
        {"q": whole(64, 2, 16, dtype=np.uint8), "s": np.abs(floats(128))},
    ),
    "DynamicQuantizeMatMul": (
        [node("DynamicQuantizeMatMul", ["x", "q", "s", "z"], ["y"], domain="com.microsoft")],
        {"q": Q, "s": S[:, 0], "z": Z},
    ),
    "QAttention": (
        [node("QAttention", ["a", "q", "b", "t", "s"], ["y"], domain="com.microsoft", num_heads=2)],
        {"q": whole(64, 192), "s": np.abs(floats(192)), "b": floats(192)},
    ),
    "an unknown operator with packed integers": (
        [node("Four", ["x", "q", "s"], ["y"], domain="com.example")],
        {"q": whole(32, 64, dtype=np.int32), "s": np.abs(floats(4, 64))},
    ),
}


@pytest.mark.parametrize("pattern", SCALES)
def test_scales_are_exact_wherever_they_meet_integers(read: Read, pattern: str) -> None:
    nodes, tensors = SCALES[pattern]
    exact = read(model_of(nodes, tensors), Options(all_floats=True)).exact
    assert exact.keys() == {name for name, array in tensors.items() if array.dtype.kind == "f"}
    assert all("quantization" in reason for reason in exact.values())


@pytest.mark.parametrize("pattern", ["cast, mul", "groups", "DequantizeLinear"])
def test_quantized_weights_come_back_bit_for_bit(restored: Callable[..., Path], pattern: str) -> None:
    back = arrays(restored(model_of(*SCALES[pattern])))
    for name, array in SCALES[pattern][1].items():
        np.testing.assert_array_equal(back[name], array, strict=True)


@pytest.mark.parametrize("pattern", ["cast, mul", "DequantizeLinear"])
def test_scales_of_float8_weights_are_exact(read: Read, pattern: str) -> None:
    nodes, tensors = SCALES[pattern]
    model = model_of(nodes, {"s": tensors["s"]})
    packed = RNG.integers(0, 120, 4096, np.uint8).tobytes()
    model.graph.initializer.append(helper.make_tensor("q", TensorProto.FLOAT8E4M3FN, [64, 64], packed, raw=True))
    found = read(model)
    assert found.exact.keys() == {"s"}
    assert "1 tensors of 8 bits or less" in found.remarks[0]


def test_indices_are_not_quantized_numbers(read: Read) -> None:
    nodes = [
        node("Gather", ["w", "i"], ["g"]),
        node("EmbedLayerNormalization", ["i", "i", "v", "w"], ["h"], domain="com.microsoft"),
        node("Add", ["g", "h"], ["y"]),
    ]
    tensors = {"w": floats(100, 32), "v": floats(100, 32), "i": np.arange(32)}
    assert not read(model_of(nodes, tensors)).exact


V = floats(64)
SENSITIVE: dict[str, list[NodeProto]] = {
    "outer product with positions": [
        node("Unsqueeze", ["v", "axes"], ["w"]),
        node("MatMul", ["w", "x"], ["f"]),
        node("Transpose", ["f"], ["t"], perm=[1, 0]),
        node("Cos", ["t"], ["y"]),
    ],
    "product with positions": [
        node("Mul", ["x", "v"], ["f"]),
        node("Concat", ["f", "f"], ["t"], axis=-1),
        node("Sin", ["t"], ["y"]),
    ],
    "equation": [node("Einsum", ["x", "v"], ["f"], equation="i,j->ij"), node("Sin", ["f"], ["y"])],
    "division": [node("Div", ["x", "v"], ["y"])],
    "division by a sum": [
        node("Relu", ["x"], ["r"]),
        node("Add", ["r", "v"], ["s"]),
        node("Div", ["x", "s"], ["y"]),
    ],
    "reciprocal": [node("Reciprocal", ["v"], ["r"]), node("Mul", ["x", "r"], ["y"])],
    "normalization in pieces": [
        node("Add", ["v", "epsilon"], ["s"]),
        node("Sqrt", ["s"], ["r"]),
        node("Div", ["x", "r"], ["y"]),
    ],
    "power": [node("Pow", ["v", "minus half"], ["r"]), node("Mul", ["x", "r"], ["y"])],
    "logarithm": [node("Log", ["v"], ["r"]), node("Add", ["x", "r"], ["y"])],
    "subtracted before a division": [node("Sub", ["x", "v"], ["d"]), node("Div", ["d", "scales"], ["y"])],
    "index": [node("Cast", ["v"], ["i"], to=7), node("Gather", ["x", "i"], ["y"])],
    "index from a table": [
        node("Gather", ["v", "n"], ["g"]),
        node("Cast", ["g"], ["i"], to=7),
        node("Gather", ["x", "i"], ["y"]),
    ],
    **{
        kind: [node(kind, ["v"], ["f"]), node("Mul", ["x", "f"], ["y"])]
        for kind in ("Floor", "Ceil", "Round", "Sign", "Tan")
    },
    "fake quantization": [
        node("Div", ["v", "step"], ["d"]),
        node("Round", ["d"], ["r"]),
        node("Mul", ["r", "step"], ["q"]),
        node("Add", ["x", "q"], ["y"]),
    ],
}
ARGUMENTS = {
    "axes": np.array([1]),
    "epsilon": np.float32(1e-5),
    "minus half": np.float32(-0.5),
    "scales": np.abs(floats(64)),
    "step": np.float32(0.01),
}


def with_arguments(nodes: list[NodeProto], tensors: Arrays) -> ModelProto:
    used = {name for each in nodes for name in each.input}
    return model_of(nodes, {**tensors, **{name: array for name, array in ARGUMENTS.items() if name in used}})


@pytest.mark.parametrize("pattern", SENSITIVE)
def test_what_is_amplified_or_rounded_is_exact(read: Read, pattern: str) -> None:
    model = read(with_arguments(SENSITIVE[pattern], {"v": V}))
    assert "v" in model.exact or "v" not in model.tensors


def test_a_table_of_phases_is_exact(read: Read) -> None:
    nodes = [node("Gather", ["w", "n"], ["g"]), node("Mul", ["g", "x"], ["p"]), node("Sin", ["p"], ["y"])]
    assert read(model_of(nodes, {"w": floats(32, 32)})).exact == {"w": "reaches Sin"}


@pytest.mark.parametrize(
    ("domain", "kind", "at"),
    [
        ("", "RotaryEmbedding", 1),
        ("com.microsoft", "RotaryEmbedding", 2),
        ("com.microsoft", "GroupQueryAttention", 7),
        ("com.microsoft", "SparseAttention", 9),
    ],
)
def test_tables_of_angles_are_exact(read: Read, domain: str, kind: str, at: int) -> None:
    angles = np.outer(np.arange(512), 10000.0 ** -(np.arange(16) / 16)).astype(np.float32)
    inputs = ["q", *[""] * (at - 1), "cos", "sin"]
    model = model_of(
        [node("MatMul", ["x", "w"], ["q"]), node(kind, inputs, ["y"], domain=domain)],
        {"w": floats(32, 32), "cos": np.cos(angles), "sin": np.sin(angles)},
    )
    assert read(model).exact == dict.fromkeys(("cos", "sin"), f"reaches {kind}")


def test_exactness_reaches_into_the_branches_of_a_model(read: Read) -> None:
    branch = helper.make_graph(
        [node("Mul", ["x", "v"], ["p"]), node("Sin", ["p"], ["s"])],
        "branch",
        [],
        [helper.make_tensor_value_info("s", TensorProto.FLOAT, None)],
    )
    nodes = [node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch)]
    assert read(model_of(nodes, {"v": V, "flag": np.array(True)})).exact == {"v": "reaches Sin"}


def test_exactness_reaches_into_functions(read: Read) -> None:
    body = [node("Cast", ["a"], ["f"], to=1), node("Mul", ["f", "b"], ["c"])]
    function = helper.make_function("own", "Scale", ["a", "b"], ["c"], body, [helper.make_opsetid("", 21)])
    nodes = [node("Scale", ["q", "s"], ["w"], domain="own"), node("MatMul", ["x", "w"], ["y"])]
    assert read(model_of(nodes, {"q": Q, "s": S}, functions=[function])).exact.keys() == {"s"}


def test_weights_of_a_network_of_sines_are_weights(read: Read) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["p"]), node("Sin", ["p"], ["y"])]
    assert read(model_of(nodes, {"w": floats(64, 64), "b": floats(64)})).exact.keys() == {"b"}


def test_what_is_far_from_a_sine_is_not_exact(read: Read) -> None:
    nodes = [node("Sin", ["h9"], ["y"])]
    for i in range(9):
        before = f"h{i}" if i else "x"
        nodes += [node("Add", [before, f"b{i}"], [f"a{i}"]), node("Add", [before, f"a{i}"], [f"h{i + 1}"])]
    assert read(model_of(nodes, {f"b{i}": floats(64) for i in range(9)})).exact.keys() == {"b8"}


def test_normalizations_in_pieces_leave_the_weights_before_them_alone(read: Read) -> None:
    nodes = [
        node("Gather", ["embedding", "n"], ["e"]),
        node("Add", ["e", "place"], ["h"]),
        node("MatMul", ["h", "w"], ["i"]),
        node("Add", ["i", "h"], ["j"]),
        node("ReduceMean", ["j"], ["m"]),
        node("Sub", ["j", "m"], ["c"]),
        node("Pow", ["c", "two"], ["p"]),
        node("ReduceMean", ["p"], ["v"]),
        node("Add", ["v", "epsilon"], ["u"]),
        node("Sqrt", ["u"], ["s"]),
        node("Div", ["c", "s"], ["d"]),
        node("Mul", ["d", "gamma"], ["g"]),
        node("Add", ["g", "beta"], ["k"]),
        node("Div", ["k", "root"], ["l"]),
        node("Erf", ["l"], ["y"]),
    ]
    tensors = {
        "embedding": floats(50, 32),
        "place": floats(50, 32),
        "w": floats(32, 32),
        "gamma": floats(32),
        "beta": floats(32),
        "epsilon": np.float32(1e-5),
        "two": np.float32(2),
        "root": np.float32(1.4142),
    }
    assert not read(model_of(nodes, tensors)).exact


def test_a_rule_overrules_what_is_exact(tmp_path: Path) -> None:
    onnx.save(model_of(SENSITIVE["division"], {"v": V}), tmp_path / "m.onnx")
    checked("compress", tmp_path / "m.onnx", "--rule", "^v$=qp=-20")
    assert sqnr(V, nnc_core.decode((tmp_path / "m.nnr").read_bytes())["v"]) < 60
