"""ONNX models as practitioners have them: what must not change does not, and what can shrink does."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

import nnc_adapters
import nnc_core
from nnc_adapters.base import Options
from nnc_adapters.cli import main
from nnc_adapters.onnx import OnnxAdapter
from nnc_core.errors import ModelError
from nnc_core.nnr_model import SourceModel

node = helper.make_node
Arrays = Mapping[str, NDArray[Any]]
Read = Callable[[ModelProto], SourceModel]

SHARED = Path(os.environ.get("NNC_SHARED", Path(__file__).resolve().parents[2].parent / "shared")) / "cases" / "onnx"
RNG = np.random.default_rng(6)


def floats(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


def whole(*shape: int, dtype: Any = np.int8) -> NDArray[Any]:
    bounds = np.iinfo(dtype)
    return RNG.integers(max(bounds.min, -8), min(bounds.max, 7), shape, endpoint=True).astype(dtype)


def model_of(nodes: Sequence[NodeProto], tensors: Arrays, **more: Any) -> ModelProto:
    """A model; inputs are called ``x`` (floats) and ``n`` (whole numbers), the output ``y``."""
    used = {name for each in nodes for name in each.input}
    kinds = {"x": TensorProto.FLOAT, "n": TensorProto.INT64}
    inputs = [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items() if name in used]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    weights = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, weights)
    domains = dict.fromkeys(("", "com.microsoft", *(each.domain for each in nodes)))
    imports = [helper.make_opsetid(domain, 1 if domain else 21) for domain in domains]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, **more)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """What the adapter makes of a model."""

    def call(model: ModelProto) -> SourceModel:
        onnx.save(model, tmp_path / "read.onnx")
        return OnnxAdapter().read(tmp_path / "read.onnx")

    return call


@pytest.fixture
def restored(tmp_path: Path) -> Callable[..., Path]:
    """Compress with the command line, verify, and restore: the file that comes back."""

    def call(source: Path | ModelProto) -> Path:
        if isinstance(source, ModelProto):
            onnx.save(source, tmp_path / "source.onnx")
            source = tmp_path / "source.onnx"
        coded, back = tmp_path / "coded.nnr", tmp_path / "restored" / "back.onnx"
        back.parent.mkdir()
        nnc("compress", source, "-o", coded)
        nnc("verify", source, coded)
        nnc("decompress", coded, "-o", back)
        return back

    return call


def nnc(*arguments: str | Path) -> None:
    result = CliRunner().invoke(main, [str(a) for a in arguments], prog_name="nnc")
    assert result.exit_code == 0, result.output


def arrays(path: Path) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def outputs(path: Path, feeds: Arrays) -> list[NDArray[Any]]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(None, dict(feeds))
    return found


def case(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"there is no {SHARED / name}; set NNC_SHARED")
    return SHARED / name


def sqnr(original: NDArray[Any], decoded: NDArray[Any]) -> float:
    noise = float(((original.astype(np.float64) - decoded) ** 2).sum())
    return 10 * float(np.log10((original.astype(np.float64) ** 2).sum() / noise)) if noise else np.inf


# Quantization scales and zero points ----------------------------------------------------------------------------------

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
    exact = read(model_of(nodes, tensors)).exact
    large = {name for name, array in tensors.items() if array.dtype.kind == "f" and array.size >= 16}
    assert exact.keys() == large
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


# Phases, divisors, tables ---------------------------------------------------------------------------------------------

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
    nnc("compress", tmp_path / "m.onnx", "--rule", "^v$=qp=-20")
    assert sqnr(V, nnc_core.decode((tmp_path / "m.nnr").read_bytes())["v"]) < 60


# Weights of any operator ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("domain", ["com.microsoft", "com.example"])
@pytest.mark.parametrize("kind", ["FusedMatMul", "Attention", "Whatever"])
def test_weights_of_operators_outside_the_standard_are_coded_as_weights(tmp_path: Path, kind: str, domain: str) -> None:
    onnx.save(model_of([node(kind, ["x", "w"], ["y"], domain=domain)], {"w": floats(64, 64)}), tmp_path / "m.onnx")
    onnx.save(model_of([node("MatMul", ["x", "w"], ["y"])], {"w": floats(64, 64)}), tmp_path / "standard.onnx")
    sizes = [nnc_adapters.compress(tmp_path / f"{name}.onnx").bytes_after for name in ("m", "standard")]
    assert sizes[0] < sizes[1] + 200


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_models_that_onnxruntime_has_optimized_are_as_small_as_before(tmp_path: Path, level: str) -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("Conv", ["r", "v", "a"], ["d"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["d", "gamma", "beta", "mean", "variance"], ["u"]),
        node("Relu", ["u"], ["q"]),
        node("ReduceMean", ["q", "axes"], ["m"], keepdims=0),
        node("Gemm", ["m", "g", "o"], ["h"], transB=1),
        node("Relu", ["h"], ["k"]),
        node("Transpose", ["k"], ["t"], perm=[1, 0]),
        node("MatMul", ["p", "t"], ["y"]),
    ]
    tensors = {
        "w": floats(32, 16, 3, 3),
        "b": floats(32),
        "v": floats(32, 32, 3, 3),
        "a": floats(32),
        **{name: np.abs(floats(32)) for name in ("gamma", "beta", "mean", "variance")},
        "g": floats(64, 32),
        "o": floats(64),
        "p": floats(64, 64),
        "axes": np.array([2, 3]),
    }
    model = model_of(nodes, tensors)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 8, 8]))
    onnx.save(model, tmp_path / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), options, providers=["CPUExecutionProvider"])
    before, after = (nnc_adapters.compress(tmp_path / f"{name}.onnx").percent for name in ("m", "optimized"))
    assert after < before + 2


# What people only read ------------------------------------------------------------------------------------------------


def test_documentation_is_left_behind_on_request_only(tmp_path: Path) -> None:
    model = model_of([node("MatMul", ["x", "w"], ["y"], doc_string="d" * 999)], {"w": floats(64, 64)})
    model.graph.node[0].metadata_props.add(key="stack_trace", value="s" * 999)
    model.graph.initializer[0].doc_string = "i" * 999
    model.metadata_props.add(key="classes", value="cat, dog")
    onnx.save(model, tmp_path / "m.onnx")
    kept, stripped = (OnnxAdapter().read(tmp_path / "m.onnx", Options(strip_debug=strip)) for strip in (False, True))
    assert kept.topology is not None
    assert stripped.topology is not None
    assert len(kept.topology.data) - len(stripped.topology.data) > 2997
    assert not kept.remarks
    assert "of documentation and metadata of nodes were dropped" in stripped.remarks[0]
    assert b"cat, dog" in stripped.topology.data
    nnc("compress", tmp_path / "m.onnx", "--strip-debug")
    nnc("verify", tmp_path / "m.onnx", tmp_path / "m.nnr", "--strip-debug")


# External data --------------------------------------------------------------------------------------------------------


def in_file(name: str, location: str, dims: Sequence[int], offset: int | None = None) -> TensorProto:
    tensor = TensorProto(name=name, data_type=1, dims=dims, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    if offset is not None:
        tensor.external_data.add(key="offset", value=str(offset))
    return tensor


def test_external_data_in_a_file_called_nnr_is_no_stub(tmp_path: Path, restored: Callable[..., Path]) -> None:
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "c"], ["y"])]
    model = model_of(nodes, {"w": floats(64, 64)})
    model.graph.initializer.append(in_file("c", "nnr", [1]))
    (tmp_path / "nnr").write_bytes(np.float32(0.7).tobytes())
    assert arrays(restored(model))["c"] == np.float32(0.7)


def test_tensors_that_share_bytes_of_a_file_are_coded_once_and_share_them_again(
    tmp_path: Path, restored: Callable[..., Path]
) -> None:
    nodes = [node("Gather", ["e", "n"], ["g"]), node("MatMul", ["g", "f"], ["y"])]
    model = model_of(nodes, {})
    model.graph.initializer.extend([in_file("e", "w.bin", [512, 64]), in_file("f", "w.bin", [64, 512], 0)])
    (tmp_path / "w.bin").write_bytes(floats(512, 64).tobytes())
    onnx.save(model, tmp_path / "source.onnx")
    report = nnc_adapters.compress(tmp_path / "source.onnx")
    assert report.tensors == 1
    assert report.bytes_before == pytest.approx(512 * 64 * 4, rel=0.01)
    back = restored(model)
    places = [
        {e.key: e.value for e in t.external_data} for t in onnx.load(back, load_external_data=False).graph.initializer
    ]
    assert places[0] == places[1]
    assert sum(path.stat().st_size for path in back.parent.iterdir()) < 1.1 * 512 * 64 * 4
    found = arrays(back)
    np.testing.assert_array_equal(found["e"].reshape(-1), found["f"].reshape(-1))


def test_what_one_of_them_needs_holds_for_all_that_share_bytes(tmp_path: Path, read: Read) -> None:
    model = model_of([node("MatMul", ["x", "e"], ["h"]), node("Div", ["h", "f"], ["y"])], {})
    model.graph.initializer.extend([in_file("e", "w.bin", [64, 64]), in_file("f", "w.bin", [64, 64])])
    (tmp_path / "w.bin").write_bytes(floats(64, 64).tobytes())
    assert read(model).exact == {"e": "divisor in Div"}


def in_hub_cache(folder: Path, model: ModelProto) -> Path:
    """A model and its data as the cache of a hub has them: links in one folder to files in another."""
    onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0)
    blobs, snapshot = folder / "hub" / "blobs", folder / "hub" / "snapshots" / "1"
    for path in (blobs, snapshot):
        path.mkdir(parents=True)
    for number, name in enumerate(("m.onnx", "m.onnx.data")):
        (folder / name).rename(blobs / str(number))
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    return snapshot / "m.onnx"


@pytest.mark.skipif(os.name != "posix", reason="links need privileges elsewhere")
def test_external_data_behind_links_lie_beside_the_model_that_is_linked(
    tmp_path: Path, restored: Callable[..., Path]
) -> None:
    weights = {"w": floats(64, 64)}
    path = in_hub_cache(tmp_path, model_of([node("MatMul", ["x", "w"], ["y"])], weights))
    assert sqnr(weights["w"], arrays(restored(path))["w"]) > 30


@pytest.mark.skipif(os.name != "posix", reason="links need privileges elsewhere")
def test_external_data_behind_links_lie_nowhere_else(tmp_path: Path) -> None:
    path = in_hub_cache(tmp_path, model_of([node("MatMul", ["x", "w"], ["y"])], {"w": floats(64, 64)}))
    (tmp_path / "hub" / "blobs" / "1").rename(tmp_path / "secret")
    (path.parent / "m.onnx.data").unlink()
    (path.parent / "m.onnx.data").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="leads out of the model's folder"):
        OnnxAdapter().read(path)


@pytest.mark.parametrize("suffix", ["gz", "bz2", "xz"])
def test_compressed_models_are_read_and_written(tmp_path: Path, suffix: str) -> None:
    module: Any = {"gz": gzip, "bz2": bz2, "xz": lzma}[suffix]
    data = model_of([node("MatMul", ["x", "w"], ["y"])], {"w": floats(64, 64)}).SerializeToString()
    (tmp_path / f"m.onnx.{suffix}").write_bytes(module.compress(data))
    nnc("compress", tmp_path / f"m.onnx.{suffix}")
    nnc("verify", tmp_path / f"m.onnx.{suffix}", tmp_path / "m.nnr")
    nnc("decompress", tmp_path / "m.nnr", "-o", tmp_path / f"back.onnx.{suffix}")
    back = module.decompress((tmp_path / f"back.onnx.{suffix}").read_bytes())
    assert len(back) == len(data)
    assert onnx.ModelProto.FromString(back).graph.node == onnx.ModelProto.FromString(data).graph.node


# The files themselves -------------------------------------------------------------------------------------------------

FILES = sorted(path.relative_to(SHARED).as_posix() for path in SHARED.rglob("*.onnx"))


@pytest.mark.parametrize("name", FILES)
def test_a_case_round_trips_and_is_no_larger_than_deflated(
    tmp_path: Path, restored: Callable[..., Path], name: str
) -> None:
    back = restored(case(name))
    folder = case(name).parent if "/" in name else None
    before = b"".join(p.read_bytes() for p in sorted(folder.iterdir())) if folder else case(name).read_bytes()
    assert (tmp_path / "coded.nnr").stat().st_size <= len(zlib.compress(before, 9)) + 200
    assert arrays(back).keys() == arrays(case(name)).keys()


@pytest.mark.parametrize("name", ["layerscale_1d_1e-6", "mixed_rows", "contrib_fusedmatmul", "sparse_2_4"])
def test_a_case_keeps_every_tensor_at_30_db(restored: Callable[..., Path], name: str) -> None:
    back = arrays(restored(case(f"{name}.onnx")))
    assert all(sqnr(array, back[key]) >= 30 for key, array in arrays(case(f"{name}.onnx")).items())


@pytest.mark.parametrize(
    "name", ["cast_mul_scale", "dequantize_com.microsoft", "eps_vector", "scaler_tiny_1d", "floor_table"]
)
def test_a_case_comes_back_bit_for_bit(restored: Callable[..., Path], name: str) -> None:
    back = arrays(restored(case(f"{name}.onnx")))
    for key, array in arrays(case(f"{name}.onnx")).items():
        np.testing.assert_array_equal(back[key], array, strict=True)


def test_the_angles_of_rotary_embeddings_are_right_at_large_positions(restored: Callable[..., Path]) -> None:
    original = case("rope_inv_freq_3d.onnx")
    feeds = {onnx.load(original).graph.input[0].name: np.arange(4090, 4100).reshape(1, 1, -1)}
    for expected, found in zip(outputs(original, feeds), outputs(restored(original), feeds), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_masks_are_exact_and_small(tmp_path: Path, restored: Callable[..., Path]) -> None:
    mask = arrays(case("mask_neg_inf.onnx"))["m"]
    np.testing.assert_array_equal(arrays(restored(case("mask_neg_inf.onnx")))["m"], mask)
    assert (tmp_path / "coded.nnr").stat().st_size < 0.03 * mask.nbytes


def test_pruned_weights_stay_pruned(restored: Callable[..., Path]) -> None:
    original, back = (arrays(path)["W"] for path in (case("sparse_2_4.onnx"), restored(case("sparse_2_4.onnx"))))
    assert not back[original == 0].any()
