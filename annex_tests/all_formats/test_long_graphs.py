"""A graph of many nodes takes work in proportion to their number: steps are counted, as time depends on the machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from annex_tests.support.handmade_tensorflow import message
from annex_tests.support.hostile_nnef import GOOD, tar_of, text_of
from nnc_adapters import registry

WEIGHT = np.random.default_rng(0).normal(0, 0.02, (8, 8)).astype(np.float32)
FEW, TIMES = 60, 8

Nodes = Iterator[tuple[str, tuple[str, ...], str]]
"""What each node does, what with, and what it is called."""


def chain(kind: str, count: int) -> Nodes:
    """Each node goes on from the one before."""
    yield "MatMul", ("x", "w"), "n0"
    for number in range(count):
        yield kind, (f"n{number}",), f"n{number + 1}"
    yield "Relu", (f"n{count}",), "y"


def star(kind: str, count: int) -> Nodes:
    """All nodes use the weight."""
    for number in range(count):
        yield kind, ("w",), f"n{number}"
    yield "MatMul", ("x", "w"), "y"


def ladder(kind: str, count: int) -> Nodes:
    """There are two ways at each step, and so 2 ** count to the end."""
    yield "MatMul", ("x", "w"), "n0"
    for number in range(count):
        yield kind, (f"n{number}",), f"a{number}"
        yield "Add", (f"n{number}", f"a{number}"), f"n{number + 1}"
    yield "Relu", (f"n{count}",), "y"


def onnx_file(nodes: Nodes, folder: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    from annex_tests.support.onnx_models import model_of

    made = [onnx.helper.make_node(kind, list(inputs), [name]) for kind, inputs, name in nodes]
    onnx.save(model_of(made, {"w": WEIGHT}), folder / "m.onnx")
    return folder / "m.onnx"


def frozen_graph(nodes: Nodes, folder: Path) -> Path:
    shape = message(*((2, message((1, size))) for size in WEIGHT.shape))
    tensor = message((1, 1), (2, shape), (4, WEIGHT.tobytes()))
    value = message((1, b"value"), (2, message((8, tensor))))
    made = [message((1, b"x"), (2, b"Placeholder")), message((1, b"w"), (2, b"Const"), (5, value))]
    for kind, inputs, name in nodes:
        made.append(message((1, name.encode()), (2, kind.encode()), *((3, each.encode()) for each in inputs)))
    (folder / "m.pb").write_bytes(message(*((1, each) for each in made)))
    return folder / "m.pb"


def nnef_archive(nodes: Nodes, folder: Path) -> Path:
    words = {"MatMul": "matmul", "Identity": "copy"}
    lines = [f"{name} = {words.get(kind, kind.lower())}({', '.join(inputs)});" for kind, inputs, name in nodes]
    text = text_of("w", body="\n".join(lines).replace("(w", "(v0").replace(", w", ", v0"))
    (folder / "m.nnef.tar").write_bytes(tar_of(("graph.nnef", text), GOOD[1]))
    return folder / "m.nnef.tar"


def steps(work: Callable[[], object]) -> int:
    """How many lines and calls of Python ``work`` takes."""
    taken = 0

    def note(*_: object) -> object:
        nonlocal taken
        taken += 1
        return note

    before = sys.gettrace()
    sys.settrace(note)
    try:
        work()
    finally:
        sys.settrace(before)
    return taken


@pytest.mark.parametrize(
    ("form", "kind"),
    [(chain, "Relu"), (chain, "QuantizeLinear"), (star, "Identity"), (ladder, "Identity"), (ladder, "Mul")],
)
@pytest.mark.parametrize("written", [onnx_file, frozen_graph, nnef_archive])
def test_steps_grow_as_the_graph_does(
    written: Callable[[Nodes, Path], Path], form: Callable[[str, int], Nodes], kind: str, tmp_path: Path
) -> None:
    def taken(count: int) -> int:
        path = written(form(kind, count), tmp_path)
        adapter = registry.find(path)

        def work() -> None:
            model = adapter.read(path)
            adapter.write(model.tensors, model.topology, tmp_path / f"{count}-{path.name}", force=True)

        work()  # what is imported and remembered counts in neither
        return steps(work)

    assert taken(TIMES * FEW) < 1.8 * TIMES * taken(FEW)  # some steps are worthwhile for many only
