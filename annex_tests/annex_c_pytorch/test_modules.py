"""Modules go into a bitstream and come back in one line each; their types say what tensors are for."""

from __future__ import annotations

import io

import numpy as np
import pytest

import nnc_adapters
import nnc_adapters.pytorch
import nnc_core


@pytest.fixture
def modules(torch):
    """What is under test, which needs PyTorch."""
    from nnc_adapters.pytorch import modules

    return modules


@pytest.fixture
def info(torch, modules):
    """The model information of a module, whatever the sizes of its tensors."""

    def of(module):
        return modules.model_info(module, {name: tuple(t.shape) for name, t in module.state_dict().items()})

    return of


def test_a_module_comes_back_in_one_line(torch, network, image):
    data = nnc_adapters.pytorch.compress(network)
    other = type(network)(*(type(m)(*arguments(m)) for m in network)).eval()
    assert nnc_adapters.pytorch.load(data, other) is other
    torch.testing.assert_close(other(image), network(image), rtol=0, atol=0.3)
    decoded = nnc_core.decode(data)
    for name, tensor in other.state_dict().items():
        expected = torch.from_numpy(decoded[name]) if name in decoded else network.state_dict()[name]
        assert torch.equal(tensor, expected)


def arguments(module):
    """What makes a module of the `network` anew."""
    names = {
        "Conv2d": ("in_channels", "out_channels", "kernel_size", "stride", "padding"),
        "BatchNorm2d": ("num_features",),
        "GroupNorm": ("num_groups", "num_channels"),
        "Linear": ("in_features", "out_features"),
        "LayerNorm": ("normalized_shape",),
        "PReLU": ("num_parameters",),
    }
    kind = type(module).__name__
    if kind == "ConvTranspose2d":
        return 16, 16, 2, 2, 0, 0, 1, False
    return tuple(getattr(module, name) for name in names.get(kind, ()))


def test_files_streams_and_bytes_are_the_same(network, tmp_path):
    data = nnc_adapters.pytorch.compress(network)
    stream = io.BytesIO()
    reports = [nnc_adapters.pytorch.compress(network, target) for target in (tmp_path / "m.nnr", stream)]
    assert (tmp_path / "m.nnr").read_bytes() == stream.getvalue() == data
    assert [r.bytes_after for r in reports] == [len(data)] * 2
    assert reports[0].weights == sum(a.size for a in nnc_core.decode(data).values())
    with pytest.raises(FileExistsError):
        nnc_adapters.pytorch.compress(network, tmp_path / "m.nnr")


def test_a_bitstream_of_a_module_is_also_a_state_dict_file(torch, network, tmp_path):
    nnc_adapters.pytorch.compress(network, tmp_path / "m.nnr")
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "m.pt")
    state = torch.load(tmp_path / "m.pt", weights_only=True)
    assert list(state) == list(network.state_dict())
    restored = nnc_adapters.pytorch.state_dict(tmp_path / "m.nnr")
    assert all(torch.equal(state[name], tensor) for name, tensor in restored.items())


def test_tied_weights_are_tied_again(torch):
    class Tied(torch.nn.Module):  # type: ignore[name-defined]
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(30, 8)
            self.head = torch.nn.Linear(8, 30, bias=False)
            self.head.weight = self.embedding.weight

    data = nnc_adapters.pytorch.compress(Tied())
    assert list(nnc_core.decode(data)) == ["embedding.weight"]
    state = nnc_adapters.pytorch.state_dict(data)
    assert state["head.weight"].data_ptr() == state["embedding.weight"].data_ptr()
    module = nnc_adapters.pytorch.load(data, Tied())
    assert module.head.weight is module.embedding.weight


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_modules_keep_their_data_type(torch, network, dtype):
    network = network.to(getattr(torch, dtype))
    state = nnc_adapters.pytorch.state_dict(nnc_adapters.pytorch.compress(network))
    assert {name: t.dtype for name, t in state.items()} == {n: t.dtype for n, t in network.state_dict().items()}


@pytest.mark.parametrize("kind", ["pt", "legacy", "safetensors", "shards", "pt2", "torchscript"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_files_of_every_kind_load_into_a_module(torch, safetensors, network, image, tmp_path, kind):
    path = tmp_path / f"m.{kind}"
    if kind == "pt2":
        torch.export.save(torch.export.export(network, (image,)), path)
    elif kind == "torchscript":
        torch.jit.save(torch.jit.script(network), path)
    elif kind == "safetensors":
        safetensors.save_file(network.state_dict(), path)
    elif kind == "shards":
        path.mkdir()
        safetensors.save_file(network.state_dict(), path / "a.safetensors")
        names = ",".join(f'"{name}":"a.safetensors"' for name in network.state_dict())
        (path / "model.safetensors.index.json").write_text(f'{{"weight_map":{{{names}}}}}')
    else:
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=kind == "pt")
    nnc_adapters.compress(path, tmp_path / "m.nnr")
    before = network(image)
    with torch.no_grad():
        network[0].weight.zero_()
    nnc_adapters.pytorch.load(tmp_path / "m.nnr", network)
    torch.testing.assert_close(network(image), before, rtol=0, atol=0.3)


def test_the_prefix_of_parallel_training_is_taken_off(torch, network, tmp_path):
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "m.pt")
    nnc_adapters.compress(tmp_path / "m.pt")
    nnc_adapters.pytorch.load(tmp_path / "m.nnr", network)


def test_tensors_without_topology_are_loaded_by_name(torch):
    module = torch.nn.Linear(8, 4)
    data = nnc_core.encode({"weight": np.ones((4, 8), np.float32), "bias": np.zeros(4, np.float32)})
    nnc_adapters.pytorch.load(data, module)
    torch.testing.assert_close(module.weight, torch.ones(4, 8), rtol=0, atol=0.01)


def test_what_does_not_fit_the_module_is_refused(torch, network):
    data = nnc_adapters.pytorch.compress(torch.nn.Linear(8, 4))
    with pytest.raises(nnc_core.ModelError, match="Missing key"):
        nnc_adapters.pytorch.load(data, network)
    with pytest.raises(nnc_core.ModelError, match="size mismatch"):
        nnc_adapters.pytorch.load(data, torch.nn.Linear(8, 5))
    nnc_adapters.pytorch.load(data, network, strict=False)


def test_names_of_the_package_are_those_it_documents():
    on_modules = {"compress", "load", "state_dict"}
    training = {"compress_scaled", "compressibility_loss", "diversity_loss", "evaluation", "keep_zeros"}
    assert set(nnc_adapters.pytorch.__all__) == {"PytorchAdapter"} | on_modules | training
    with pytest.raises(AttributeError, match="nothing"):
        _ = nnc_adapters.pytorch.nothing


def test_a_missing_pytorch_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    monkeypatch.delitem(__import__("sys").modules, "nnc_adapters.pytorch.modules", raising=False)
    monkeypatch.delattr(nnc_adapters.pytorch, "modules", raising=False)
    with pytest.raises(nnc_core.MissingDependencyError, match=r"nnc-suite\[pytorch\]"):
        _ = nnc_adapters.pytorch.compress


def test_convolutions_and_their_normalizations_are_blocks(torch, info):
    nn = torch.nn
    found = info(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 2), nn.BatchNorm2d(4)))
    assert found["parameter_type"] == {
        "0.weight": "conv.weight",
        "0.bias": "conv.bias",
        "1.weight": "bn.gamma",
        "1.bias": "bn.beta",
        "1.running_mean": "bn.mean",
        "1.running_var": "bn.var",
        "2.weight": "conv.weight",
        "2.bias": "conv.bias",
        "3.weight": "bn.gamma",
        "3.bias": "bn.beta",
        "3.running_mean": "bn.mean",
        "3.running_var": "bn.var",
    }
    members = ["0.bias", "0.weight", "1.weight", "1.bias", "1.running_mean", "1.running_var"]
    assert found["block_identifier"] == dict.fromkeys(members, "0.weight")


@pytest.mark.parametrize(
    ("make", "weights", "biases"),
    [
        ("Linear(4, 4)", {"weight"}, {"bias"}),
        ("Bilinear(4, 4, 4)", {"weight"}, {"bias"}),
        ("Embedding(4, 4)", {"weight"}, set()),
        ("GRUCell(4, 4)", {"weight_ih", "weight_hh"}, {"bias_ih", "bias_hh"}),
        (
            "LSTM(4, 4, proj_size=2)",
            {"weight_ih_l0", "weight_hh_l0", "weight_hr_l0"},
            {"bias_ih_l0", "bias_hh_l0"},
        ),
        ("MultiheadAttention(4, 1)", {"in_proj_weight", "out_proj.weight"}, {"in_proj_bias", "out_proj.bias"}),
        (
            "MultiheadAttention(4, 1, kdim=2, vdim=3)",
            {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"},
            {"in_proj_bias", "out_proj.bias"},
        ),
    ],
)
def test_matrices_of_every_kind_of_module_are_weights(torch, info, make, weights, biases):
    found = info(eval(make, vars(torch.nn)))["parameter_type"]
    assert found == {**dict.fromkeys(weights, "fc.weight"), **dict.fromkeys(biases, "fc.bias")}


@pytest.mark.parametrize("make", ["LayerNorm((2, 3))", "GroupNorm(2, 4)", "PReLU(4)", "RMSNorm((2, 3))"])
def test_what_scales_but_is_not_a_batch_normalization_is_unspecified(torch, info, make):
    assert set(info(eval(make, vars(torch.nn)))["parameter_type"].values()) == {"unspecified"}


def test_buffers_are_not_weights_and_of_own_parameters_nothing_is_said(torch, info):
    module = torch.nn.Module()
    module.register_buffer("table", torch.ones(4, 4))
    module.own = torch.nn.Parameter(torch.ones(4, 4))
    assert info(module)["parameter_type"] == {"table": "unspecified"}


def test_tensors_known_not_to_be_weights_are_coded_more_finely(torch):
    module = torch.nn.Sequential(torch.nn.LayerNorm((8, 8)), torch.nn.Linear(8, 8))
    torch.nn.init.normal_(module[0].weight)
    torch.nn.init.normal_(module[0].bias)

    def qps(**parameters):
        data = nnc_adapters.pytorch.compress(module, parameters=nnc_core.CodingParameters(**parameters))
        with nnc_core.NnrFile(data) as file:
            return [file.tensors[name].qp for name in ("0.weight", "0.bias", "1.weight")]

    assert qps(qp=-38) == [-75, -75, -38]
    finer, fine, weight = qps()
    assert max(finer, fine) < weight - 4 * 16
