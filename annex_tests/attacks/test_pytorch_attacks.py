"""Hostile files of PyTorch, and hostile topologies: refused with a typed error, and nothing is run."""

from __future__ import annotations

import builtins
import functools
import io
import json
import operator
import os
import pickle
import random
import struct
import tarfile
import zipfile
from collections import OrderedDict
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annex_tests.support.handmade_pytorch import (
    CONFIG,
    MAGIC,
    SYSTEM,
    WEIGHT,
    Reference,
    Runs,
    Tensor,
    archive,
    exported,
    legacy,
    pickled,
)
from nnc_adapters.base import Options
from nnc_adapters.pytorch import PytorchAdapter, pickles
from nnc_adapters.shared import packing
from nnc_core.errors import LimitError, ModelError, NncError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.tables.code_points import TopologyStorageFormat

QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)

OPAQUE = Options(opaque=True)


@pytest.fixture(scope="session")
def torch():
    found = pytest.importorskip("torch", reason="PyTorch is not installed")
    found.set_num_threads(1)
    return found


@pytest.fixture
def adapter():
    return PytorchAdapter()


@pytest.fixture
def canary(tmp_path):
    """A file that appears when code runs."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


@pytest.fixture
def read(adapter, tmp_path):
    def call(data, name="m.pt"):
        (tmp_path / name).write_bytes(data)
        model = adapter.read(tmp_path / name)
        for array in model.tensors.values():
            assert array.nbytes <= len(data)
        return model

    return call


FORMS = pytest.mark.parametrize("form", [archive, legacy])


@FORMS
def test_an_honest_file_is_read(read, form):
    np.testing.assert_array_equal(read(form({"w": Tensor()})).tensors["w"], WEIGHT)


def test_what_is_admitted_is_what_pytorch_admits(torch):
    from torch._weights_only_unpickler import _get_allowed_globals

    theirs = {name.rpartition(".")[0] + " " + name.rpartition(".")[2] for name in _get_allowed_globals()}
    assert theirs >= pickles.ALLOWED


def test_classes_of_data_run_nothing_of_what_they_are_given(torch, canary):
    """No class that is admitted can be made to call what stands beside it in the pickle."""
    from nnc_adapters.pytorch.data_classes import DATA

    dangerous = {"eval", "exec", "compile", "open", "getattr", "setattr", "partial", "system", "import_module", "loads"}
    assert not {name.rpartition(" ")[2].rpartition(".")[2] for name in DATA} & dangerous
    assert not {name for name in DATA if name.startswith(("os ", "posix ", "sys ", "subprocess ", "importlib "))}


@FORMS
def test_opaque_objects_are_carried_and_not_run(canary, tmp_path, form):
    data = form({"a": [Runs(os.system, f"touch {canary}")], "w": Tensor(), "x": Runs(getattr, "", "format")})
    (tmp_path / "m.pt").write_bytes(data)
    adapter = PytorchAdapter()
    model = adapter.read(tmp_path / "m.pt", OPAQUE)
    np.testing.assert_array_equal(model.tensors["w"], WEIGHT)
    adapter.write(model.tensors, model.topology, tmp_path / "out.pt", OPAQUE)
    assert (tmp_path / "out.pt").read_bytes() == data
    with pytest.raises(ModelError, match="could run code"):
        adapter.write(model.tensors, model.topology, tmp_path / "other.pt")
    assert not (tmp_path / "other.pt").exists()


def test_opaque_objects_are_not_imported(tmp_path, monkeypatch):
    def refuse(name, *rest):
        assert name != "nowhere_to_be_found"
        return original(name, *rest)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    text = b"\x80\x02cnowhere_to_be_found\nThing\n)\x81}X\x01\x00\x00\x00aK\x01sb."
    (tmp_path / "m.pt").write_bytes(archive(text))
    assert not PytorchAdapter().read(tmp_path / "m.pt", OPAQUE).tensors


@FORMS
@pytest.mark.parametrize(
    "text",
    [
        b"cos\nsystem\n(S'true'\ntR(tR(tR.",  # what was called is called again
        b"(cos\nsystem\no(icollections\nOrderedDict\n)b.",
        b"\x80\x02ccopyreg\n__newobj__\nq\x00h\x00\x85Rq\x01h\x01b.",
        b"\x80\x02cm\nC\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb.",  # an object in itself
        b"\x80\x02cm\nC\n)\x81q\x00h\x00a.",
        b"\x80\x02cm\nC\nK\x01\x81.",
        b"\x82\x01.",
        b"\x80\x05\x97.",
    ],
)
def test_odd_objects_do_no_harm_where_they_are_opaque(tmp_path, form, text):
    (tmp_path / "m.pt").write_bytes(form(text))
    with suppress(ModelError):
        PytorchAdapter().read(tmp_path / "m.pt", OPAQUE)


def test_opaque_objects_that_are_deep_inside_each_other_are_refused(tmp_path):
    text = b"\x80\x02" + b"cm\nC\n" * 100_000 + b")\x81" + b"\x85\x81" * 99_999 + b"."
    (tmp_path / "m.pt").write_bytes(archive(text))
    with pytest.raises(ModelError, match="nested"):
        PytorchAdapter().read(tmp_path / "m.pt", OPAQUE)


def test_what_looks_like_a_text_of_an_old_pickle_is_no_cause_for_a_warning(tmp_path, adapter):
    (tmp_path / "m.pt").write_bytes(b"PK\x00\x00\\\xf3\n.")  # an identifier, with an escape that Python does not know
    assert not adapter.sniff(tmp_path / "m.pt")


@FORMS
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["value", "key", "list", "state"])
def test_pickles_that_run_code_are_refused_and_not_run(read, adapter, canary, tmp_path, form, protocol, place):
    attack = Runs(os.system, f"touch {canary}")
    state = OrderedDict(w=1)
    state.note = attack  # type: ignore[attr-defined]
    value = {"value": {"w": attack}, "key": {attack: 1}, "list": [[(attack,)]], "state": state}[place]
    data = form(pickle.dumps(value, protocol))
    with pytest.raises(ModelError, match=r"could run code.*If you trust it, convert it"):
        read(data)
    assert adapter.sniff(tmp_path / "m.pt")


@FORMS
@pytest.mark.parametrize(
    "attack",
    [
        Runs(eval, "open({!r}, 'w')"),
        Runs(exec, "open({!r}, 'w')"),
        Runs(__import__, "os"),
        Runs(open, "{}", "w"),
        Runs(os.popen, "touch {}"),
        Runs(getattr, "{}", "format"),
        functools.partial(print),
        operator.attrgetter("a"),
        np.random.default_rng,
    ],
    ids=str,
)
def test_functions_that_are_not_pytorchs_are_refused(read, canary, form, attack):
    if isinstance(attack, Runs):
        attack = Runs(attack.call[0], *(a.format(str(canary)) for a in attack.call[1]))
    with pytest.raises(ModelError, match="could run code"):
        read(form(pickle.dumps({"w": attack}, 2)))


@FORMS
@pytest.mark.parametrize(
    "text",
    [
        b"(S'touch {}'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch {}'\no.",  # OBJ
        b"cos\nsystem\n(S'touch {}'\ntR.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x05touch\x85R.",
        b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93)R.",
        b"\x80\x02ctorch\nSize\n)\x81.",  # NEWOBJ of what is only to be called
        b"\x80\x02ctorch\nSize\n}b.",
        b"\x82\x01.",  # EXT1
        b"Pposix\n.",  # PERSID
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"\x80\x02ctorch\nSize\nU\x01xR.",
        b"\x80\x02U\x01x)R.",
        b"c__builtin__\neval\n(S'open(1)'\ntR.",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nNS'touch {}'\nNtR.",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\nSize\nNI5\nNtR.",
    ],
)
def test_odd_ways_to_call_are_refused(read, canary, form, text):
    with pytest.raises(ModelError, match="pickle"):
        read(form(text.replace(b"{}", str(canary).encode())))


INSTANCE = b"\x80\x02c__torch__.Net\nNet\n)\x81}U\x01wI1\nsb."


def test_torchscript_classes_are_known_only_in_torchscript(read, canary):
    with pytest.raises(ModelError, match="could run code"):
        read(archive(INSTANCE))
    read(archive(INSTANCE, **{"constants.pkl": b"\x80\x02)."}))
    for attack in (b"cos\nsystem\n(S'touch %s'\ntR." % str(canary).encode(), b"\x80\x02ctorch.nn\nLinear\n)\x81."):
        with pytest.raises(ModelError, match="could run code"):
            read(archive(attack, **{"constants.pkl": b"\x80\x02)."}))
        with pytest.raises(ModelError, match="could run code"):
            read(archive(INSTANCE, **{"constants.pkl": attack}))


@FORMS
@pytest.mark.parametrize(
    "text",
    [
        *(b"", b".", b"\x80", b"\x80\x02", b"(", b"0.", b"R.", b"\x80\x02(.", b"t.", b"u.", b"a.", b"h\0.", b"b."),
        *(b"}}s.", b"](I1\nI2\nu.", b"}(I1\nu.", b"]]s.", b"}]I1\ns.", b"]I1\nI1\ns.", b"G.", b"\x8b\xff\xff\xff\x7f."),
        *(b"X\xff\xff\xff\x7f.", b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", b"I" + b"9" * 5000 + b"\n.", b"F1e\n."),
        *(b"L" + b"9" * 70000 + b"\n.", b"S'\\xq'\n.", b"V\\ud8\n.", b"r\xff\xff\xff\xff.", b"Q.", b"NQ."),
    ],
)
def test_pickles_that_are_damaged_are_refused(read, form, text):
    with pytest.raises(ModelError):
        read(form(text))


@FORMS
def test_containers_without_end_are_refused_or_read(read, form):
    with pytest.raises(ModelError, match="nested"):
        read(archive(b"]" * 100 + b"a" * 99 + b"."))
    with pytest.raises(ModelError, match="keys"):
        read(form(b"})" + b"\x85" * 100_000 + b"I1\ns."))
    with pytest.raises(ModelError, match="keys"):
        read(form(b"ccollections\nOrderedDict\n](N" + b"\x85" * 100_000 + b"I1\ntae\x85R.".replace(b"e", b"")))
    assert not read(archive(b")" + b"\x85" * 60 + b".")).tensors


def test_containers_that_contain_themselves_are_read(read):
    value = {"w": Tensor()}
    value["self"] = value  # type: ignore[assignment]
    value["twice"] = [value, value]  # type: ignore[assignment]
    assert list(read(archive(value)).tensors) == ["w"]


def test_lists_that_share_lists_take_no_time(read):
    inner = [Tensor()]
    for _ in range(50):
        inner = [inner, inner]
    assert len(read(archive(inner)).tensors) == 1


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
def test_what_is_no_model_is_refused(read, adapter, tmp_path, data):
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


FILES = {
    "archive": archive(
        {"w": Tensor(), "v": [Tensor(Reference("1"), shape=(4, 5), strides=(1, 4))]}, {"data/1": bytes(80)}
    ),
    "legacy": legacy({"w": Tensor()}),
    "torchscript": archive(
        b"\x80\x02c__torch__.Net\nNet\n)\x81}U\x01wI1\nsb.", **{"constants.pkl": pickled([Tensor()])}
    ),
    "export": exported(CONFIG),
}


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


@pytest.fixture
def write(adapter, tmp_path):
    """Writes a model from a hostile topology; gives the path."""

    def call(content, tensors=None):
        data = content if isinstance(content, bytes) else packing.pack(content)
        topology = Topology(TopologyStorageFormat.NNR_TPL_PYT, data)
        adapter.write({"w": WEIGHT} if tensors is None else tensors, topology, tmp_path / "out.pt")
        return tmp_path / "out.pt"

    return call


@pytest.fixture
def honest(read, tmp_path):
    """The parts of a topology, its description as an object."""
    content = packing.unpack(read(archive({"w": Tensor()})).topology.data, Limits())
    (tmp_path / "m.pt").unlink()
    return json.loads(content["description.json"]), content["file/0"]


def test_an_honest_topology_is_written(write, honest):
    description, rest = honest
    path = write({"description.json": json.dumps(description).encode(), "file/0": rest})
    assert path.read_bytes() == archive({"w": Tensor()})


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.clear(),
        lambda d: d.update(kind="sharded"),
        lambda d: d.update(files=[]),
        lambda d: d.update(files=d["files"] * 2),
        lambda d: d.update(files=5),
        lambda d: d.update(root=5),
        lambda d: d.update(tensors=[]),
        lambda d: d.update(tensors=d["tensors"] * 2 + [{"name": "v", "dtype": "float32", "shape": [20]}]),
        lambda d: d["files"][0].update(name="../out"),
        lambda d: d["files"][0].update(holes=[]),
        lambda d: d["files"][0].update(holes=d["files"][0]["holes"] * 2),
        lambda d: d["files"][0].update(holes=[[1 << 40, "w"]]),
        lambda d: d["files"][0].update(holes=[[-1, "w"]]),
        lambda d: d["files"][0].update(holes=[["0", "w"]]),
        lambda d: d["files"][0].update(holes=[[0, []]]),
        lambda d: d["files"][0].update(holes=5),
        lambda d: d["files"][0].update(holes=[[0, "w"]]),
        lambda d: d["files"][0].update(zeros=[[1 << 40, 80]]),
        lambda d: d["files"][0].update(zeros=[[*d["files"][0]["holes"][0][:1], 80]]),
        lambda d: d["files"][0].update(zeros=[[0, -80]]),
        lambda d: d["files"][0].update(zeros=[["0", 80]]),
        lambda d: d["files"][0].update(zeros=[[0]]),
        lambda d: d["files"][0].update(checksums=[[0, 80, [1 << 40]]]),
        lambda d: d["files"][0].update(checksums=[[0, 80, [0]]]),
        lambda d: d["files"][0].update(checksums=[[0]]),
        lambda d: d["tensors"][0].update(shape=[21]),
        lambda d: d["tensors"][0].update(shape=[-20]),
        lambda d: d["tensors"][0].update(shape="20"),
        lambda d: d["tensors"][0].update(order=[1]),
        lambda d: d["tensors"][0].update(order=[0, 0]),
        lambda d: d["tensors"][0].update(dtype="complex64"),
        lambda d: d["tensors"][0].update(dtype="int32"),
        lambda d: d["tensors"][0].update(dtype="float16"),
        lambda d: d["tensors"][0].update(dtype=[]),
        lambda d: d["tensors"][0].update(name="v"),
    ],
)
def test_a_topology_that_lies_is_refused_and_nothing_is_written(write, honest, tmp_path, change):
    description, rest = honest
    change(description)
    with pytest.raises(ModelError):
        write({"description.json": json.dumps(description).encode(), "file/0": rest})
    assert not list(tmp_path.iterdir())


def test_a_topology_of_endless_zeros_is_refused(write, honest, tmp_path):
    description, rest = honest
    description["files"][0]["zeros"] = [[0, 1 << 60]]
    with pytest.raises(LimitError, match="decoded_bytes"):
        write({"description.json": json.dumps(description).encode(), "file/0": rest})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"garbage", {}, {"description.json": b"{}"}, {"description.json": b"\xff"}])
def test_a_topology_that_is_none_is_refused(write, content):
    with pytest.raises(ModelError):
        write(content)


@pytest.mark.parametrize(
    "name", ["../evil", "/tmp/evil", "a/b", "..", ".", "", "a\\b", "c:evil", "a\0b", "é" * 128, "\ud800"]
)
def test_files_of_a_topology_stay_in_their_folder(write, tmp_path, name):
    description = {
        "kind": "sharded",
        "root": [],
        "tensors": [],
        "files": [{"name": name, "holes": [], "checksums": []}],
    }
    with pytest.raises(ModelError, match=r"(name|path) of a file|surrogates not allowed"):
        write({"description.json": json.dumps(description).encode(), "file/0": b"evil"}, {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["zip", "sharded"])
def test_a_topology_cannot_bring_a_pickle_that_runs_code(write, canary, tmp_path, kind):
    name = "" if kind == "zip" else "model.bin"
    names = [name] if kind == "zip" else [name, "model.bin.index.json"]
    files = [{"name": name, "holes": [], "checksums": []} for name in names]
    description = {"kind": kind, "root": [], "tensors": [], "files": files}
    evil = archive(pickle.dumps(Runs(os.system, f"touch {canary}")))
    content = {"file/0": evil, "file/1": b'{"weight_map": {}}'}
    with pytest.raises(ModelError, match="could run code"):
        write({"description.json": json.dumps(description).encode(), **content}, {})
    assert not list(tmp_path.iterdir())


@QUICK
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 4))
def test_a_damaged_description_is_followed_or_refused(adapter, tmp_path, seed, changes):
    (tmp_path / "m.pt").write_bytes(FILES["archive"])
    content = packing.unpack(adapter.read(tmp_path / "m.pt").topology.data, Limits())
    text, rng = bytearray(content["description.json"]), random.Random(seed)
    for _ in range(changes):
        text[rng.randrange(len(text))] = rng.choice(b'0123456789"[]{},:-ewv')
    data = packing.pack({**content, "description.json": bytes(text)})
    tensors = {"w": WEIGHT, "v.0": WEIGHT.reshape(4, 5)}
    with suppress(NncError):
        adapter.write(tensors, Topology(TopologyStorageFormat.NNR_TPL_PYT, data), tmp_path / "out.pt", force=True)
    assert {p.name for p in tmp_path.iterdir()} <= {"m.pt", "out.pt"}
