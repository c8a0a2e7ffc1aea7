"""NNEF archives and SavedModel folders that carry their bitstream."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import nnc_adapters
import nnc_core
from conformance.support.shared import shared
from nnc_adapters import containers
from nnc_core.bitstream.parts import split
from nnc_core.errors import ModelError

GRAPH = b"""version 1.0;
graph g(x) -> (y)
{
  x = external<scalar>(shape = [1, 30]);
  a = variable<scalar>(shape = [20, 30], label = 'fc/weight');
  b = variable<scalar>(shape = [1, 20], label = 'half');
  y = linear(x, a, b);
}
"""


def content(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive with a tensor of half precision and a file of another kind."""
    from nnc_adapters.nnef.dat import Header, ItemType, dump

    folder = tmp_path / "archive"
    (folder / "fc").mkdir(parents=True)
    (folder / "graph.nnef").write_bytes(GRAPH)
    (folder / "notes.txt").write_bytes(b"mine")
    generator = np.random.default_rng(0)
    for name, shape, bits in (("fc/weight", (20, 30), 32), ("half", (1, 20), 16)):
        header = Header(shape, ItemType.FLOAT, bits)
        array = generator.normal(0, 0.1, shape).astype(f"f{bits // 8}")
        (folder / f"{name}.dat").write_bytes(header.pack() + bytes(dump(header, array)))
    return folder


@pytest.mark.parametrize("suffix", [".nnef", ".nnef.tgz", ".nnef.tar", ".nnef.zip"])
def test_a_bitstream_goes_into_an_archive_and_back_byte_for_byte(archive: Path, tmp_path: Path, suffix: str) -> None:
    nnc_adapters.compress(archive, nnr := tmp_path / "m.nnr")
    report = containers.embed(nnr, target := tmp_path / f"embedded{suffix}")
    assert report.format == containers.find(target).name == "nnef"
    containers.extract(target, out := tmp_path / "out.nnr")
    assert out.read_bytes() == nnr.read_bytes()
    containers.extract(target, out, tensor="half", force=True)
    assert out.read_bytes() == split(nnr.read_bytes())["half"]


def test_the_archive_has_the_units_of_the_bitstream_and_everything_else(archive: Path, tmp_path: Path) -> None:
    nnc_adapters.compress(archive, nnr := tmp_path / "m.nnr")
    containers.embed(nnr, tmp_path / "embedded.nnef")
    found = content(tmp_path / "embedded.nnef")
    assert found.keys() == {"graph.nnef", "notes.txt", "fc/weight.nnr", "half.nnr"}
    assert found["graph.nnef"] == GRAPH
    assert found["fc/weight.nnr"] == split(nnr.read_bytes())["fc/weight"]
    nnc_adapters.decompress(nnr, tmp_path / "direct.nnef")
    nnc_adapters.compress(tmp_path / "embedded.nnef", tmp_path / "again.nnr")
    nnc_adapters.decompress(tmp_path / "again.nnr", tmp_path / "round.nnef")
    assert content(tmp_path / "round.nnef").keys() == content(tmp_path / "direct.nnef").keys()


def test_an_archive_takes_a_bitstream_without_topology(archive: Path, tmp_path: Path) -> None:
    nnc_adapters.compress(archive, nnr := tmp_path / "m.nnr")
    parts = dict(split(nnr.read_bytes()))
    nnr.write_bytes(parts["fc/weight"] + parts["half"])
    containers.embed(nnr, tmp_path / "embedded", into=archive)
    assert (tmp_path / "embedded" / "fc" / "weight.nnr").read_bytes() == parts["fc/weight"]
    with pytest.raises(ModelError, match="topology"):
        containers.embed(nnr, tmp_path / "y.nnef")


def test_tensors_that_are_not_those_of_the_archive_are_refused(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "w.nnr").write_bytes(nnc_core.encode({"w": np.ones(4, np.float32)}))
    with pytest.raises(ModelError, match="tensor"):
        containers.embed(tmp_path / "w.nnr", tmp_path / "y.nnef", into=archive)


def test_of_an_archive_whose_tensors_are_partly_coded_the_others_are_taken_as_they_are(
    archive: Path, tmp_path: Path
) -> None:
    nnc_adapters.compress(archive, nnr := tmp_path / "m.nnr")
    containers.embed(nnr, target := tmp_path / "embedded.nnef")
    (target / "half.nnr").unlink()
    shutil.copy(archive / "half.dat", target)
    containers.extract(target, out := tmp_path / "out.nnr")
    assert split(out.read_bytes())["fc/weight"] == split(nnr.read_bytes())["fc/weight"]
    nnc_adapters.decompress(target, tmp_path / "plain.nnef")
    assert (tmp_path / "plain.nnef" / "half.dat").read_bytes() == (archive / "half.dat").read_bytes()
    assert content(tmp_path / "plain.nnef").keys() == content(archive).keys()


@pytest.fixture
def saved_model() -> Path:
    return shared("models/kws_saved_model")


@pytest.fixture
def of_the_model(saved_model: Path, tmp_path: Path) -> Path:
    """The bitstream of the SavedModel."""
    nnc_adapters.compress(saved_model, tmp_path / "kws.nnr", keep_optimizer=False)
    return tmp_path / "kws.nnr"


def test_a_saved_model_carries_a_bitstream(saved_model: Path, of_the_model: Path, tmp_path: Path) -> None:
    coded = of_the_model.read_bytes()
    report = containers.embed(of_the_model, target := tmp_path / "model", into=saved_model)
    assert report.format == containers.find(target).name == "savedmodel"
    assert content(target) == {**content(saved_model), "assets.extra/model.nnr": coded}
    containers.extract(target, out := tmp_path / "out.nnr")
    assert out.read_bytes() == coded
    containers.extract(target, out, tensor="dense/kernel", force=True)
    assert out.read_bytes() == split(coded)["dense/kernel"]


def test_a_saved_model_takes_a_bitstream_in_place(saved_model: Path, of_the_model: Path, tmp_path: Path) -> None:
    shutil.copytree(saved_model, target := tmp_path / "model")
    containers.embed(of_the_model, tmp_path / "x.zip", per_tensor=True)
    containers.embed(tmp_path / "x.zip", target)
    assert (target / "assets.extra" / "model.nnr").read_bytes() == of_the_model.read_bytes()
    with pytest.raises(FileExistsError):
        containers.embed(of_the_model, target)
    containers.embed(target, tmp_path / "y.safetensors", per_tensor=True)
    containers.extract(tmp_path / "y.safetensors", tmp_path / "out.nnr")
    assert (tmp_path / "out.nnr").read_bytes() == of_the_model.read_bytes()
