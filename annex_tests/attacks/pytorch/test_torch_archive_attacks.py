"""Hostile storages, archives and exports of PyTorch: refused with a typed error."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annex_tests.support.handmade_pytorch import (
    CONFIG,
    MAGIC,
    SYSTEM,
    WEIGHT,
    Reference,
    Tensor,
    archive,
    exported,
    legacy,
)
from annex_tests.support.hostile_pytorch import FILES, FORMS, QUICK
from nnc_adapters.base import Options
from nnc_adapters.pytorch import PytorchAdapter
from nnc_core.errors import LimitError, ModelError, NncError, UnsupportedError
from nnc_core.limits import Limits


@FORMS
@pytest.mark.parametrize(
    "tensor",
    [
        Tensor(offset=1),
        Tensor(offset=-1),
        Tensor(offset=1 << 62),
        Tensor(offset=1 << 70),
        Tensor(offset="0"),
        Tensor(shape=(21,)),
        Tensor(shape=(-1,)),
        Tensor(shape=(1 << 62, 1 << 62), strides=(1, 1)),
        Tensor(shape=(1 << 62, 1 << 62), strides=(0, 1)),
        Tensor(shape=(20, 20)),
        Tensor(shape=(20, 2), strides=(1, 1)),
        Tensor(shape=(2,) * 65, strides=(0,) * 65),
        Tensor(shape=[20]),
        Tensor(shape=("a",)),
        Tensor(strides=(2,)),
        Tensor(strides=(-1,)),
        Tensor(strides=(1 << 62,)),
        Tensor(reference="storage"),
        Tensor(Reference("no such key")),
        Tensor(Reference("../data.pkl")),
        Tensor(Reference(kind="torch Size")),
        Tensor(Reference(elements=-1)),
        Tensor(Reference(elements="20")),
        Tensor(Reference("0", 20, "torch FloatStorage", ("v", -1, 20))),
        Tensor(Reference("0", 20, "torch FloatStorage", ("v", 1, 19))),
        Tensor(Reference("0", 20, "torch FloatStorage", 5)),
        Tensor(Reference("0", 20, "torch FloatStorage", None, None)),
        Tensor(function="torch._utils _rebuild_tensor_v3"),
    ],
    ids=lambda t: str(t.arguments[:4]),
)
def test_tensors_that_reach_beyond_their_storage_are_refused(read, form, tensor):
    with pytest.raises(ModelError):
        read(form({"w": tensor}))


@FORMS
def test_tensors_that_repeat_a_storage_are_not_blown_up(read, form):
    assert not read(form({"w": Tensor(shape=(1 << 40, 20), strides=(0, 1))})).tensors


@pytest.mark.parametrize("name", ["../data/1", "/m/x", "m/../../x", "C:/x", "m\\..\\..\\x"])
def test_members_that_lead_out_of_a_folder_are_refused(read, name):
    with pytest.raises(ModelError, match="member called"):
        read(_with_member(name))


def _with_member(name):
    stream = io.BytesIO(archive({"w": Tensor()}))
    with zipfile.ZipFile(stream, "a") as file:
        info = zipfile.ZipInfo("placeholder")
        info.filename = name
        file.writestr(info, b"x")
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_with_the_same_name_are_refused(read):
    with pytest.raises(ModelError, match="same name"):
        read(_with_member("m/data/0"))


def test_members_that_overlap_are_refused(read):
    data = bytearray(archive({"w": Tensor()}, **{"data/1": WEIGHT.tobytes()}))
    entries = [i for i in range(len(data)) if data.startswith(b"PK\x01\x02", i)]
    # the local header of the second storage gets the name of the first, and its entry leads there
    data[entries[2] + 42 : entries[2] + 46] = data[entries[1] + 42 : entries[1] + 46]
    data[entries[2] + 46 : entries[2] + 54] = b"m/data/0"
    with pytest.raises(ModelError, match=r"overlap|same name"):
        read(bytes(data))


def test_compressed_members_are_refused_before_they_grow(read):
    bomb = archive(b"\x80\x02" + b"0" * (1 << 24), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ModelError, match="compressed"):
        read(bomb)
    with pytest.raises(ModelError, match=r"data/1 is compressed"):
        read(_with_compressed_storage())


def _with_compressed_storage():
    stream = io.BytesIO(archive({"w": Tensor(Reference("1"))}))
    with zipfile.ZipFile(stream, "a") as file:
        file.writestr(zipfile.ZipInfo("m/data/1"), bytes(1 << 20), zipfile.ZIP_DEFLATED)
    return stream.getvalue()


def test_an_encrypted_member_is_refused(read):
    data = bytearray(archive({"w": Tensor()}))
    data[data.find(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ModelError, match="encrypted"):
        read(bytes(data))


@pytest.mark.parametrize("order", [b"big", b"", b"little "])
def test_numbers_in_another_byte_order_are_refused(read, order):
    with pytest.raises(ModelError, match="big endian"):
        read(archive({"w": Tensor()}, byteorder=order))
    with pytest.raises(ModelError, match="big endian"):
        read(legacy({"w": Tensor()}, system={**SYSTEM, "little_endian": False}))


@pytest.mark.parametrize("cut", [1, 2, 22, 23, 100, 300])
def test_an_archive_that_is_cut_is_refused(read, cut):
    with pytest.raises(ModelError):
        read(archive({"w": Tensor()})[:-cut])


@pytest.mark.parametrize(
    "end",
    [
        struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 46 * 65535, 0, 0),
        struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 46, 1 << 31, 0),
        struct.pack("<4s4H2IH", b"PK\5\6", 1, 1, 0, 0, 0, 0, 0),
        b"PK\6\7" + struct.pack("<IQI", 0, (1 << 64) - 1, 1) + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0),
        b"PK\6\7" + struct.pack("<IQI", 0, 0, 1) + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0),
    ],
)
def test_an_end_that_lies_is_refused(read, end):
    with pytest.raises(ModelError, match=r"damaged|no member"):
        read(archive({"w": Tensor()})[:-22] + end)


@pytest.mark.parametrize(
    "file",
    [
        legacy({"w": Tensor()}, keys=()),
        legacy({"w": Tensor()}, keys=("0", "0")),
        legacy({"w": Tensor()}, keys=("0", "1")),
        legacy({"w": Tensor()}, keys=([],)),
        legacy({"w": Tensor()}, storages=b""),
        legacy({"w": Tensor()}, storages=struct.pack("<Q", 20) + bytes(79)),
        legacy({"w": Tensor()}, storages=struct.pack("<Q", (1 << 64) - 1) + bytes(80)),
        legacy({"w": Tensor()}, storages=struct.pack("<Q", 1 << 62) + bytes(80)),
        legacy({"w": Tensor()}, storages=struct.pack("<Q", 19) + bytes(80)),
        legacy({"w": Tensor()}, protocol=1000),
        legacy({"w": Tensor()}, system=5),
        legacy({"w": Tensor(Reference(kind="torch QUInt4x2Storage"))}),
        legacy({"w": Tensor()})[:150],
        pickle.dumps(MAGIC, 2),
    ],
)
def test_legacy_files_that_lie_are_refused(read, file):
    with pytest.raises(ModelError):
        read(file)


@pytest.mark.parametrize("data", [b"", b"\0", b"PK\3\4", b"not a model", bytes(5000), b"PK\5\6" + bytes(18)])
def test_what_is_not_a_model_is_refused(read, adapter, tmp_path, data):
    with pytest.raises(ModelError, match=r"m\.pt"):
        read(data)


def test_a_file_of_before_the_magic_number_is_refused(read):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        file.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(ModelError, match="does not begin like a file"):
        read(stream.getvalue())


def test_an_honest_export_is_read(read):
    np.testing.assert_array_equal(read(exported(CONFIG)).tensors["w"], WEIGHT)


@pytest.mark.parametrize(
    "change",
    [
        ('"weight_0"', '"../weight_0"'),
        ('"weight_0"', '"weight_1"'),
        ('"weight_0"', "5"),
        ('"as_int": 20', '"as_int": 21'),
        ('"as_int": 20', '"as_int": -1'),
        ('"as_int": 20', '"as_int": 1e3'),
        ('"as_int": 20', '"as_int": true'),
        ('"as_int": 20', '"as_int": 99999999999999999999999'),
        ('"as_int": 20', '"as_expr": "s0"'),
        ('"as_int": 0', '"as_int": 1'),
        ('"strides": [{"as_int": 1}]', '"strides": []'),
        ('"dtype": 7', '"dtype": []'),
        ('"config"', '"configuration"'),
        ('"tensor_meta": {', '"tensor_meta": 5, "x": {'),
        ('{"config"', '[{"config"'),
        ('"is_param": true', '"is_param": NaN'),
        ('"is_param": true', '"path_name": "weight_0"'),
        ('{"as_int": 20}', "[" * 100000),
    ],
)
def test_an_export_that_lies_is_refused(read, change):
    with pytest.raises(ModelError):
        read(exported(json.dumps(CONFIG).replace(*change)))


def test_an_export_of_unknown_kind_is_kept_or_refused(read):
    for change in (('"use_pickle": false', '"use_pickle": true'), ('"dtype": 7', '"dtype": 99')):
        assert not read(exported(json.dumps(CONFIG).replace(*change))).tensors
    with pytest.raises(ModelError, match=r"torch\.export\.load"):
        read(archive(b"", archive_format=b"pt2"))
    with pytest.raises(ModelError, match="old version"):
        read(archive(b"", **{"serialized_exported_program.json": b"{}"}))


def test_an_empty_folder_is_refused(adapter, tmp_path):
    assert not adapter.sniff(tmp_path)
    with pytest.raises(ModelError, match="without weights"):
        adapter.read(tmp_path)


def test_more_than_a_topology_holds_is_refused(tmp_path):
    data = archive({"w": Tensor()})
    (tmp_path / "m.pt").write_bytes(data)
    with pytest.raises(UnsupportedError, match="optimizer"):
        PytorchAdapter().read(tmp_path / "m.pt", Options(Limits(topology_bytes=len(data) - WEIGHT.nbytes - 1)))
    with pytest.raises(LimitError):
        PytorchAdapter().read(tmp_path / "m.pt", Options(Limits(topology_bytes=10)))


def test_a_file_that_becomes_shorter_is_noticed(read, tmp_path):
    model = read(archive({"w": Tensor()}))
    (tmp_path / "m.pt").write_bytes(b"short")
    with pytest.raises(ModelError, match="cannot read 80 bytes"):
        model.tensors["w"]


@QUICK
@given(kind=st.sampled_from(sorted(FILES)), seed=st.integers(0, 2**32), changes=st.integers(0, 6), cut=st.booleans())
def test_a_damaged_file_is_read_or_refused_but_nothing_else_happens(adapter, tmp_path, kind, seed, changes, cut):
    data, rng = bytearray(FILES[kind]), random.Random(seed)
    for _ in range(changes):
        data[rng.randrange(len(data))] = rng.choice((0, 1, 0x2E, 0x7F, 0xFF, rng.randrange(256)))
    path = tmp_path / "m.pt"
    path.write_bytes(data[: rng.randrange(len(data))] if cut else data)
    assert adapter.sniff(path) in (True, False)
    try:
        model = adapter.read(path)
        adapter.write(dict(model.tensors), model.topology, tmp_path / "out.pt", force=True)
    except NncError:
        pass
    assert {p.name for p in tmp_path.iterdir()} <= {"m.pt", "out.pt"}


@QUICK
@given(data=st.binary(max_size=300))
def test_sniffing_never_raises(adapter, tmp_path, data):
    (tmp_path / "m").write_bytes(data)
    assert adapter.sniff(tmp_path / "m") in (True, False)
