"""Descriptions are deflated: zlib by default, with zopfli on request where it is installed; the default needs none."""

from __future__ import annotations

import sys
import types
import zlib

import numpy as np
import pytest

import nnc_core
from nnc_core import CodingParameters, ModelPlan, SourceModel
from nnc_core.nnr_model import Topology
from nnc_core.syntax.deflate import deflate

TEXT = b"".join(b'{"name": "layer.%d.weight", "shape": [%d, 64]}' % (i, i * i) for i in range(300))
MODEL = SourceModel({"w": np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30)}, Topology(200, TEXT))


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What a package that is called like zopfli was given; its streams are longer by the size of a block."""
    given: list[bytes] = []

    def compress(data: bytes) -> bytes:
        given.append(data)
        stream = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_FILTERED)
        return stream.compress(data) + stream.flush()

    package = types.ModuleType("zopfli")
    package.zlib = types.SimpleNamespace(compress=compress)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zopfli", package)
    monkeypatch.setitem(sys.modules, "zopfli.zlib", package.zlib)
    return given


@pytest.mark.parametrize("level", range(1, 10))
def test_zopfli_is_asked_at_high_levels_only(packed: list[bytes], level: int) -> None:
    coded = nnc_core.encode(MODEL, parameters=CodingParameters(level=level))
    assert packed == ([TEXT] if level >= 8 else [])
    with nnc_core.NnrFile(coded) as file:
        assert file.topology is not None
        assert file.topology.data == TEXT


@pytest.mark.parametrize("level", [5, 9])
def test_without_zopfli_every_level_works(monkeypatch: pytest.MonkeyPatch, level: int) -> None:
    monkeypatch.setitem(sys.modules, "zopfli", None)
    monkeypatch.setitem(sys.modules, "zopfli.zlib", None)
    with nnc_core.NnrFile(nnc_core.encode(MODEL, parameters=CodingParameters(level=level))) as file:
        assert file.topology is not None
        assert file.topology.data == TEXT


def test_the_shorter_stream_is_taken(packed: list[bytes]) -> None:
    data = bytes(np.random.default_rng(1).integers(0, 30, 5000, np.uint8))
    assert zlib.decompress(deflate(data, thorough=True)) == data
    assert packed == [data]
    assert len(deflate(data, thorough=True)) <= len(deflate(data))


def test_large_descriptions_are_not_searched_for_minutes(packed: list[bytes]) -> None:
    deflate(bytes((1 << 23) + 1), thorough=True)
    assert not packed


def test_a_plan_remembers_how_descriptions_are_deflated() -> None:
    plan = nnc_core.plan(MODEL, CodingParameters(level=9))
    assert plan.thorough
    assert ModelPlan.from_json(plan.to_json()) == plan
    assert not nnc_core.plan(MODEL).thorough


def test_zopfli_makes_shorter_streams() -> None:
    pytest.importorskip("zopfli", reason="zopfli is not installed")
    packed = deflate(TEXT, thorough=True)
    assert zlib.decompress(packed) == TEXT
    assert len(packed) < len(deflate(TEXT))
