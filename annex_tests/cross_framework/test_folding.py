"""Batch normalization that an export has folded into convolutions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnc_adapters.convert import convert
from nnc_core import ModelError

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")


def module(torch: Any, seed: int, *, biased: bool = True) -> Any:
    nn = torch.nn
    torch.manual_seed(seed)
    found = nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=biased), nn.BatchNorm2d(4), nn.ReLU(), nn.ConvTranspose2d(4, 3, 2), nn.BatchNorm2d(3),
        nn.Flatten(), nn.BatchNorm1d(3 * 7 * 6), nn.Linear(3 * 7 * 6, 5), nn.BatchNorm1d(5, affine=False),
    )  # fmt: skip
    for name, tensor in found.state_dict().items():
        if tensor.is_floating_point() and tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5) if "var" in name else tensor.uniform_(-1, 1)
    return found.eval()


@pytest.fixture(scope="module")
def image() -> Any:
    return np.random.default_rng(3).standard_normal((2, 1, 8, 7)).astype(np.float32)


def export(torch: Any, net: Any, image: Any, path: Path, *, folded: bool) -> Path:
    training = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, torch.from_numpy(image), str(path), dynamo=False, training=training, do_constant_folding=folded
        )
    return path


def by_onnx(path: Path, image: Any) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})[0]


def by_torch(torch: Any, net: Any, path: Path, image: Any) -> Any:
    net.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        return net(torch.from_numpy(image)).numpy()


@pytest.mark.parametrize("biased", [True, False])
def test_a_folded_graph_takes_the_weights_of_a_network_that_normalizes_and_gives_them_back(
    torch: Any, image: Any, tmp_path: Path, biased: bool
) -> None:
    net, other = module(torch, 1, biased=biased), module(torch, 2, biased=biased)
    graph = export(torch, other, image, tmp_path / "net.onnx", folded=True)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    expected = by_torch(torch, net, tmp_path / "net.pt", image), by_onnx(graph, image)
    there = convert(tmp_path / "net.pt", tmp_path / "there.onnx", into=graph, module=net, fold=True)
    np.testing.assert_allclose(by_onnx(there.target, image), expected[0], atol=2e-5)
    back = convert(graph, tmp_path / "back.pt", into=tmp_path / "net.pt", module=net, fold=True)
    np.testing.assert_allclose(by_torch(torch, net, back.target, image), expected[1], atol=2e-5)
    assert max(there.difference or 1, back.difference or 1) < 1e-5


def test_without_fold_it_is_said_what_was_folded_and_how_to_export_without(
    torch: Any, image: Any, tmp_path: Path
) -> None:
    nn = torch.nn
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)).eval()
    graph = export(torch, net, image, tmp_path / "net.onnx", folded=True)
    torch.save(net.state_dict(), tmp_path / "net.pt")
    with pytest.raises(ModelError, match=r"folded into the layers before it in the source: export it with .*--fold"):
        convert(graph, tmp_path / "out.pt", into=tmp_path / "net.pt", module=net)
    with pytest.raises(ModelError, match=r"folded into the layers before it in the target: convert with --fold"):
        convert(tmp_path / "net.pt", tmp_path / "out.onnx", into=graph, module=net)


def test_graphs_of_both_kinds_exchange_weights(torch: Any, image: Any, tmp_path: Path) -> None:
    kept = export(torch, module(torch, 1), image, tmp_path / "kept.onnx", folded=False)
    folded = export(torch, module(torch, 2), image, tmp_path / "folded.onnx", folded=True)
    for source, into in ((kept, folded), (folded, kept)):
        convert(source, tmp_path / "out.onnx", into=into, fold=True, force=True)
        np.testing.assert_allclose(by_onnx(tmp_path / "out.onnx", image), by_onnx(source, image), atol=2e-5)
