"""A bitstream that travels inside a SavedModel."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import nnc_adapters
from nnc_adapters import containers
from nnc_adapters.tensorflow import TensorflowAdapter, embed, extract
from nnc_adapters.tensorflow.carrier import SavedModel
from nnc_core.errors import ModelError
from nnc_core.limits import Limits

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def bitstream(saved, tmp_path):
    nnc_adapters.compress(saved("export"), tmp_path / "model.nnr")
    return tmp_path / "model.nnr"


def test_it_comes_out_as_it_went_in(saved, copy_of, bitstream, tmp_path):
    folder = copy_of(saved("export"))
    assert embed(bitstream, folder) == folder / "assets.extra" / "model.nnr"
    extract(folder, tmp_path / "out.nnr")
    assert (tmp_path / "out.nnr").read_bytes() == bitstream.read_bytes()


def test_tensorflow_loads_a_model_that_carries_one(tf, saved, copy_of, bitstream, image):
    folder = copy_of(saved("export"))
    embed(bitstream, folder)
    model = tf.saved_model.load(folder)
    assert model.serve(image).shape == (2, 10)


def test_an_earlier_one_is_replaced_only_by_force(saved, copy_of, bitstream):
    folder = copy_of(saved("export"))
    embed(bitstream, folder)
    with pytest.raises(FileExistsError):
        embed(bitstream, folder)
    embed(bitstream, folder, force=True)


def test_what_is_not_a_saved_model_is_refused(bitstream, tmp_path):
    with pytest.raises(ModelError, match="not a SavedModel"):
        embed(bitstream, tmp_path)


def test_a_model_without_one_is_refused(saved, tmp_path):
    with pytest.raises(ModelError, match=r"no assets\.extra/model\.nnr"):
        extract(saved("export"), tmp_path / "out.nnr")


@pytest.mark.parametrize(("other", "what"), [("saved_model", "graph"), ("module", "tensors")])
def test_a_bitstream_of_another_model_is_refused(saved, copy_of, bitstream, other, what):
    folder = copy_of(saved(other))
    with pytest.raises(ModelError, match=f"another model: its {what} differ"):
        embed(bitstream, folder)
    assert not (folder / "assets.extra" / "model.nnr").exists()


def test_the_model_that_it_is_not_of_is_named_and_not_a_copy(saved, bitstream, tmp_path):
    other = saved("module")
    with pytest.raises(ModelError, match="its tensors differ") as caught:
        SavedModel().embed(bitstream, tmp_path / "out", into=other, force=False, limits=Limits())
    assert caught.value.file == str(other)


def test_a_bitstream_of_another_graph_is_refused(saved, copy_of, bitstream):
    folder = copy_of(saved("export"))
    with (folder / "saved_model.pb").open("ab") as stream:
        stream.write(b"\x08\x01")
    with pytest.raises(ModelError, match="another model: its graph differ"):
        embed(bitstream, folder)


def test_a_bitstream_without_the_description_of_a_model_is_refused(saved, copy_of, tmp_path):
    (tmp_path / "m.nnr").write_bytes(nnc_adapters_encoded())
    with pytest.raises(ModelError, match="does not carry"):
        embed(tmp_path / "m.nnr", copy_of(saved("export")))


def nnc_adapters_encoded():
    import nnc_core

    return nnc_core.encode({"w": np.ones((4, 4), np.float32)})


def test_a_model_that_was_restored_takes_its_bitstream(bitstream, tmp_path):
    nnc_adapters.decompress(bitstream, tmp_path / "restored")
    embed(bitstream, tmp_path / "restored")


def test_compressing_a_model_that_carries_one_leaves_it_out_and_says_so(saved, copy_of, bitstream, tmp_path):
    folder = copy_of(saved("export"))
    embed(bitstream, folder)
    report = nnc_adapters.compress(folder, tmp_path / "again.nnr")
    assert (tmp_path / "again.nnr").read_bytes() == bitstream.read_bytes()
    assert any("assets.extra/model.nnr" in warning for warning in report.warnings)


def test_the_variables_can_be_emptied(tf, saved, copy_of, bitstream, image, tmp_path):
    folder = copy_of(saved("export"))
    containers.embed(bitstream, tmp_path / "emptied", into=folder, container="savedmodel-emptied")
    assert not any(array.any() for array in tensors(tmp_path / "emptied"))
    assert tf.saved_model.load(tmp_path / "emptied").serve(image).shape == (2, 10)
    nnc_adapters.decompress(tmp_path / "emptied", tmp_path / "restored")
    nnc_adapters.decompress(bitstream, tmp_path / "expected")
    for one, other in zip(tensors(tmp_path / "restored"), tensors(tmp_path / "expected"), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(array.any() for array in tensors(folder))


def tensors(folder):
    return list(TensorflowAdapter().read(folder).tensors.values())


def test_a_graph_in_text_is_one_as_well(saved, copy_of, tmp_path):
    folder = copy_of(saved("export"))
    (folder / "saved_model.pb").rename(folder / "saved_model.pbtxt")
    nnc_adapters.compress(folder, tmp_path / "m.nnr")
    embed(tmp_path / "m.nnr", folder)
    shutil.rmtree(folder / "variables")
    with pytest.raises(ModelError, match="another model"):
        embed(tmp_path / "m.nnr", folder, force=True)
