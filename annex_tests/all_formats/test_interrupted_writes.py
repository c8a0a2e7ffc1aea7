"""A kill at any moment of a write leaves the old model or the new one, complete."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import nnc_core
from annex_tests.support.program import Killable, killable
from conformance.support.shared import shared
from nnc_adapters import registry

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked and killed")

ROOT = Path(__file__).parents[2]
KILLS = 30
MOST_KILLS = 600
QP = {"old": "-38", "new": "-30"}


@pytest.fixture(scope="module")
def nnc() -> Iterator[Killable]:
    with killable() as run:
        yield run


def weights() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(3)
    return {f"w{number}": generator.laplace(0, 0.02, (400, 200)).astype(np.float32) for number in range(4)}


@pytest.fixture(scope="module")
def onnx_model(tmp_path_factory) -> Path:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    nodes = [helper.make_node("MatMul", ["x", name], [f"y{name}"]) for name in weights()]
    inputs = [helper.make_tensor_value_info("x", 1, [1, 400])]
    outputs = [helper.make_tensor_value_info(f"y{name}", 1, [1, 200]) for name in weights()]
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in weights().items()]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializers)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def safetensors_model(tmp_path_factory) -> Path:
    header, at = {}, 0
    for name, array in weights().items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    path = tmp_path_factory.mktemp("safetensors") / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(a.tobytes() for a in weights().values()))
    return path


@pytest.fixture(scope="module")
def saved_model() -> Path:
    return shared("models/kws_saved_model")


Files = dict[str, bytes]


def files(path: Path) -> Files:
    """Everything in a folder or a file, by name."""
    found = [path, *path.rglob("*")] if path.is_dir() else [path]
    return {file.relative_to(path).as_posix(): b"" if file.is_dir() else file.read_bytes() for file in found}


def with_external_data(path: Path) -> Files:
    """A model with the data that it refers to, as one file would have them: their file may have any name."""
    import onnx

    return {"": onnx.load(path).SerializeToString(deterministic=True)}


def load(path: Path) -> None:
    """Every tensor of a model or of a bitstream; raises where it is not complete."""
    if path.suffix == ".nnr":
        assert nnc_core.decode(path.read_bytes(), threads=1)
        return
    tensors = registry.find(path).read(path).tensors
    assert all(np.isfinite(tensors[name]).all() for name in tensors)


@dataclass
class Case:
    """A target in a folder of its own, and how to write it in its old and its new state."""

    target: Path
    command: Callable[[str], list[str]]
    content: Callable[[Path], Files] = files

    def leftovers(self) -> list[Path]:
        return [path for path in self.target.parent.iterdir() if path.name != self.target.name]

    def clear(self) -> None:
        for path in [*self.leftovers(), self.target]:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def state(case: Case, nnc: Killable, which: str) -> tuple[Files, float]:
    """Bring the target into a state from nothing; returns its content, and the seconds that it took."""
    case.clear()
    seconds = nnc(*case.command(which))["seconds"]
    load(case.target)
    return case.content(case.target), seconds


def kill_often(case: Case, nnc: Killable, seed: int) -> None:
    """Kill many times, and until a write is hit; how long one takes varies with the load, and is learned on the way."""
    new, _ = state(case, nnc, "new")
    old, _ = state(case, nnc, "old")
    assert old != new
    seconds = nnc(*case.command("new"))["seconds"]
    assert case.content(case.target) == new
    moments = random.Random(seed)
    state(case, nnc, "old")
    inside = kills = 0
    while kills < KILLS or not inside:
        assert kills < MOST_KILLS, "no kill hit a write"
        kills += 1
        before = {path.name for path in case.leftovers()}
        killed = nnc(*case.command("new"), seconds=moments.uniform(0, 1.1) * seconds)["killed"]
        found = case.content(case.target)
        assert found in (old, new)
        assert killed or found == new
        left = [path.name for path in case.leftovers()]
        assert all(is_leftover(name, case) for name in left)
        inside += killed and not before.issuperset(left)
        seconds *= 1.1 if killed else 0.9
        if found == new:
            state(case, nnc, "old")


def is_leftover(name: str, case: Case) -> bool:
    """Whether nobody would take a file for the model: it is one of ours under way, or data that a model refers to."""
    data = re.fullmatch(re.escape(case.target.name) + r"(\.\d+)?\.data", name)
    return bool(re.fullmatch(r"\.nnc-[0-9a-f]{16}\.tmp", name)) or (case.content is with_external_data and bool(data))


@pytest.fixture
def restoring(nnc: Killable, tmp_path_factory) -> Callable[..., Case]:
    """The case of a model that is restored from bitstreams of two qualities."""

    def make(model: Path, command: str = "decompress", content: Callable[[Path], Files] = files) -> Case:
        folder = tmp_path_factory.mktemp("bitstreams")
        for which, qp in QP.items():
            nnc("compress", model, "-o", f"{folder}/{which}.nnr", "--qp", qp, "--threads", "1")
        target = tmp_path_factory.mktemp("target") / model.name

        def arguments(which: str) -> list[str]:
            if command == "external":
                return [command, f"{folder}/{which}.nnr", str(target)]
            return [command, f"{folder}/{which}.nnr", "-o", str(target), "-f", "--threads", "1"]

        return Case(target, arguments, content)

    return make


def test_killed_compressing_into_a_bitstream(nnc, onnx_model, tmp_path):
    target = tmp_path / "model.nnr"
    options = ["-o", str(target), "-f", "--threads", "1"]
    kill_often(Case(target, lambda which: ["compress", str(onnx_model), *options, "--qp", QP[which]]), nnc, 1)


def test_killed_writing_an_onnx_file(nnc, onnx_model, restoring):
    kill_often(restoring(onnx_model), nnc, 2)


def test_killed_writing_an_onnx_file_with_external_data(nnc, onnx_model, restoring):
    kill_often(restoring(onnx_model, "external", with_external_data), nnc, 3)


def test_killed_writing_a_safetensors_file(nnc, safetensors_model, restoring):
    kill_often(restoring(safetensors_model), nnc, 4)


def test_killed_writing_a_saved_model(nnc, saved_model, restoring):
    kill_often(restoring(saved_model), nnc, 5)
