"""A kill at any moment leaves model, update and state each old or new and complete; the same command then finishes."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from annex_tests.support.program import Killable, killable
from nnc_core.updates import load_chain

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be forked and killed")

ROOT = Path(__file__).parents[2]
KILLS = 12


@pytest.fixture(scope="module")
def nnc() -> Iterator[Killable]:
    with killable() as run:
        yield lambda *arguments, **when: run(*arguments, "--threads", "1", **when)


def versions(folder: Path) -> list[Path]:
    rng, paths = np.random.default_rng(0), []
    weights = {f"w{number}": rng.normal(0, 0.1, (60, 50)).astype(np.float32) for number in range(4)}
    for number in range(3):
        paths.append(folder / f"v{number}.safetensors")
        safetensors.numpy.save_file(weights, paths[-1])
        weights = {name: w + rng.normal(0, 1e-3, w.shape).astype(np.float32) for name, w in weights.items()}
    return paths


@pytest.mark.parametrize(("what", "exact"), [("diff", ["--exact"]), ("patch", [])])
def test_a_killed_command_leaves_whole_files_and_can_be_repeated(
    nnc: Killable, tmp_path: Path, what: str, exact: list[str]
) -> None:
    base, first, second = versions(tmp_path)
    updates, here = [tmp_path / "u1.nnr", tmp_path / "u2.nnr"], tmp_path / "r1.safetensors"
    sender, receiver = tmp_path / "sender", tmp_path / "receiver"
    nnc("diff", base, first, "-o", updates[0], "--state", sender, *exact)
    nnc("patch", base, updates[0], "-o", here, "--state", receiver)
    state, target = (sender, updates[1]) if what == "diff" else (receiver, tmp_path / "r2.safetensors")
    old = state.read_bytes()
    if what == "patch":
        nnc("diff", here, second, "-o", updates[1], "--state", sender, *exact)

    def run(seconds: float | None = None) -> dict[str, Any]:
        arguments = (here, second) if what == "diff" else (here, updates[1])
        return nnc(
            what, *arguments, "-o", target, "-f", "--state", state, *(exact if what == "diff" else []), seconds=seconds
        )

    took = run()["seconds"]
    right = target.read_bytes(), state.read_bytes()
    moments, hits = random.Random(1), 0
    for _ in range(KILLS):
        state.write_bytes(old)
        target.unlink(missing_ok=True)
        hits += run(moments.uniform(0, took))["killed"]
        assert not target.exists() or target.read_bytes() == right[0]
        assert state.read_bytes() in (old, right[1])
        load_chain(state)
        if state.read_bytes() == old:  # else there is nothing left to do
            run()
        assert (target.read_bytes(), state.read_bytes()) == right
    assert hits


def test_a_state_that_lost_its_last_bytes_is_refused(nnc: Killable, tmp_path: Path) -> None:
    from nnc_core import ModelError

    base, first, _ = versions(tmp_path)
    nnc("diff", base, first, "-o", tmp_path / "u.nnr", "--state", tmp_path / "s")
    data = (tmp_path / "s").read_bytes()
    for size in (0, 1, len(data) // 2, len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:size])
        with pytest.raises(ModelError):
            load_chain(tmp_path / "cut")
    shutil.copy(tmp_path / "s", tmp_path / "whole")
    load_chain(tmp_path / "whole")
