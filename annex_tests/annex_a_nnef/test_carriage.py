"""What docs/carriage.md says of NNEF: units, names, files."""

from __future__ import annotations

import itertools
import json

import nnc_adapters
import nnc_core
from nnc_core.bitstream import Bitstream
from nnc_core.tables.code_points import PRIVATE_TOPOLOGY, NnrUnitType, TopologyStorageFormat

TPL, QNT, NDU = NnrUnitType.NNR_TPL, NnrUnitType.NNR_QNT, NnrUnitType.NNR_NDU


def units_of(data):
    """Type, and storage format of those units that have one."""
    formats = ("topology_storage_format", "quantization_storage_format")
    units = Bitstream(data).units
    return [(u.type, next((getattr(u.header, f) for f in formats if hasattr(u.header, f)), None)) for u in units]


def parts_of(data):
    """The parts of a private topology unit, by name."""
    line, _, rest = data.partition(b"\n")
    names, sizes = zip(*json.loads(line), strict=True)
    ends = list(itertools.accumulate(sizes))
    assert ends[-1] == len(rest)
    return {name: rest[end - size : end] for name, size, end in zip(names, sizes, ends, strict=True)}


def test_the_units_of_a_whole_archive(everything, tmp_path):
    nnc_adapters.compress(everything, tmp_path / "m.nnr")
    units = units_of((tmp_path / "m.nnr").read_bytes())
    assert units[:5] == [
        (NnrUnitType.NNR_STR, None),
        (NnrUnitType.NNR_MPS, None),
        (TPL, TopologyStorageFormat.NNR_TPL_NNEF),
        (QNT, TopologyStorageFormat.NNR_TPL_NNEF),
        (TPL, PRIVATE_TOPOLOGY),
    ]
    assert {kind for kind, _ in units[5:]} == {NDU}
    with nnc_core.open(tmp_path / "m.nnr") as file:
        assert file.topology.data == (everything / "graph.nnef").read_bytes()
        assert file.topology.quantization == (everything / "graph.quant").read_bytes()
        assert "/half" in file
        private = parts_of(file.topology.private)
    headers = json.loads(private["tensors.json"])
    assert headers["old"] == {"item_type": 1, "bits_per_item": 32, "reserved": [1, 0, 7]}
    assert "layer/filter" not in headers
    assert private["files/README.md"] == (everything / "README.md").read_bytes()
    assert private["files/large.dat"] == (everything / "large.dat").read_bytes()


def test_the_units_of_a_bitstream_inside_an_archive(adapter, everything, tmp_path):
    adapter.embed(everything, tmp_path / "e")
    start, mps = (NnrUnitType.NNR_STR, None), (NnrUnitType.NNR_MPS, None)
    plain = (tmp_path / "e" / "layer" / "filter.nnr").read_bytes()
    assert units_of(plain) == [start, mps, (NDU, None)]
    half = (tmp_path / "e" / "half.nnr").read_bytes()
    unnamed = [(TPL, TopologyStorageFormat.NNR_TPL_UNREC), (TPL, PRIVATE_TOPOLOGY)]
    assert units_of(half) == [start, mps, *unnamed, (NDU, None)]
    assert list(nnc_core.decode(half)) == ["/half"]
