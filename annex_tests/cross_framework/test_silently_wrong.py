"""Conversions that once ended without an error and with wrong outputs: right now, or refused with what leads there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from nnc_adapters.convert import CheckError, convert, plan
from nnc_core import ModelError

Array = NDArray[Any]
# Keras 3.15 with numpy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@dataclass
class Case:
    """The same network twice, with other weights, and what it takes: channels first, and last."""

    module: Any
    model: Any
    given: list[Array]

    @property
    def last(self) -> list[Array]:
        return [np.moveaxis(array, 1, -1) if array.ndim == 4 else array for array in self.given]


def by_torch(torch: Any, module: Any, given: list[Array], path: Path) -> list[Array]:
    module.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        return _list(module(*map(torch.from_numpy, given)))


def by_keras(keras: Any, given: list[Array], path: Path) -> list[Array]:
    found = _list(keras.models.load_model(path)(given if len(given) > 1 else given[0]))
    return [np.moveaxis(array, -1, 1) if array.ndim == 4 else array for array in found]


def _list(value: Any) -> list[Array]:
    return [item.numpy() for item in (value if isinstance(value, list | tuple) else [value])]


def randomized(torch: Any, module: Any) -> Any:
    """Weights and statistics that all matter."""
    generator = torch.Generator().manual_seed(4)
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point() and tensor.dim() == 1:
            low, high = (0.5, 1.5) if "var" in name else (-1.0, 1.0)
            tensor.uniform_(low, high, generator=generator)
    return module.eval()


class Layers:
    """Makes the cases."""

    def __init__(self, torch: Any, keras: Any) -> None:
        self.nn, self.torch, self.keras, self.layers = torch.nn, torch, keras, keras.layers

    def net(self, run: Callable[..., Any], **layers: Any) -> Any:
        class Net(self.nn.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                for name, layer in layers.items():
                    setattr(self, name, layer)

            def forward(self, *values: Any) -> Any:
                return run(self, *values)

        return randomized(self.torch, Net())

    def case(self, module: Any, inputs: Any, outputs: Any) -> Case:
        generator = np.random.default_rng(3)
        inputs = inputs if isinstance(inputs, list) else [inputs]
        given = [generator.standard_normal((2, *x.shape[1:])).astype(np.float32) for x in inputs]
        given = [np.moveaxis(array, -1, 1) if array.ndim == 4 else array for array in given]
        return Case(
            module,
            self.keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs),
            [np.ascontiguousarray(array) for array in given],
        )

    def decoder(self) -> Case:
        nn, k = self.nn, self.layers
        net = self.net(
            lambda s, x: s.up(s.norm(s.fc(x)).reshape(-1, 4, 3, 2)),
            up=nn.ConvTranspose2d(4, 3, 2, stride=2), fc=nn.Linear(5, 24), norm=nn.BatchNorm1d(24),
        )  # fmt: skip
        x = self.keras.Input((5,))
        y = k.Reshape((3, 2, 4))(k.BatchNormalization(epsilon=1e-5)(k.Dense(24)(x)))
        return self.case(net, x, k.Conv2DTranspose(3, 2, strides=2)(y))

    def gates(self) -> Case:
        nn, k = self.nn, self.layers

        def run(s: Any, x: Any) -> Any:
            y = s.conv(x).permute(0, 2, 1, 3)
            return s.lstm(y.reshape(len(y), y.shape[1], -1))[0][:, -1]

        net = self.net(run, conv=nn.Conv2d(1, 4, 3, padding=1), lstm=nn.LSTM(20, 6, batch_first=True))
        x = self.keras.Input((7, 5, 1))
        return self.case(net, x, k.LSTM(6)(k.Reshape((7, 20))(k.Conv2D(4, 3, padding="same")(x))))

    def concatenated(self) -> Case:
        nn, k = self.nn, self.layers
        net = self.net(
            lambda s, x, z: s.fc(self.torch.cat([z, s.conv(x).flatten(1)], 1)),
            conv=nn.Conv2d(1, 4, 3, padding=1), fc=nn.Linear(4 * 30 + 3, 5),
        )  # fmt: skip
        x, z = self.keras.Input((6, 5, 1)), self.keras.Input((3,))
        y = k.Flatten()(k.Conv2D(4, 3, padding="same")(x))
        return self.case(net, [x, z], k.Dense(5)(k.Concatenate()([z, y])))

    def heads(self) -> Case:
        nn, k = self.nn, self.layers

        def run(s: Any, x: Any) -> Any:
            y = s.conv(x).flatten(1)
            return s.one(y), s.two(y)

        net = self.net(run, two=nn.Linear(120, 4), one=nn.Linear(120, 4), conv=nn.Conv2d(1, 4, 3, padding=1))
        x = self.keras.Input((6, 5, 1))
        y = k.Flatten()(k.Conv2D(4, 3, padding="same")(x))
        return self.case(net, x, [k.Dense(4)(y), k.Dense(4)(y)])

    def norm_of_flattened(self) -> Case:
        nn, k = self.nn, self.layers
        net = self.net(
            lambda s, x: s.fc(s.norm(s.conv(x).flatten(1))),
            conv=nn.Conv2d(1, 4, 3, padding=1), norm=nn.BatchNorm1d(120), fc=nn.Linear(120, 5),
        )  # fmt: skip
        x = self.keras.Input((6, 5, 1))
        y = k.Flatten()(k.Conv2D(4, 3, padding="same")(x))
        return self.case(net, x, k.Dense(5)(k.BatchNormalization(epsilon=1e-5)(y)))

    def head_first(self) -> Case:
        nn, k = self.nn, self.layers
        net = self.net(
            lambda s, x: s.a_head(s.conv(x).flatten(1)), a_head=nn.Linear(120, 5), conv=nn.Conv2d(1, 4, 3, padding=1)
        )
        x = self.keras.Input((6, 5, 1))
        y = k.Conv2D(4, 3, padding="same", name="z_conv")(x)
        return self.case(net, x, k.Dense(5, name="a_head")(k.Flatten()(y)))

    def bidirectional(self) -> Case:
        nn, k = self.nn, self.layers
        net = self.net(lambda s, x: s.r(x)[0], r=nn.LSTM(4, 4, batch_first=True, bidirectional=True, num_layers=2))
        x = self.keras.Input((5, 4))
        y = k.Bidirectional(k.LSTM(4, return_sequences=True))(x)
        return self.case(net, x, k.Bidirectional(k.LSTM(4, return_sequences=True))(y))

    def eleven(self) -> Case:
        nn, k = self.nn, self.layers
        net = self.net(
            lambda s, x: s.all(x), all=nn.Sequential(*(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(11)))
        )
        x = y = self.keras.Input((6,))
        for _ in range(11):
            y = k.Dense(6, activation="tanh")(y)
        return self.case(net, x, y)

    def shortcut(self) -> Case:
        nn, k = self.nn, self.layers

        def run(s: Any, x: Any) -> Any:
            return s.last(self.torch.relu(s.main2(self.torch.relu(s.main1(x))) + s.side(x)))

        def conv() -> Any:
            return nn.Conv2d(4, 4, 3, padding=1)

        net = self.net(run, side=conv(), last=conv(), main1=conv(), main2=conv())
        x = self.keras.Input((6, 5, 4))
        one, two, side, last = (k.Conv2D(4, 3, padding="same") for _ in range(4))
        y = k.ReLU()(k.Add()([two(k.ReLU()(one(x))), side(x)]))
        return self.case(net, x, last(y))

    def attention(self) -> Case:
        """Keys are defined before queries, and both after values."""
        nn, k = self.nn, self.layers

        def run(s: Any, x: Any) -> Any:
            q, key, v = (layer(x).reshape(len(x), -1, 2, 4).transpose(1, 2) for layer in (s.a, s.b, s.c))
            weights = self.torch.softmax(q @ key.transpose(-2, -1) / 2.0, -1)
            return s.d((weights @ v).transpose(1, 2).reshape(x.shape))

        net = self.net(run, c=nn.Linear(8, 8), b=nn.Linear(8, 8), d=nn.Linear(8, 8), a=nn.Linear(8, 8))
        x = self.keras.Input((5, 8))
        return self.case(net, x, k.MultiHeadAttention(2, 4)(x, x))


CASES = (
    *("decoder", "gates", "concatenated", "heads", "norm_of_flattened", "head_first", "bidirectional", "eleven"),
    *("shortcut", "attention"),
)


@pytest.fixture(scope="module")
def made(torch: Any, keras: Any) -> Any:
    found: dict[str, Case] = {}
    layers = Layers(torch, keras)

    def make(name: str) -> Case:
        if name not in found:
            found[name] = getattr(layers, name)()
        return found[name]

    return make


def saved(case: Case, torch: Any, folder: Path, suffix: str) -> tuple[Path, Path]:
    torch.save(case.module.state_dict(), folder / "net.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case.model.save(folder / f"net{suffix}")
    return folder / "net.pt", folder / f"net{suffix}"


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", CASES)
def test_with_the_module_nothing_is_asked_and_both_ways_are_right(
    made: Any, torch: Any, keras: Any, tmp_path: Path, name: str, suffix: str
) -> None:
    case = made(name)
    ours, theirs = saved(case, torch, tmp_path, suffix)
    expected = by_torch(torch, case.module, case.given, ours), by_keras(keras, case.last, theirs)
    there = convert(ours, tmp_path / f"there{suffix}", into=theirs, module=case.module)
    back = convert(theirs, tmp_path / "back.pt", into=ours, module=case.module)
    for found, wanted in zip(by_keras(keras, case.last, there.target), expected[0], strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)
    for found, wanted in zip(by_torch(torch, case.module, case.given, back.target), expected[1], strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)
    assert there.difference is not None
    assert there.difference < 1e-5


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("name", CASES)
def test_without_the_module_it_is_refused_or_right_with_the_answers_that_are_asked_for(
    made: Any, torch: Any, keras: Any, tmp_path: Path, name: str, suffix: str
) -> None:
    case = made(name)
    ours, theirs = saved(case, torch, tmp_path, suffix)
    questions = plan(ours, theirs)["questions"]
    assert len(questions) == (name not in ("bidirectional", "eleven", "shortcut", "attention"))
    if questions:
        with pytest.raises(ModelError, match=r"takes a flattened image of 4 channels.*--flatten .*=4,"):
            convert(ours, tmp_path / f"there{suffix}", into=theirs)
        asked, image = next(iter(questions.items()))
        with pytest.raises(ModelError, match="is not what is flattened there"):
            convert(ours, tmp_path / f"there{suffix}", into=theirs, flatten={asked: [*image[:-1], image[-1] + 1]})
    refusal = _refusal(ours, tmp_path / f"there{suffix}", theirs) or _refusal(theirs, tmp_path / "back.pt", ours)
    if refusal:
        assert name in ("eleven", "heads", "shortcut", "attention", "bidirectional")
        assert "told apart by order alone" in refusal
        assert "--module FILE.py:NAME" in refusal
        return
    expected = by_torch(torch, case.module, case.given, ours), by_keras(keras, case.last, theirs)
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.pt"
    for found, wanted in zip(by_keras(keras, case.last, there), expected[0], strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)
    for found, wanted in zip(by_torch(torch, case.module, case.given, back), expected[1], strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)


def _refusal(source: Path, target: Path, into: Path) -> str:
    """Why it is refused to convert with every question answered as usual; empty if it is done."""
    try:
        convert(source, target, into=into, flatten=plan(source, into)["questions"])
    except ModelError as error:
        return str(error)
    return ""


def channels_last_graph(path: Path) -> Path:
    """A network of Keras as it becomes ONNX: NHWC from the input to the flattened image, NCHW for the convolution."""
    generator = np.random.default_rng(8)
    shapes = {"w": (4, 1, 3, 3), "b": (4,), "k": (48, 5), "c": (5,)}
    weights = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        helper.make_node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "w", "b"], ["image"]),
        helper.make_node("Transpose", ["image"], ["last"], perm=[0, 2, 3, 1]),
        helper.make_node("Reshape", ["last", "size"], ["flat"]),
        helper.make_node("MatMul", ["flat", "k"], ["product"]),
        helper.make_node("Add", ["product", "c"], ["y"]),
    ]
    info = helper.make_tensor_value_info
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    tensors.append(numpy_helper.from_array(np.array([-1, 48]), "size"))
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, ["n", 6, 5, 1])], [info("y", TensorProto.FLOAT, ["n", 5])], tensors
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def by_onnx(path: Path, given: list[Array]) -> Array:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    found: Array = session.run(None, dict(zip(names, given, strict=True)))[0]
    return found


def test_onnx_may_flatten_with_its_channels_last(torch: Any, tmp_path: Path) -> None:
    graph = channels_last_graph(tmp_path / "net.onnx")
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(48, 5)).eval()
    torch.save(module.state_dict(), tmp_path / "net.pt")
    x = np.random.default_rng(1).standard_normal((2, 6, 5, 1)).astype(np.float32)
    first = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    with pytest.raises(ModelError, match=r"--flatten 2\.weight=4,4,3 .*--flatten 2\.weight=no"):
        convert(graph, tmp_path / "out.pt", into=tmp_path / "net.pt")
    for options in ({"module": module}, {"flatten": {"2.weight": [4, 4, 3]}}):
        convert(graph, tmp_path / "out.pt", into=tmp_path / "net.pt", force=True, **options)
        (found,) = by_torch(torch, module, [first], tmp_path / "out.pt")
        np.testing.assert_allclose(found, by_onnx(graph, [x]), atol=1e-5)


@pytest.mark.parametrize("sizes", [(6, 6), (6, 9)])
def test_a_matrix_that_pytorch_stores_with_its_inputs_first_stays_so(
    torch: Any, tmp_path: Path, sizes: tuple[int, int]
) -> None:
    class Conv1D(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(*sizes))
            self.bias = torch.nn.Parameter(torch.randn(sizes[1]))

        def forward(self, x: Any) -> Any:
            return torch.addmm(self.bias, x, self.weight)

    torch.manual_seed(2)
    module = torch.nn.Sequential(Conv1D(), torch.nn.Tanh()).eval()
    torch.save(module.state_dict(), tmp_path / "net.pt")
    x = np.random.default_rng(1).standard_normal((2, 6)).astype(np.float32)
    expected = by_torch(torch, module, [x], tmp_path / "net.pt")[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, torch.from_numpy(x), str(tmp_path / "net.onnx"), dynamo=False, opset_version=17)
    if sizes[0] == sizes[1]:
        with pytest.raises(ModelError, match=r"0\.weight.*no run can confirm"):
            convert(tmp_path / "net.onnx", tmp_path / "out.pt", into=tmp_path / "net.pt")
    else:
        convert(tmp_path / "net.onnx", tmp_path / "out.pt", into=tmp_path / "net.pt")
    convert(tmp_path / "net.onnx", tmp_path / "out.pt", into=tmp_path / "net.pt", module=module, force=True)
    np.testing.assert_allclose(by_torch(torch, module, [x], tmp_path / "out.pt")[0], expected, atol=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_gru_that_resets_before_the_product_is_not_one_that_resets_after(
    torch: Any, keras: Any, tmp_path: Path, suffix: str
) -> None:
    module = torch.nn.GRU(4, 3, batch_first=True, bias=False)
    torch.save(module.state_dict(), tmp_path / "net.pt")
    for after in (False, True):
        x = keras.Input((5, 4))
        model = keras.Model(x, keras.layers.GRU(3, use_bias=False, reset_after=after, return_sequences=True)(x))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save(tmp_path / f"net{suffix}")
        for options in ({}, {"module": module}):
            arguments = {"into": tmp_path / "net.pt", "force": True, **options}
            if after:
                convert(tmp_path / f"net{suffix}", tmp_path / "out.pt", **arguments)
            else:
                with pytest.raises(ModelError, match="models do not match"):
                    convert(tmp_path / f"net{suffix}", tmp_path / "out.pt", **arguments)


def test_what_half_precision_cannot_hold_is_told(torch: Any, tmp_path: Path) -> None:
    torch.save({"a.weight": torch.tensor([[1e6, 1e-9], [1.0, 2.0]])}, tmp_path / "full.pt")
    torch.save({"a.weight": torch.zeros(2, 2, dtype=torch.float16)}, tmp_path / "half.pt")
    report = convert(tmp_path / "full.pt", tmp_path / "out.pt", into=tmp_path / "half.pt", check=False)
    assert report.remarks == ["a.weight: 1 values are too large for float16, 1 become zero"]


def test_settings_that_differ_fail_the_check_and_are_told(torch: Any, keras: Any, tmp_path: Path) -> None:
    module = randomized(torch, torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3), torch.nn.Tanh()))
    torch.save(module.state_dict(), tmp_path / "net.pt")
    x = keras.Input((4,))
    y = keras.layers.BatchNormalization(epsilon=0.1)(keras.layers.Dense(3)(x))
    keras.Model(x, keras.layers.ReLU()(y)).save(tmp_path / "net.keras")
    arguments = {"into": tmp_path / "net.keras", "module": module}
    with pytest.raises(CheckError, match=r"epsilon is 1e-05 in the source, 0\.1 in the target"):
        convert(tmp_path / "net.pt", tmp_path / "out.keras", **arguments)
    assert not (tmp_path / "out.keras").exists()
    report = convert(tmp_path / "net.pt", tmp_path / "out.keras", check=False, **arguments)
    assert any("epsilon is 1e-05" in remark for remark in report.remarks)
    assert any("activation tanh in the source, relu in the target" in remark for remark in report.remarks)
