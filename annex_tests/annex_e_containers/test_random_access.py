"""Loading one tensor touches only its bytes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

import nnc_core
from nnc_adapters import containers
from nnc_adapters.containers import CONTAINERS, Container, base
from nnc_core import stored

WEIGHTS = {f"w{n}": np.random.default_rng(n).normal(size=(256, 256)).astype(np.float32) for n in range(6)}
OVERHEAD = 16 * 1024  # indexes and headers; every tensor is much larger
TESTED_BELOW = ("concatenation",)


class Counting(io.FileIO):
    """A file that knows how much was read from all of its kind."""

    total = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size)
        Counting.total += len(data or b"")
        return data or b""

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = super().readinto(buffer) or 0
        Counting.total += count
        return count

    def readall(self) -> bytes:
        raise AssertionError("a whole file is read")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.nnr"
    path.write_bytes(nnc_core.encode(WEIGHTS))
    return path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    for module in ("base", "archive", "hdf5"):
        monkeypatch.setattr(f"nnc_adapters.containers.{module}.opened", lambda path: Counting(path))
    Counting.total = 0
    return Counting


@pytest.mark.parametrize("container", [c for c in CONTAINERS if c.name not in TESTED_BELOW], ids=lambda c: c.name)
def test_one_tensor_is_read_without_the_others(
    container: Container, source: Path, tmp_path: Path, counted: type[Counting]
) -> None:
    if container.name == "hdf5":
        pytest.importorskip("h5py", reason="h5py is not installed")
    containers.embed(source, tmp_path / "x", container=container.name, per_tensor=True)
    counted.total = 0
    with container.open(tmp_path / "x") as items:
        opening = counted.total
        part = bytes(items["w3"])
    assert opening < OVERHEAD
    assert len(part) <= counted.total - opening < len(part) + OVERHEAD
    assert len(part) > 2 * OVERHEAD
    assert nnc_core.decode(part).keys() == {"w3"}


@pytest.mark.parametrize("container", [c for c in CONTAINERS if c.name not in TESTED_BELOW], ids=lambda c: c.name)
def test_recognizing_a_container_reads_only_a_little(
    container: Container, source: Path, tmp_path: Path, counted: type[Counting]
) -> None:
    if container.name == "hdf5":
        pytest.importorskip("h5py", reason="h5py is not installed")
    containers.embed(source, tmp_path / "x", container=container.name)
    counted.total = 0
    assert container.sniff(tmp_path / "x")
    assert 0 < counted.total < OVERHEAD


def test_opening_a_concatenation_reads_only_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [nnc_core.encode({name: array}) for name, array in WEIGHTS.items()]
    (tmp_path / "x").write_bytes(b"".join(parts))
    sizes: list[int] = []
    real = stored._piece

    def piece(descriptor: int, size: int, start: int) -> bytes:
        sizes.append(size)
        return real(descriptor, size, start)

    monkeypatch.setattr(stored, "_piece", piece)
    concatenation = next(c for c in CONTAINERS if c.name == "concatenation")
    with concatenation.open(tmp_path / "x") as items:
        assert sum(sizes) < 2 * OVERHEAD * len(parts) < sum(map(len, parts))
        sizes.clear()
        assert items["w2"] == parts[2]
        assert sum(sizes) == len(parts[2])


def test_a_span_outside_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345678")
    with base.Source(tmp_path / "x") as source:
        assert source.read(2, 6) == b"345678"
        for span in ((3, 6), (-1, 2), (0, -1), (9, 0)):
            with pytest.raises(nnc_core.ModelError, match="not in a file of 8 bytes"):
                source.read(*span)


def test_a_file_that_shrinks_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345678")
    with base.Source(path) as source:
        path.write_bytes(b"1234")
        with pytest.raises(nnc_core.ModelError, match="shorter"):
            source.read(0, 8)
