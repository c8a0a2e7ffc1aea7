"""Hostile pickles: refused with a typed error, and nothing is run."""

from __future__ import annotations

import builtins
import functools
import io
import itertools
import operator
import os
import pickle
import sys
from collections import OrderedDict
from contextlib import suppress

import numpy as np
import pytest

from annex_tests.support.handmade_pytorch import (
    WEIGHT,
    Runs,
    Tensor,
    archive,
)
from annex_tests.support.hostile_pytorch import FORMS, OPAQUE
from nnc_adapters.pytorch import PytorchAdapter, pickles
from nnc_adapters.pytorch.admitted import ALLOWED
from nnc_core.errors import ModelError


@FORMS
def test_an_honest_file_is_read(read, form):
    np.testing.assert_array_equal(read(form({"w": Tensor()})).tensors["w"], WEIGHT)


def test_what_is_admitted_is_what_pytorch_admits(torch):
    from torch._weights_only_unpickler import _get_allowed_globals

    theirs = {name.rpartition(".")[0] + " " + name.rpartition(".")[2] for name in _get_allowed_globals()}
    assert theirs >= ALLOWED


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


def test_what_looks_like_a_text_of_an_old_pickle_causes_no_warning(tmp_path, adapter):
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


class Counted(pickles._Tuple):
    """Counts how often keys are compared, which they are where their hashes are the same."""

    compared = 0
    __hash__ = pickles._Tuple.__hash__

    def __eq__(self, other):
        Counted.compared += 1
        return super().__eq__(other)


def test_keys_that_are_made_to_have_the_same_hash_have_different_ones(monkeypatch):
    monkeypatch.setattr(pickles, "_Tuple", Counted)
    keys = list(itertools.product((-1, -2), repeat=10))
    assert len({hash(key) for key in keys}) == 1
    assert len(pickles.load(io.BytesIO(pickle.dumps(dict.fromkeys(keys)))).value) == len(keys)
    assert Counted.compared < 10
    numbers = {sys.hash_info.modulus * number: None for number in range(1000)}
    found = pickles.load(io.BytesIO(pickle.dumps(numbers))).value
    assert len({hash(key) for key in found}) == 1000
    assert list(map(str, found)) == list(map(str, numbers))


@pytest.mark.parametrize("number", [-1, 1 << 32, sys.hash_info.modulus])
def test_a_value_is_not_remembered_under_a_number_that_no_pickle_has(number):
    with pytest.raises(pickles.PickleError, match="number"):
        pickles.load(io.BytesIO(b"Np%d\n." % number))
