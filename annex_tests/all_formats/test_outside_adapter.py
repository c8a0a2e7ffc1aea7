"""An adapter that knows nothing but what adapters/README.md says takes part in every command."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import nnc_adapters
from annex_tests.support.program import Nnc, checked
from nnc_adapters import registry
from nnc_adapters.base import DEFAULTS, Adapter, SourceModel, Topology
from nnc_adapters.shared.files import replacing
from nnc_adapters.shared.lazy import LazyTensors, check_names
from nnc_core import ModelError

_MAGIC = b"GRID\n"


class GridAdapter(Adapter):
    """A format that somebody made up: a line of JSON with the shape and role of each tensor, then float32 numbers."""

    name = "grid"
    suffixes = (".grid",)
    topology_storage_format = 201
    packages = ("json",)
    layout = "pytorch"

    def sniff(self, path: Path) -> bool:
        try:
            return path.read_bytes().startswith(_MAGIC)
        except OSError:
            return False

    def read(self, path: Path, options: Any = DEFAULTS) -> SourceModel:
        try:
            data = path.read_bytes()[len(_MAGIC) :]
            header, _, numbers = data.partition(b"\n")
            fetch, at = {}, 0
            for name, entry in json.loads(header).items():
                size = 4 * int(np.prod(entry["shape"]))
                array = np.frombuffer(numbers[at : at + size], "<f4").reshape(entry["shape"])
                fetch[name], at = (lambda array=array: array), at + size
        except (ValueError, LookupError, TypeError) as error:
            raise ModelError(f"not a grid: {error}", file=str(path)) from error
        return SourceModel(LazyTensors(fetch), Topology(self.topology_storage_format, header))

    def write(
        self, tensors: Any, topology: Topology, path: Path, options: Any = DEFAULTS, *, force: bool = False
    ) -> None:
        self.check(topology)
        shapes = json.loads(topology.data)
        check_names(tensors, shapes)
        with replacing(path, force=force) as stream:
            stream.write(_MAGIC + topology.data + b"\n")
            for name in shapes:
                stream.write(np.ascontiguousarray(tensors[name], "<f4").tobytes())

    def kinds(self, model: SourceModel) -> dict[str, str | None]:
        return {name: entry["role"] for name, entry in json.loads(model.topology.data).items()}


_RANDOM = np.random.default_rng(11)
WEIGHT = _RANDOM.normal(0, 0.3, (8, 24)).astype(np.float32)
BIAS = _RANDOM.normal(0, 0.3, 8).astype(np.float32)


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if a package with this adapter were installed."""
    monkeypatch.setitem(sys.modules, "somebodys_package", sys.modules[__name__])
    point = EntryPoint("grid", "somebodys_package:GridAdapter", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    registry.adapters.cache_clear()
    yield
    registry.adapters.cache_clear()


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    header = {"wide": {"shape": [8, 24], "role": "dense"}, "thin": {"shape": [8], "role": "bias"}}
    path = tmp_path / "model.grid"
    path.write_bytes(_MAGIC + json.dumps(header).encode() + b"\n" + WEIGHT.tobytes() + BIAS.tobytes())
    return path


@pytest.fixture
def keras(tmp_path: Path) -> Path:
    path = tmp_path / "template.h5"
    with h5py.File(path, "w") as file:
        file["layers/dense/vars/0"] = np.zeros((24, 8), np.float32)
        file["layers/dense/vars/1"] = np.zeros(8, np.float32)
    return path


@pytest.fixture
def nnc() -> Nnc:
    return checked


def test_it_compresses_and_decompresses(grid: Path, nnc: Any) -> None:
    before = grid.read_bytes()
    nnc("compress", grid)
    grid.unlink()
    nnc("decompress", grid.with_suffix(".nnr"))
    after = grid.read_bytes()
    assert len(after) == len(before)
    assert after[: before.index(b"}}") + 2] == before[: before.index(b"}}") + 2]
    np.testing.assert_allclose(GridAdapter().read(grid).tensors["wide"], WEIGHT, atol=0.05)


def test_its_weights_go_into_an_existing_file(grid: Path, nnc: Any) -> None:
    nnc("compress", grid)
    nnc("decompress", grid.with_suffix(".nnr"), "--into", grid, "-o", grid.with_name("other.grid"))
    np.testing.assert_allclose(GridAdapter().read(grid.with_name("other.grid")).tensors["wide"], WEIGHT, atol=0.05)


def test_its_tensors_are_exported_and_loaded(grid: Path, nnc: Any) -> None:
    nnc("compress", grid)
    nnc("decompress", grid.with_suffix(".nnr"), "-o", grid.with_suffix(".npz"))
    assert list(np.load(grid.with_suffix(".npz"))) == ["wide", "thin"]
    assert nnc_adapters.load_tensors(grid.with_suffix(".nnr"))["thin"].shape == (8,)


def test_it_is_inspected_and_verified(grid: Path, nnc: Any) -> None:
    nnc("compress", grid)
    assert "wide" in nnc("inspect", grid.with_suffix(".nnr")).stdout
    report = json.loads(nnc("verify", grid, grid.with_suffix(".nnr"), "--json").stdout)
    assert report["accepted"]
    assert report["topology"] == "equal"


def test_it_is_converted_with_its_axes_turned(grid: Path, keras: Path, nnc: Any) -> None:
    target = keras.with_name("out.h5")
    nnc("convert", grid, target, "--into", keras, "--no-check")
    with h5py.File(target) as file:
        np.testing.assert_array_equal(file["layers/dense/vars/0"][()], WEIGHT.T)
        np.testing.assert_array_equal(file["layers/dense/vars/1"][()], BIAS)
    nnc("convert", target, grid.with_name("back.grid"), "--into", grid, "--no-check")
    np.testing.assert_array_equal(GridAdapter().read(grid.with_name("back.grid")).tensors["wide"], WEIGHT)


def test_it_is_listed_among_the_formats(nnc: Any) -> None:
    (line,) = (entry for entry in json.loads(nnc("formats", "--json").stdout) if entry["name"] == "grid")
    assert (line["kind"], line["suffixes"], line["installed"]) == ("model", [".grid"], True)
