"""Every container, both carriages, and from each into each."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnc_adapters import containers
from nnc_adapters.containers import CONTAINERS, Container
from nnc_core.bitstream.parts import MODEL, split
from nnc_core.errors import MissingDependencyError, ModelError

SUFFIXES = [".nnr", ".cat", ".safetensors", ".zip", ".npz", ".mp4", ".nnr.mp4", ".h5", ".hdf5", ""]
NAMED = [c for c in CONTAINERS if c.name != "concatenation"]
QUICK = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=16)

pytest.importorskip("h5py", reason="h5py is not installed")


def content(path: Path) -> bytes | dict[str, bytes]:
    if path.is_dir():
        return {file.name: file.read_bytes() for file in path.iterdir()}
    return path.read_bytes()


@pytest.fixture(params=CONTAINERS, ids=lambda c: c.name)
def container(request: pytest.FixtureRequest) -> Container:
    found: Container = request.param
    return found


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_embedded_comes_out_byte_for_byte(bitstream: Path, coded: bytes, suffix: str, per_tensor: bool) -> None:
    target = bitstream.with_name(f"container{suffix}")
    report = containers.embed(bitstream, target, per_tensor=per_tensor)
    assert report.bitstreams == (len(split(coded)) if per_tensor else 1)
    containers.extract(target, out := bitstream.with_name("out.nnr"))
    assert out.read_bytes() == coded


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_single_tensor_comes_out_of_either_carriage(
    bitstream: Path, coded: bytes, suffix: str, per_tensor: bool
) -> None:
    target = bitstream.with_name(f"container{suffix}")
    containers.embed(bitstream, target, per_tensor=per_tensor)
    parts = split(coded)
    for name in parts.keys() - {MODEL}:
        containers.extract(target, out := bitstream.with_name("out.nnr"), tensor=name, force=True)
        assert out.read_bytes() == parts[name]


@pytest.mark.parametrize("after", CONTAINERS, ids=lambda c: c.name)
@pytest.mark.parametrize("carriages", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_containers_become_each_other(
    container: Container, after: Container, carriages: tuple[bool, bool], bitstream: Path
) -> None:
    folder = bitstream.parent
    containers.embed(bitstream, folder / "first", container=container.name, per_tensor=carriages[0])
    containers.embed(folder / "first", folder / "second", container=after.name, per_tensor=carriages[1])
    containers.embed(bitstream, folder / "direct", container=after.name, per_tensor=carriages[1])
    assert content(folder / "second") == content(folder / "direct")


def test_a_container_is_found_by_its_content_only(container: Container, bitstream: Path) -> None:
    containers.embed(bitstream, target := bitstream.with_name("x"), container=container.name, per_tensor=True)
    assert [c.name for c in CONTAINERS if c.sniff(target)] == [container.name]


def test_keys_keep_their_order(container: Container, bitstream: Path, coded: bytes) -> None:
    containers.embed(bitstream, target := bitstream.with_name("x"), container=container.name, per_tensor=True)
    with container.open(target) as items:
        assert list(items) == list(split(coded))
        assert "conv" in items
        assert "nothing" not in items


@pytest.mark.parametrize("container", NAMED, ids=lambda c: c.name)
@QUICK
@given(keys=st.lists(NAMES, unique=True, min_size=1))
def test_every_name_is_kept(container: Container, tmp_path: Path, keys: list[str]) -> None:
    items = {key: bytes([0, 4, 2, 1, n & 255]) for n, key in enumerate(keys)}
    container.write(tmp_path / "x", items, force=True)
    with container.open(tmp_path / "x") as found:
        assert {key: bytes(found[key]) for key in found} == items


@pytest.mark.parametrize("container", [c for c in NAMED if c.name != "isobmff"], ids=lambda c: c.name)
def test_a_tensor_without_name_is_kept(container: Container, tmp_path: Path) -> None:
    container.write(tmp_path / "x", {"": b"\0\4\2\1", "a": b"\0\4\2\0"})
    with container.open(tmp_path / "x") as found:
        assert {key: bytes(found[key]) for key in found} == {"": b"\0\4\2\1", "a": b"\0\4\2\0"}


def test_names_that_a_container_cannot_have_are_refused(tmp_path: Path) -> None:
    for name, key in (("safetensors", "__metadata__"), ("isobmff", ""), ("folder", "x" * 4000)):
        container = next(c for c in CONTAINERS if c.name == name)
        with pytest.raises(ModelError):
            container.write(tmp_path / "x", {key: b"\0\4\2\1"})
        assert not list(tmp_path.iterdir())


def test_equal_items_make_equal_files(container: Container, tmp_path: Path, coded: bytes) -> None:
    container.write(tmp_path / "a", split(coded))
    container.write(tmp_path / "b", split(coded))
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_an_existing_container_is_replaced_only_by_force(container: Container, bitstream: Path) -> None:
    target = bitstream.with_name("x")
    containers.embed(bitstream, target, container=container.name)
    before = content(target)
    with pytest.raises(FileExistsError):
        containers.embed(bitstream, target, container=container.name, per_tensor=True)
    assert content(target) == before
    containers.embed(bitstream, target, container=container.name, per_tensor=True, force=True)
    with container.open(target) as items:
        assert len(items) > 1


def test_a_write_that_fails_leaves_nothing(container: Container, tmp_path: Path, coded: bytes) -> None:
    class Failing(dict[str, bytes]):
        def __getitem__(self, key: str) -> bytes:
            if key == "b":
                raise OSError("the disk is gone")
            return super().__getitem__(key)

    with pytest.raises(OSError, match="the disk is gone"):
        container.write(tmp_path / "x", Failing(split(coded)))
    assert not list(tmp_path.iterdir())


def test_concatenated_models_are_told_apart(tmp_path: Path, coded: bytes) -> None:
    (tmp_path / "two.cat").write_bytes(coded + coded)
    concatenation = next(c for c in CONTAINERS if c.name == "concatenation")
    with concatenation.open(tmp_path / "two.cat") as items:
        assert {key: bytes(items[key]) for key in items} == {MODEL: coded, f"{MODEL}#2": coded}
    with pytest.raises(ModelError, match="another part"):
        containers.extract(tmp_path / "two.cat", tmp_path / "out.nnr")
    containers.extract(tmp_path / "two.cat", tmp_path / "out.nnr", tensor=f"{MODEL}#2")
    assert (tmp_path / "out.nnr").read_bytes() == coded


def test_an_unknown_target_is_refused(bitstream: Path) -> None:
    with pytest.raises(ModelError, match="which container"):
        containers.embed(bitstream, bitstream.with_name("x.tar"))
    with pytest.raises(ModelError, match="which container"):
        containers.embed(bitstream, bitstream.with_name("x.zip"), container="tar")


def test_a_file_without_nnr_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="carries no NNR"):
        containers.extract(tmp_path / "x", tmp_path / "y")
    with pytest.raises(FileNotFoundError):
        containers.extract(tmp_path / "absent", tmp_path / "y")


def test_without_h5py_the_error_says_what_to_install(bitstream: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    containers.embed(bitstream, target := bitstream.with_name("x.h5"))
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(MissingDependencyError, match=r"nnc-suite\[containers\]"):
        containers.extract(target, bitstream.with_name("out.nnr"))
