"""Bitstreams inside archives: in place of the tensor files, and back."""

from __future__ import annotations

import numpy as np
import pytest

import nnc_adapters
import nnc_core
from nnc_core import CodingParameters
from nnc_core.errors import BitstreamError, ModelError, NncError

nnef = pytest.importorskip("nnef", reason="the package nnef is not installed")

FINE = CodingParameters(qp=-60, nonweight_qp=-60)


@pytest.mark.parametrize("container", ["e", "e.tgz", "e.tar", "e.zip"])
@pytest.mark.parametrize("profile", [0, 1])
def test_embedded_bitstreams_decode_to_what_the_whole_bitstream_does(
    adapter, everything, tree, tmp_path, container, profile
):
    parameters = CodingParameters(general_profile_idc=profile)
    adapter.embed(everything, tmp_path / container, parameters=parameters)
    adapter.extract(tmp_path / container, tmp_path / "extracted")
    nnc_adapters.compress(everything, tmp_path / "m.nnr", parameters=parameters)
    nnc_adapters.decompress(tmp_path / "m.nnr", tmp_path / "whole")
    assert tree(tmp_path / "extracted") == tree(tmp_path / "whole")


def test_every_tensor_is_a_bitstream_of_its_own_and_all_else_is_unchanged(adapter, everything, tree, tmp_path):
    steps = []
    adapter.embed(everything, tmp_path / "e", parameters=FINE, progress=lambda *step: steps.append(step))
    assert steps == [(done, 11) for done in range(1, 12)]
    before, after = tree(everything), tree(tmp_path / "e")
    model = adapter.read(everything)
    for label, array in model.tensors.items():
        name = label.removeprefix("/")
        before.pop(f"{name}.dat")
        decoded = nnc_core.decode(after.pop(f"{name}.nnr"))
        assert list(decoded) == [label]
        np.testing.assert_allclose(decoded[label].reshape(array.shape), array.astype(np.float64), atol=1e-3)
    assert after == before
    assert {"large.dat", "none.dat", "exponents:0.dat"} <= after.keys()


def test_official_tools_read_the_graph_of_an_embedded_archive(adapter, everything, tmp_path):
    adapter.embed(everything, tmp_path / "e")
    graph = nnef.load_graph(str(tmp_path / "e"), load_variables=False)
    assert graph.operations[1].attribs == {"shape": [8, 4, 3, 3], "label": "layer/filter"}


def test_an_embedded_archive_is_read_like_any_other(adapter, everything, tmp_path):
    adapter.embed(everything, tmp_path / "e.tgz")
    found, original = adapter.read(tmp_path / "e.tgz"), adapter.read(everything)
    assert found.topology == original.topology
    assert found.exact == original.exact
    for label, array in original.tensors.items():
        assert (found.tensors[label].dtype, found.tensors[label].shape) == (array.dtype, array.shape)


def test_a_bitstream_and_a_tensor_file_of_one_label_are_refused(adapter, make, floats, tmp_path):
    folder = make({"w": floats(4, 5)})
    (folder / "w.nnr").write_bytes(nnc_core.encode({"w": np.zeros((4, 5))}))
    with pytest.raises(ModelError, match=r"'w'.*both w\.dat and w\.nnr"):
        adapter.read(folder)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"v": np.zeros((4, 5))}, "holds the tensors"),
        ({}, "holds the tensors"),
        ({"w": np.zeros((4, 5)), "v": np.zeros(3)}, "holds the tensors"),
        ({"w": np.zeros((5, 4))}, r"shape \[5, 4\]"),
    ],
)
def test_a_bitstream_of_something_else_is_refused(adapter, make, floats, tensors, message):
    folder = make({"w": floats(4, 5)})
    (folder / "w.dat").unlink()
    (folder / "w.nnr").write_bytes(nnc_core.encode(tensors))
    with pytest.raises(ModelError, match=message):
        adapter.read(folder)


def test_a_damaged_bitstream_is_refused_when_it_is_used(adapter, everything, tmp_path):
    adapter.embed(everything, tmp_path / "e")
    path = tmp_path / "e" / "layer" / "filter.nnr"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 0xFF]))
    with pytest.raises(BitstreamError, match="layer/filter"):
        adapter.extract(tmp_path / "e", tmp_path / "out")
    path.write_bytes(data[:-9])
    with pytest.raises(NncError):
        adapter.extract(tmp_path / "e", tmp_path / "out")
    assert not (tmp_path / "out").exists()
