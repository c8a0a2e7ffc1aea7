"""One network in every file that can be run, and those that cannot: what is found out, what is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nnc_adapters
from annex_tests.cross_framework import architectures
from nnc_adapters.convert import convert, plan
from nnc_core import ModelError

# exporters warn about themselves and each other
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def net(torch: Any) -> Any:
    nn = torch.nn
    torch.manual_seed(3)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6), nn.ConvTranspose2d(6, 4, 2, 2)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 144, 12), nn.ReLU(), nn.Linear(12, 5)).eval()


@pytest.fixture(scope="module")
def files(torch: Any, keras: Any, net: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The network by the kind of its file; weights differ between those of PyTorch and those of Keras."""
    import tensorflow
    from safetensors.torch import save_file

    folder, k = tmp_path_factory.mktemp("formats"), keras.layers
    x = keras.Input((8, 8, 3))
    y = k.DepthwiseConv2D(3)(k.Conv2D(6, 3, padding="same", activation="relu")(x))
    y = k.Dense(12, activation="relu")(k.Flatten()(k.Conv2DTranspose(4, 2, strides=2)(y)))
    model = keras.Model(x, k.Dense(5)(y))
    for seed, variable in enumerate(model.variables):  # biases of zeros would be one buffer
        variable.assign(np.random.default_rng(seed).normal(0, 0.4, variable.shape))
    image = torch.zeros(1, 3, 8, 8)
    found = {
        name: folder / f"net{suffix}"
        for name, suffix in {
            "state dict": ".pt",
            "safetensors": ".safetensors",
            "exported": ".pt2",
            "keras": ".keras",
            "h5": ".h5",
            "tflite": ".tflite",
            "saved model": "_saved",
            "weights": ".weights.h5",
            "onnx": ".onnx",
        }.items()
    }
    found["script"] = folder / "script.pt"
    torch.save(net.state_dict(), found["state dict"])
    save_file(net.state_dict(), found["safetensors"])
    torch.export.save(torch.export.export(net, (image,)), found["exported"])
    torch.jit.save(torch.jit.trace(net, image), found["script"])
    torch.onnx.export(net, image, str(found["onnx"]), dynamo=False)
    model.save(found["keras"])
    model.save(found["h5"])
    model.save_weights(found["weights"])
    model.export(found["saved model"], verbose=False)
    found["tflite"].write_bytes(tensorflow.lite.TFLiteConverter.from_keras_model(model).convert())
    return found


RUNNABLE = [
    *(("state dict", other) for other in ("tflite", "saved model", "h5", "onnx")),
    *((other, "state dict") for other in ("tflite", "saved model", "keras")),
    *(("keras", other) for other in ("tflite", "saved model", "exported", "script", "onnx", "h5")),
    *(("tflite", "keras"), ("tflite", "onnx"), ("script", "keras"), ("safetensors", "keras"), ("onnx", "tflite")),
]


@pytest.mark.parametrize(("source", "into"), RUNNABLE, ids=lambda name: name.replace(" ", "-"))
def test_files_that_can_be_run_exchange_weights_without_a_question(
    net: Any, files: dict[str, Path], tmp_path: Path, source: str, into: str
) -> None:
    target = tmp_path / f"out{files[into].suffix}"
    report = convert(files[source], target, into=files[into], module=net)
    assert report.difference is not None
    assert report.difference < 1e-5
    assert (report.kept, report.unused, report.doubtful) == ([], [], [])


def test_weights_alone_are_asked_about_and_cannot_be_checked(net: Any, files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"inputs are not known; --input"):
        convert(files["state dict"], tmp_path / "out.weights.h5", into=files["weights"], module=net)
    options = {"into": files["weights"], "module": net, "inputs": [[1, 3, 8, 8]]}
    questions = plan(files["state dict"], **options)["questions"]
    assert questions == {"layers/dense/vars/0": [4, 12, 12]}
    report = convert(files["state dict"], tmp_path / "out.weights.h5", flatten=questions, **options)
    assert report.difference is None
    assert "Keras does not load it" in report.unchecked
    convert(tmp_path / "out.weights.h5", tmp_path / "out.keras", into=files["keras"], check=False)
    convert(files["state dict"], tmp_path / "other.keras", into=files["keras"], module=net)
    names = (
        nnc_adapters.compress(tmp_path / "out.keras", tmp_path / "one.nnr"),
        nnc_adapters.compress(tmp_path / "other.keras", tmp_path / "two.nnr"),
    )
    assert names[0].bytes_after == names[1].bytes_after


def test_a_subclassed_model_is_known_by_the_names_of_its_layers(torch: Any, keras: Any, tmp_path: Path) -> None:
    scaled = [True]

    class Sub(keras.Model):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.a = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="somehow")
            self.b, self.c = keras.layers.Dense(6), keras.layers.BatchNormalization(scale=scaled[-1])
            self.d = keras.layers.MultiHeadAttention(2, 3)

        def call(self, x: Any) -> Any:
            y = self.c(self.b(self.a(x)))[:, 0]
            return self.d(y, y)

    nn, options = torch.nn, {"batch_first": True}
    layers = {"one": nn.Linear(4, 6), "two": nn.BatchNorm2d(6), "three": nn.MultiheadAttention(6, 2, **options)}
    module = nn.ModuleDict({**layers, "four": nn.Conv2d(2, 4, 3, groups=2)})
    torch.save(module.state_dict(), tmp_path / "net.pt")
    for scale in (True, False):
        scaled.append(scale)
        model = Sub()
        model(np.zeros((1, 8, 8, 2), np.float32))
        model.save(tmp_path / "net.keras")
        found = plan(tmp_path / "net.keras", tmp_path / "net.pt")
        first = 2 if scale else 1
        wanted = {"four.weight": "a/vars/0", "one.weight": "b/vars/0"}
        wanted |= {"two.running_mean": f"c/vars/{first}", "two.running_var": f"c/vars/{first + 1}"}
        assert {name: found["matched"].get(name) for name in wanted} == wanted
        # queries, keys, values and outputs have one shape: their order decides, and is no proof
        assert {"three.in_proj_weight", "three.out_proj.weight"} <= set(found["doubtful"])
        # what is there beside mean and variance is not seen, and asked for
        assert {"two.weight", "two.bias"} <= set(found["candidates"]) or scale


@pytest.fixture(scope="module")
def encoders(torch: Any) -> Any:
    nn = torch.nn

    class Encoder(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
            self.words, self.out = nn.Embedding(13, 16), nn.Linear(16, 5)
            self.places = nn.Parameter(torch.zeros(1, 6, 16))
            self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

        def forward(self, x: Any) -> Any:
            return self.out(self.layers(self.words(x) + self.places))

    def make(seed: int) -> Any:
        generator, found = torch.Generator().manual_seed(seed), Encoder().eval()
        for parameter in found.parameters():  # layers that are copies of each other would be one in a graph
            parameter.data.normal_(0, 0.3, generator=generator)
        return found

    return make(1), make(2)


@pytest.mark.parametrize("exported", ["folded", "kept", "dynamo"])
def test_an_encoder_goes_through_onnx_and_comes_back(torch: Any, encoders: Any, tmp_path: Path, exported: str) -> None:
    ours, theirs = encoders
    torch.save(ours.state_dict(), tmp_path / "net.pt")
    words, graph = torch.arange(6)[None], tmp_path / "net.onnx"
    options: dict[str, Any] = {"dynamo": False, "opset_version": 17, "do_constant_folding": exported == "folded"}
    if exported == "dynamo":
        pytest.importorskip("onnxscript", reason="onnxscript is not installed")
        options = {"dynamo": True, "external_data": False, "verbose": False}
    torch.onnx.export(theirs, (words,), str(graph), **options)
    there = convert(tmp_path / "net.pt", tmp_path / "there.onnx", into=graph, module=ours)
    back = convert(there.target, tmp_path / "back.pt", into=tmp_path / "net.pt", module=ours)
    assert max(there.difference or 1, back.difference or 1) < 1e-5
    for name, tensor in torch.load(back.target, weights_only=True).items():
        np.testing.assert_allclose(tensor.numpy(), ours.state_dict()[name].numpy(), atol=1e-6)
    # names and what follows what tell it without the module, too
    alone = convert(there.target, tmp_path / "alone.pt", into=tmp_path / "net.pt")
    assert alone.doubtful == []
    states = (torch.load(report.target, weights_only=True) for report in (alone, back))
    assert all(torch.equal(one, other) for one, other in zip(*(state.values() for state in states), strict=True))


@pytest.mark.parametrize("through", ["file", "bitstream"])
def test_a_residual_network_moves_both_ways_within_the_error_of_its_coding(
    torch: Any, keras: Any, tmp_path: Path, through: str
) -> None:
    pair = architectures.resnet18(width=8)
    if through == "file":
        for result in architectures.results(pair, tmp_path):
            assert result.asked == 0
            assert result.difference < architectures.TOLERANCE
        return
    architectures.randomize(pair)
    module = pair.module.eval()
    torch.save(module.state_dict(), tmp_path / "net.pt")
    pair.model.save(tmp_path / "net.keras")
    nnc_adapters.compress(tmp_path / "net.pt", tmp_path / "net.nnr")
    nnc_adapters.decompress(tmp_path / "net.nnr", tmp_path / "decoded.pt")
    report = convert(tmp_path / "net.nnr", tmp_path / "out.keras", into=tmp_path / "net.keras", module=module)
    assert report.difference is not None
    assert report.difference < architectures.TOLERANCE  # of the decoded weights
    coded = convert(tmp_path / "net.pt", tmp_path / "out.nnr", into=tmp_path / "net.keras", module=module)
    nnc_adapters.decompress(coded.target, tmp_path / "restored.keras")
    x = np.random.default_rng(1).standard_normal((2, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        expected = module(torch.from_numpy(x)).numpy()
    found = keras.models.load_model(tmp_path / "restored.keras", compile=False)(np.moveaxis(x, 1, -1)).numpy()
    assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
