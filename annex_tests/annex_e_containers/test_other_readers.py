"""What the formats' own libraries see in our containers, and what we see in theirs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

import nnc_core
from nnc_adapters import containers
from nnc_core.bitstream.parts import MODEL, split


@pytest.fixture
def decoded(coded: bytes) -> dict[str, np.ndarray]:
    return nnc_core.decode(coded)


def test_the_library_of_safetensors_reads_ours(bitstream: Path, decoded: dict[str, np.ndarray]) -> None:
    library = pytest.importorskip("safetensors", reason="safetensors is not installed")
    containers.embed(bitstream, target := bitstream.with_name("x.safetensors"), per_tensor=True)
    with library.safe_open(target, "numpy") as file:
        assert set(file.keys()) == {MODEL, *decoded}
        for name, array in decoded.items():
            vector = file.get_tensor(name)
            assert vector.dtype == np.uint8
            np.testing.assert_array_equal(nnc_core.decode(vector.tobytes())[name], array)


def test_we_read_what_the_library_of_safetensors_writes(tmp_path: Path, coded: bytes) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    vectors = {name: np.frombuffer(part, np.uint8) for name, part in split(coded).items()}
    library.save_file(vectors, tmp_path / "x", metadata={"author": "someone"})
    containers.extract(tmp_path / "x", tmp_path / "out.nnr")
    assert nnc_core.decode((tmp_path / "out.nnr").read_bytes()).keys() == vectors.keys() - {MODEL}


def test_a_safetensors_file_of_weights_is_not_one_of_ours(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    library.save_file({"w": np.ones(4, np.float32)}, tmp_path / "floats")
    library.save_file({"w": np.ones(40, np.uint8)}, tmp_path / "bytes")
    for name in ("floats", "bytes"):
        assert not any(c.sniff(tmp_path / name) for c in containers.CONTAINERS)


def test_h5py_reads_ours(bitstream: Path, coded: bytes) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    containers.embed(bitstream, target := bitstream.with_name("x.h5"), per_tensor=True)
    with h5py.File(target) as file:
        assert list(file)[:3] == [MODEL, "conv", "conv%2Fweight"]
        assert nnc_core.decode(file["conv"][:].tobytes()).keys() == {"conv"}


def test_we_read_what_h5py_writes(tmp_path: Path, coded: bytes) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "x", "w") as file:
        file["model"] = np.frombuffer(coded, np.uint8)
    containers.extract(tmp_path / "x", tmp_path / "out.nnr")
    assert (tmp_path / "out.nnr").read_bytes() == coded


def test_an_hdf5_file_of_weights_is_not_one_of_ours(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(tmp_path / "x", "w") as file:
        file["group/w"] = np.ones(40, np.uint8)
    assert not any(c.sniff(tmp_path / "x") for c in containers.CONTAINERS)
    h5py.File(tmp_path / "x", "w").close()
    assert not any(c.sniff(tmp_path / "x") for c in containers.CONTAINERS)


def test_zipfile_reads_ours_and_finds_nothing_that_leaves_its_folder(bitstream: Path, coded: bytes) -> None:
    containers.embed(bitstream, target := bitstream.with_name("x.zip"), per_tensor=True)
    with zipfile.ZipFile(target) as archive:
        assert archive.testzip() is None
        assert archive.read("conv/weight.nnr") == split(coded)["conv/weight"]
        for name in archive.namelist():
            parts = name.split("/")
            assert not {"", ".", ".."} & set(parts)
            assert not set(name) & set("\\:\n")


def test_we_read_what_others_zip(tmp_path: Path, coded: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "x", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("conv", "b"):
            archive.writestr(f"{name}.nnr", split(coded)[name])
    containers.extract(tmp_path / "x", tmp_path / "out.nnr")
    assert list(nnc_core.decode((tmp_path / "out.nnr").read_bytes())) == ["conv", "b"]


def test_numpy_reads_our_npz(bitstream: Path, decoded: dict[str, np.ndarray]) -> None:
    containers.embed(bitstream, target := bitstream.with_name("x.npz"), per_tensor=True)
    with np.load(target) as file:
        np.testing.assert_array_equal(nnc_core.decode(file["conv"].tobytes())["conv"], decoded["conv"])


def test_we_read_the_npz_of_numpy(tmp_path: Path, coded: bytes) -> None:
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "x.npz", model=np.frombuffer(coded, np.uint8))
        containers.extract(tmp_path / "x.npz", tmp_path / "out.nnr", force=True)
        assert (tmp_path / "out.nnr").read_bytes() == coded


def test_the_files_of_a_folder_are_bitstreams(bitstream: Path, decoded: dict[str, np.ndarray]) -> None:
    containers.embed(bitstream, target := bitstream.with_name("parts"), per_tensor=True)
    found: dict[str, np.ndarray] = {}
    for file in sorted(target.iterdir()):
        with nnc_core.open(file) as part:
            found.update(part)
    assert found.keys() == decoded.keys()


def test_files_without_numbers_are_read_by_name(tmp_path: Path, coded: bytes) -> None:
    (tmp_path / "x").mkdir()
    for name in ("conv", "b"):
        (tmp_path / "x" / f"{name}.nnr").write_bytes(split(coded)[name])
    containers.extract(tmp_path / "x", tmp_path / "out.nnr")
    assert list(nnc_core.decode((tmp_path / "out.nnr").read_bytes())) == ["b", "conv"]
