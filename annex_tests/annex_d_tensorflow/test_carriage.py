"""A bitstream that travels inside a SavedModel."""

from __future__ import annotations

import pytest

from nnc_adapters.tensorflow import embed, extract
from nnc_core.errors import ModelError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def bitstream(tmp_path):
    path = tmp_path / "model.nnr"
    path.write_bytes(b"units")
    return path


def test_it_comes_out_as_it_went_in(saved, copy_of, bitstream, tmp_path):
    folder = copy_of(saved("export"))
    assert embed(bitstream, folder) == folder / "assets.extra" / "model.nnr"
    extract(folder, tmp_path / "out.nnr")
    assert (tmp_path / "out.nnr").read_bytes() == b"units"


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


def test_what_is_no_saved_model_is_refused(bitstream, tmp_path):
    with pytest.raises(ModelError, match="no SavedModel"):
        embed(bitstream, tmp_path)


def test_a_model_without_one_is_refused(saved, tmp_path):
    with pytest.raises(ModelError, match=r"no assets\.extra/model\.nnr"):
        extract(saved("export"), tmp_path / "out.nnr")
