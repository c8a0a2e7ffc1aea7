"""Read and written again with its own tensors, a file is the same to the last byte."""

from __future__ import annotations

import struct
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

FLOATS = ["float32", "float16", "bfloat16", "float64"]
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"]
EXACT = [
    *("bool", "uint64", "complex64", "complex128", "complex32"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
]
LEGACY = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])


def bits(torch, dtype, *shape):
    """Numbers of any type from random bits, without exponents beyond those of float32."""
    kind = getattr(torch, dtype)
    if dtype in FLOATS:
        return torch.randn(shape).to(kind)
    if dtype == "bool":
        return torch.randint(0, 2, shape).bool()
    if dtype in INTEGERS:  # that are worth coding
        return torch.randn(shape).mul(2).abs().to(kind)
    item = torch.empty(0, dtype=kind).element_size()
    return torch.randint(0, 100, (*shape, item), dtype=torch.uint8).view(kind).squeeze(-1)


def stored(torch, tensor):
    """The bytes of a tensor, row after row."""
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@LEGACY
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_numbers_of_every_type_are_coded_in_their_own(torch, save, identical, tmp_path, dtype, legacy):
    tensor = bits(torch, dtype, 20, 30)
    read = identical(save({"w": tensor}, tmp_path / "m.pt", legacy=legacy))
    array = read.tensors["w"]
    assert (array.dtype.name, array.shape) == (dtype, (20, 30))
    assert array.tobytes() == stored(torch, tensor)


@LEGACY
@pytest.mark.parametrize("dtype", EXACT)
@pytest.mark.filterwarnings("ignore:ComplexHalf:UserWarning")
def test_other_types_stay_in_the_topology(torch, save, identical, tmp_path, dtype, legacy):
    assert not identical(save({"w": bits(torch, dtype, 20, 30)}, tmp_path / "m.pt", legacy=legacy)).tensors


@LEGACY
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantized_tensors_stay_in_the_topology(torch, save, identical, tmp_path, legacy):
    plain = torch.randn(20, 30)
    per_tensor = torch.quantize_per_tensor(plain, 0.1, 3, torch.qint8)
    per_channel = torch.quantize_per_channel(plain, torch.ones(20), torch.zeros(20), 0, torch.quint8)
    path = save({"t": per_tensor, "c": per_channel, "w": plain}, tmp_path / "m.pt", legacy=legacy)
    assert list(identical(path).tensors) == ["w"]


@LEGACY
@pytest.mark.filterwarnings("ignore:Sparse:UserWarning")
def test_sparse_nested_and_meta_tensors_stay_in_the_topology(torch, save, identical, tmp_path, legacy):
    sparse = torch.eye(300).to_sparse()
    state = {"s": sparse, "m": torch.empty(300, device="meta"), "w": torch.randn(300)}
    assert list(identical(save(state, tmp_path / "m.pt", legacy=legacy)).tensors) == ["w"]


@LEGACY
def test_everything_that_is_not_a_tensor_is_kept(torch, save, identical, tmp_path, legacy):
    state = OrderedDict(w=torch.randn(20))
    state._metadata = OrderedDict({"": {"version": 2}})  # type: ignore[attr-defined]
    checkpoint = {
        "epoch": 3,
        "best": 0.93,
        "name": "ünïcode",
        "flags": [True, None, (1, 2.5)],
        "raw": b"bytes",
        "big": 1 << 100,
        "size": torch.Size([1, 2]),
        "dtype": torch.float16,
        "device": torch.device("cpu"),
        "labels": {1, 2},
        "counts": Counter("aab"),
        "z": 1 + 2j,
        "state_dict": state,
        7: {"nested": [torch.zeros(3)]},
    }
    path = save(checkpoint, tmp_path / "m.pt", legacy=legacy)
    torch.load(path, weights_only=True)
    assert list(identical(path).tensors) == ["w"]


@LEGACY
@pytest.mark.parametrize("empty", [{}, [], None, 5, "text"])
def test_a_file_without_tensors_is_a_topology(torch, save, identical, tmp_path, empty, legacy):
    assert not identical(save(empty, tmp_path / "m.pt", legacy=legacy)).tensors


@LEGACY
def test_a_tensor_alone_is_coded(torch, save, identical, tmp_path, legacy):
    assert list(identical(save(torch.randn(20), tmp_path / "m.pt", legacy=legacy)).tensors) == ["tensor"]


@LEGACY
def test_parameters_and_tensors_in_lists_are_coded(torch, save, identical, tmp_path, legacy):
    state = [torch.nn.Parameter(torch.randn(20)), (torch.randn(30), {"w": torch.randn(40)})]
    names = {name: a.size for name, a in identical(save(state, tmp_path / "m.pt", legacy=legacy)).tensors.items()}
    assert names == {"0": 20, "1.0": 30, "1.1.w": 40}


@LEGACY
def test_a_parameter_with_attributes_is_coded(torch, save, identical, tmp_path, legacy):
    parameter = torch.nn.Parameter(torch.randn(20))
    parameter.note = "mine"
    path = save({"w": parameter}, tmp_path / "m.pt", legacy=legacy)
    assert torch.load(path, weights_only=True)["w"].note == "mine"
    assert list(identical(path).tensors) == ["w"]


@LEGACY
def test_the_state_of_an_optimizer_is_kept_exactly(torch, save, network, identical, tmp_path, legacy):
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    checkpoint = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}
    read = identical(save(checkpoint, tmp_path / "m.pt", legacy=legacy))
    assert set(read.tensors) <= set(network.state_dict())
    assert "0.weight" in read.tensors


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_any_protocol_are_read(torch, save, identical, tmp_path, protocol):
    path = save({"w": torch.randn(20), "n": 5}, tmp_path / "m.pt", pickle_protocol=protocol)
    assert list(identical(path).tensors) == ["w"]


def test_an_exported_program_is_read(torch, save, network, image, identical, tmp_path):
    torch.export.save(torch.export.export(network, (image,)), tmp_path / "m.pt2")
    read = identical(tmp_path / "m.pt2")
    assert {n for n, t in network.state_dict().items() if t.numel() >= 16} == set(read.tensors)


@pytest.mark.filterwarnings("ignore::Warning")
@pytest.mark.parametrize("how", ["script", "trace", "freeze"])
def test_torchscript_is_read(torch, save, network, image, identical, tmp_path, how):
    made = torch.jit.trace(network, image) if how == "trace" else torch.jit.script(network)
    made = torch.jit.freeze(made) if how == "freeze" else made
    torch.jit.save(made, tmp_path / "m.pt")
    read = identical(tmp_path / "m.pt")
    if how == "freeze":
        assert {array.shape for array in read.tensors.values()} >= {(16, 3, 3, 3), (16, 16, 2, 2)}
    else:
        assert {n for n, t in network.state_dict().items() if t.numel() >= 16} == set(read.tensors)


def in_zip64(data):
    """An archive as it is written beyond 4 GiB: sizes and places are in other fields."""
    end = data.rfind(b"PK\5\6")
    count, _, start = struct.unpack_from("<10xHII", data, end)
    entries, at = b"", start
    for _ in range(count):
        head = bytearray(data[at : at + 46])
        packed, plain, name, extra, comment = struct.unpack_from("<20xIIHHH", head)
        (local,) = struct.unpack_from("<42xI", head)
        head[20:28], head[42:46] = b"\xff" * 8, b"\xff" * 4
        more = struct.pack("<HHI", 0x6375, 4, 0) + struct.pack("<HHQQQ", 1, 24, plain, packed, local)
        head[30:32] = struct.pack("<H", extra + len(more))
        tail = at + 46 + name + extra
        entries += bytes(head) + data[at + 46 : tail] + more + data[tail : tail + comment]
        at = tail + comment
    end64 = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entries), start)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, start + len(entries), 1)
    last = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return data[:start] + entries + end64 + locator + last


def test_archives_as_they_are_beyond_4_gib_are_read(torch, save, adapter, identical, tmp_path):
    path = save({"a": torch.randn(20), "b": torch.randn(30)}, tmp_path / "m.pt")
    path.write_bytes(in_zip64(path.read_bytes()))
    assert torch.load(path, weights_only=True)["b"].shape == (30,)
    read = identical(path)
    assert list(read.tensors) == ["a", "b"]
    adapter.write({name: array + 1 for name, array in read.tensors.items()}, read.topology, tmp_path / "new.pt")
    with zipfile.ZipFile(tmp_path / "new.pt") as archive:
        assert archive.testzip() is None


SAFE = [t for t in FLOATS + INTEGERS + EXACT if t not in ("complex128", "complex32")]


@pytest.mark.parametrize("dtype", SAFE)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_safetensors_of_every_type_are_read(torch, safetensors, identical, tmp_path, dtype):
    tensor = bits(torch, dtype, 20, 30)
    state = {"w": tensor, "scalar": torch.tensor(1.0), "empty": torch.empty(0, 3)}
    safetensors.save_file(state, tmp_path / "m.safetensors", metadata={"format": "pt", "ü": "x"})
    read = identical(tmp_path / "m.safetensors")
    assert list(read.tensors) == ([] if dtype in EXACT else ["w"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25)
@given(
    shape=st.lists(st.integers(0, 7), max_size=5),
    dtype=st.sampled_from([*FLOATS, "int64", "uint8"]),
    legacy=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_any_shape_survives_in_any_order_of_its_dimensions(
    torch, save, identical, tmp_path, shape, dtype, legacy, order
):
    dimensions = list(range(len(shape)))
    order.shuffle(dimensions)
    torch.manual_seed(3)
    tensor = torch.randn(shape).mul(2).abs().to(getattr(torch, dtype)).permute(dimensions)
    read = identical(save({"w": tensor}, tmp_path / "m.pt", legacy=legacy))
    least = 16 if dtype in FLOATS else 256
    coded = shape and tensor.numel() >= least
    assert list(read.tensors) == (["w"] if coded else [])
    if coded:
        np.testing.assert_array_equal(read.tensors["w"].astype(np.float64), tensor.to(torch.float64).numpy())
