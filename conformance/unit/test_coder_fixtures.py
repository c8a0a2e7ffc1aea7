"""Bitstreams that an earlier version wrote still decode to the same arrays, bit for bit; see make_fixtures.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnc_core
from conformance.fixtures.make import CASES, FIXTURES
from nnc_core import NnrFile, Topology
from nnc_core.tables.code_points import TopologyStorageFormat

NAMES = sorted(path.stem for path in FIXTURES.glob("*.nnr"))


@pytest.mark.parametrize("name", NAMES)
def test_a_frozen_bitstream_decodes_to_the_same_arrays(name: str) -> None:
    decoded = list(nnc_core.decode((FIXTURES / f"{name}.nnr").read_bytes()).values())
    with np.load(FIXTURES / f"{name}.npz") as archive:
        expected = [archive[str(number)] for number in range(len(archive.files))]
    assert len(decoded) == len(expected)
    for found, wanted in zip(decoded, expected, strict=True):
        assert (found.dtype, found.shape, found.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_an_encoder_of_today_writes_tensors_of_the_same_names_types_and_shapes(case: Callable[[], bytes]) -> None:
    """Not the same bytes, nor the same values where the quantizer has a choice."""
    frozen = nnc_core.decode((FIXTURES / f"{case.__name__}.nnr").read_bytes())
    today = nnc_core.decode(case())
    assert described(today) == described(frozen)


def described(tensors: dict[str, NDArray[Any]]) -> list[tuple[str, np.dtype[Any], tuple[int, ...]]]:
    return [(name, array.dtype, array.shape) for name, array in tensors.items()]


def test_all_fixtures_are_there_and_small() -> None:
    assert {case.__name__ for case in CASES} == set(NAMES)
    assert sum(path.stat().st_size for path in FIXTURES.iterdir()) < 50_000


def test_frozen_descriptions_come_back() -> None:
    topologies = {name: NnrFile((FIXTURES / f"{name}.nnr").read_bytes()).topology for name in NAMES}
    assert {name: topology for name, topology in topologies.items() if topology} == {
        "description": Topology(TopologyStorageFormat.NNR_TPL_ONNX, 40 * b"a description of the graph; "),
        "plain_description": Topology(TopologyStorageFormat.NNR_TPL_UNREC, b"\x00\xff"),
    }


def test_the_frozen_bitstreams_use_what_they_were_made_for() -> None:
    files = {name: NnrFile((FIXTURES / f"{name}.nnr").read_bytes()) for name in NAMES}
    assert files["base_tools"].bitstream.general_profile_idc == 0
    assert [tensor.scan_order for tensor in files["scans"].tensors.values()] == 2 * [0, 1, 2, 3, 4]
    assert [tensor.dq_flag for tensor in files["scans"].tensors.values()] == 5 * [False] + 5 * [True]
    assert {tensor.payload_type for tensor in files["raw"].tensors.values()} == {"NNR_PT_RAW_FLOAT"}
    assert [tensor.qp for tensor in files["quantization"].tensors.values()] == [-250, -800, -300, -300, -300, -300]
    assert {tensor.dtype for tensor in files["types"].tensors.values()} >= {"float16", "float64", "int8", "int64"}
