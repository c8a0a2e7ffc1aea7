"""Models of hundreds of tiny or repeated tensors, and every case, take no more than deflated."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import nnc_adapters
from conformance.support.shared import SHARED
from nnc_adapters.shared.thrift import Candidate, paying

Array = NDArray[np.generic]
Tensors = dict[str, Array]

CASES = SHARED / "cases"
MOST = 200
RNG = np.random.default_rng(29)
POOL = RNG.standard_normal(2048)


def normal(size: int) -> NDArray[np.float64]:
    return RNG.standard_normal(size)


def repeated(size: int) -> NDArray[np.float64]:
    return np.resize(POOL, size)


def ones(size: int) -> NDArray[np.float64]:
    return np.ones(size)


def few(size: int) -> NDArray[np.float64]:
    return RNG.choice([0.1, 0.2, 1.7], size)


def vectors(count: int, sizes: tuple[int, int], dtype: str, values: Callable[[int], NDArray[np.float64]]) -> Tensors:
    names = (f"layers.{i // 4}.norm{i % 2}.{('weight', 'bias', 'mean', 'var')[i % 4]}" for i in range(count))
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    return {name: values(int(RNG.integers(*sizes, endpoint=True))).astype(kind) for name in names}


def save_torch(path: Path, tensors: Tensors) -> Path:
    state = {n: torch.tensor(array.astype("f4")).to(getattr(torch, array.dtype.name)) for n, array in tensors.items()}
    torch.save(state, path)
    return path


def save_onnx(path: Path, tensors: Tensors) -> Path:
    nodes = [helper.make_node("Identity", [name], [f"out{i}"]) for i, name in enumerate(tensors)]
    weights = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    outputs = [helper.make_empty_tensor_value_info("out0")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], outputs, weights)), path)
    return path


FORMATS = {"m.pt": save_torch, "m.onnx": save_onnx}
FAMILIES: list[tuple[int, tuple[int, int], str, Callable[[int], NDArray[np.float64]]]] = [
    (300, (1, 16), "float32", normal),
    (300, (16, 16), "float32", normal),
    (300, (64, 64), "float32", normal),
    (300, (17, 40), "float32", repeated),
    (300, (16, 64), "float32", ones),
    (300, (64, 64), "float16", few),
    (300, (16, 16), "bfloat16", normal),
    (40, (256, 300), "float64", repeated),
    (40, (256, 300), "int8", few),
    (20, (2000, 2048), "float32", repeated),
]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f"{f[0]} of {f[1]} {f[2]} {f[3].__name__}")
def test_many_small_tensors_take_no_more_than_deflated(
    tmp_path: Path, name: str, family: tuple[int, tuple[int, int], str, Callable[[int], NDArray[np.float64]]]
) -> None:
    tensors = vectors(*family)
    path = FORMATS[name](tmp_path / name, tensors)
    assert coded(path, tmp_path) <= deflated(path) + MOST
    restored = nnc_adapters.load_tensors(tmp_path / "m.nnr")
    assert restored.keys() == tensors.keys()


def test_a_large_weight_keeps_small_tensors_beside_it_coded(tmp_path: Path) -> None:
    tensors = {"weight": normal(1 << 16).astype("f4").reshape(256, 256), **vectors(40, (16, 16), "float32", normal)}
    path = save_torch(tmp_path / "m.pt", tensors)
    report = nnc_adapters.compress(path, tmp_path / "m.nnr")
    assert report.tensors == len(tensors)


def test_beside_large_weights_no_values_are_read_to_choose() -> None:
    def load() -> Array:
        raise AssertionError("the large weights make up for whatever small tensors take")

    small = {i: Candidate(f"norm{i}.weight", "float32", (64,), load) for i in range(100)}
    candidates = {**small, 100: Candidate("embedding", "float32", (4096, 64), load)}
    assert paying(candidates) == frozenset(candidates)


@pytest.mark.parametrize("copied", [True, False])
def test_copies_of_a_neighbour_are_not_coded(copied: bool) -> None:
    matrices = RNG.standard_normal((20, 48, 48)).astype("f4")
    arrays = [matrices[0] if copied else matrix for matrix in matrices]
    candidates = {i: Candidate(f"w{i}", "float32", a.shape, partial(np.copy, a)) for i, a in enumerate(arrays)}
    assert len(paying(candidates)) == (0 if copied else len(arrays))


def cases() -> Iterator[Path]:
    for kind in sorted(CASES.iterdir()) if CASES.is_dir() else ():
        yield from sorted(kind.iterdir()) if kind.is_dir() else ()


def deflated(path: Path) -> int:
    files = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    whole = b"".join(each.read_bytes() for each in files)
    return min(len(whole), len(zlib.compress(whole, 9)))


def coded(path: Path, folder: Path) -> int:
    nnc_adapters.compress(path, folder / "m.nnr", opaque=True, force=True)
    return (folder / "m.nnr").stat().st_size


NOT_ONE_MODEL = ("external_data_named_nnr", "tied_external_ranges", "checkpoint_v1")


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not here")
def test_no_case_takes_more_than_deflated(tmp_path: Path) -> None:
    more = {p.name: coded(p, tmp_path) - deflated(p) for p in cases() if p.name not in NOT_ONE_MODEL}
    assert len(more) > 50
    assert {name: size for name, size in more.items() if size > MOST} == {}
