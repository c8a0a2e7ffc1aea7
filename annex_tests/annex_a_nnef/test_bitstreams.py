"""Whole archives as bitstreams: what goes where, and that it comes back."""

from __future__ import annotations

import numpy as np
import pytest

import nnc_adapters
import nnc_core
from nnc_adapters.nnef import dat
from nnc_adapters.nnef.dat import Header, ItemType
from nnc_core import CodingParameters
from nnc_core.tables.code_points import PRIVATE_TOPOLOGY, NnrUnitType, TopologyStorageFormat

nnef = pytest.importorskip("nnef", reason="the package nnef is not installed")

CODED = ("layer/filter.dat", "half.dat", "double.dat")


@pytest.mark.parametrize("profile", [0, 1])
@pytest.mark.parametrize("container", ["", ".tgz", ".zip"])
def test_only_the_values_of_large_float_tensors_change(adapter, everything, tree, tmp_path, profile, container):
    source = everything
    if container:
        model = adapter.read(everything)
        source = tmp_path / f"source{container}"
        adapter.write(model.tensors, model.topology, source)
    nnr = tmp_path / "m.nnr"
    nnc_adapters.compress(source, nnr, parameters=CodingParameters(general_profile_idc=profile))
    nnc_adapters.decompress(nnr, tmp_path / "out")
    before, after = tree(everything), tree(tmp_path / "out")
    assert list(after) == list(before)
    for name, data in before.items():
        if name in CODED:
            assert after[name][:128] == data[:128]
            tensors = [dat.load(Header.parse(d, len(d)), memoryview(d)[128:]) for d in (data, after[name])]
            np.testing.assert_allclose(tensors[1], tensors[0], atol=0.02)
        else:
            assert after[name] == data
    assert after["layer/filter.dat"] != before["layer/filter.dat"]


def test_a_coded_archive_coded_uniformly_again_does_not_change(everything, tree, tmp_path):
    parameters = CodingParameters(dq_flag=False)
    for source, name in ((everything, "a"), (tmp_path / "a", "b")):
        nnc_adapters.compress(source, tmp_path / "m.nnr", parameters=parameters, force=True)
        nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / name)
    a, b = tree(tmp_path / "a"), tree(tmp_path / "b")
    assert a == b


def test_the_graph_and_its_quantization_travel_in_units_of_their_own(everything, tmp_path):
    nnc_adapters.compress(everything, tmp_path / "m.nnr")
    with nnc_core.open(tmp_path / "m.nnr") as file:
        assert file.topology.storage_format == TopologyStorageFormat.NNR_TPL_NNEF
        assert file.topology.data == (everything / "graph.nnef").read_bytes()
        assert file.topology.quantization == (everything / "graph.quant").read_bytes()
        types = [unit.type for unit in file.units][2:5]
        assert types == [NnrUnitType.NNR_TPL, NnrUnitType.NNR_QNT, NnrUnitType.NNR_TPL]
        assert file.units[4].header.topology_storage_format == PRIVATE_TOPOLOGY


def test_labels_name_the_data_units_and_exact_tensors_are_sent_as_they_are(everything, tmp_path):
    nnc_adapters.compress(everything, tmp_path / "m.nnr")
    with nnc_core.open(tmp_path / "m.nnr") as file:
        kinds = {name: info.payload_type for name, info in file.tensors.items()}
    integers = dict.fromkeys(("quantized", "nibbles", "mask", "flags", "steps", "old"), "NNR_PT_INT")
    coded = dict.fromkeys(("layer/filter", "/half", "double"), "NNR_PT_FLOAT")
    assert kinds == {**coded, "layer/bias": "NNR_PT_RAW_FLOAT", "scalar": "NNR_PT_FLOAT", **integers}


def test_a_plain_archive_needs_no_private_unit(adapter, make, floats):
    integers = (Header((5,), ItemType.INT, 32), np.arange(5))
    topology = adapter.read(make({"w": floats(4, 5), "s": (Header(()), np.float32(2)), "i": integers})).topology
    assert topology.private is None
    assert topology.quantization is None


def test_without_the_private_unit_the_types_are_those_that_the_data_units_say(adapter, everything, tmp_path):
    nnc_adapters.compress(everything, tmp_path / "m.nnr")
    with nnc_core.open(tmp_path / "m.nnr") as file:
        tensors = dict(file)
        text = "\n".join(
            line
            for line in file.topology.data.decode().splitlines()
            if "'large'" not in line and "'none'" not in line and "'exponents" not in line
        )
    adapter.write(tensors, nnc_core.Topology(TopologyStorageFormat.NNR_TPL_NNEF, text.encode()), tmp_path / "out")
    found = {p.stem: Header.parse(d := p.read_bytes(), len(d)) for p in (tmp_path / "out").rglob("*.dat")}
    kinds = {label: (header.item_type, header.bits_per_item) for label, header in found.items()}
    assert kinds["filter"] == kinds["scalar"] == (ItemType.FLOAT, 32)
    assert kinds["half"] == (ItemType.FLOAT, 16)
    assert kinds["double"] == (ItemType.FLOAT, 64)
    assert kinds["nibbles"] == (ItemType.INT, 8)
    assert kinds["steps"] == (ItemType.INT, 64)
    assert kinds["mask"] == kinds["quantized"] == (ItemType.INT, 32)
    assert found["scalar"].shape == ()


def test_the_package_nnef_loads_what_comes_back(make, floats, tmp_path):
    folder = make({"w": floats(30, 8), "b": floats(1, 30)}, body="y = linear(x, v0, v1);")
    nnc_adapters.compress(folder, tmp_path / "m.nnr")
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out")
    loaded = nnef.load_graph(str(tmp_path / "out"))
    decoded = nnc_core.decode((tmp_path / "m.nnr").read_bytes())
    np.testing.assert_array_equal(loaded.tensors["v0"].data, decoded["w"])
    np.testing.assert_array_equal(loaded.tensors["v1"].data, decoded["b"])


def test_without_a_name_the_archive_lies_beside_the_bitstream(everything, tmp_path):
    nnc_adapters.compress(everything)
    assert nnc_adapters.decompress(tmp_path / "m.nnr").target == tmp_path / "m.nnef.tgz"


def test_half_precision_nan_that_float32_cannot_carry_stays_as_it_is(make, tree, tmp_path):
    payloads = np.array([0x7C01, 0xFE00, 0x3C00], np.uint16).view(np.float16)
    folder = make({"odd": (Header((3,), ItemType.FLOAT, 16), payloads)})
    nnc_adapters.compress(folder, tmp_path / "m.nnr")
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)


def test_bits_after_the_last_item_stay_as_they_are(make, tree, tmp_path):
    folder = make({"mask": (Header((3,), ItemType.BOOL, 1), np.array([1, 0, 1]))})
    path = folder / "mask.dat"
    path.write_bytes(path.read_bytes()[:-1] + b"\xa3")
    nnc_adapters.compress(folder, tmp_path / "m.nnr")
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(folder)
