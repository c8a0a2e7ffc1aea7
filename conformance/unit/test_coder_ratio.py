"""What coding saves: pinned sizes, and tools that must not cost more than they save."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnc_core
from conformance.bench import sizes
from nnc_core import CodingParameters


def size(array: NDArray[Any], **parameters: Any) -> int:
    return len(nnc_core.encode({"w": array}, parameters=CodingParameters(**parameters)))


def test_the_sizes_are_those_that_are_pinned() -> None:
    """After a change that is meant to alter sizes: ``python -m conformance.bench.sizes``, and commit the difference."""
    assert sizes.table() == sizes.PINNED.read_text()


def test_the_pinned_sizes_show_what_the_tools_are_good_for() -> None:
    header, *rows = [line.split(",") for line in sizes.PINNED.read_text().splitlines()]
    assert tuple(header) == sizes.COLUMNS
    table = [dict(zip(header, (int(field or 0) for field in row), strict=True)) for row in rows]
    assert len({tuple(row[name] for name in sizes.COLUMNS[:7]) for row in table}) == len(table)
    for row in table:
        assert row["sparse"] < row["dense"]
    for without, optimised in zip(table[0:12:2], table[1:12:2], strict=True):
        assert (without["param_opt"], optimised["param_opt"]) == (0, 1)
        assert all(optimised[model] <= without[model] for model in ("dense", "sparse", "vectors"))


# --- rows and contexts -----------------------------------------------------------------------------------------------


def rows(kept: float, *shape: int) -> NDArray[np.float32]:
    """A tensor of which about ``kept`` of the rows are not zero."""
    array = sizes.bell(5, *shape)
    array[np.random.default_rng(5).random(shape[0]) >= kept] = 0
    return array


@pytest.mark.parametrize("shape", [(200, 28), (60, 4, 3, 3), (100, 500)])
@pytest.mark.parametrize("dq_flag", [False, True])
@pytest.mark.parametrize("scan_order", [0, 2])
def test_skipping_rows_makes_a_tensor_with_zero_rows_smaller(
    shape: tuple[int, ...], dq_flag: bool, scan_order: int
) -> None:
    array = rows(0.4, *shape)
    parameters: dict[str, Any] = {"qp": -20, "dq_flag": dq_flag, "scan_order": scan_order}
    assert size(array, **parameters) < size(array, row_skip_enabled_flag=False, **parameters)


@pytest.mark.parametrize("kept", [0, 0.05, 0.3, 0.6, 0.95, 1])
@pytest.mark.parametrize("shape", [(2, 2), (5, 3), (64, 2), (30, 40), (300, 9)])
@pytest.mark.parametrize("qp", [-40, -20, 0])
def test_skipping_rows_never_makes_a_tensor_larger(shape: tuple[int, ...], kept: float, qp: int) -> None:
    array = rows(kept, *shape)
    assert size(array, qp=qp) <= size(array, qp=qp, row_skip_enabled_flag=False)


DISTRIBUTIONS = ("normal", "laplace", "uniform", "heavy", "sparse", "positive", "constant", "zero", "two", "ramp")


def distributed(distribution: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
    rng = np.random.default_rng(9)
    ramp = np.linspace(-1, 1, int(np.prod(shape))).reshape(shape)
    array = {
        "normal": rng.normal(0, 1, shape),
        "laplace": rng.laplace(0, 1, shape),
        "uniform": rng.uniform(-1, 1, shape),
        "heavy": rng.standard_cauchy(shape).clip(-1e4, 1e4),
        "sparse": rng.normal(0, 1, shape) * (rng.random(shape) < 0.1),
        "positive": np.abs(rng.normal(0, 1, shape)),
        "constant": np.ones(shape),
        "zero": np.zeros(shape),
        "two": rng.integers(0, 2, shape) * 2 - 1,
        "ramp": ramp,
    }[distribution]
    return array.astype(np.float32)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("shape", [(3,), (64,), (1000,), (8, 8), (64, 9), (100, 100)])
def test_optimised_contexts_never_make_a_tensor_larger(distribution: str, shape: tuple[int, ...]) -> None:
    array = distributed(distribution, shape)
    for qp in (-40, -20, 0):
        for dq_flag in (False, True):
            parameters: dict[str, Any] = {"qp": qp, "nonweight_qp": qp, "dq_flag": dq_flag}
            assert size(array, **parameters) <= size(array, param_opt_flag=False, **parameters)


def test_optimised_contexts_make_a_large_tensor_smaller() -> None:
    array = sizes.bell(6, 200, 200)
    assert size(array, qp=-26) < 0.995 * size(array, qp=-26, param_opt_flag=False)


def test_no_tensor_of_floats_takes_more_than_its_bytes_and_a_header() -> None:
    for scale in (1.0, 1e4, 1e9, 1e30):
        array = sizes.bell(7, 60, 10) * np.float32(scale)
        assert size(array) <= array.nbytes + 40


def test_a_scan_in_blocks_costs_little_in_its_entry_points() -> None:
    array = sizes.bell(8, 300, 100)
    plain = size(array, qp=-26)
    for scan_order in range(1, 5):
        assert abs(size(array, qp=-26, scan_order=scan_order) - plain) < 0.03 * plain


def test_the_base_tool_set_is_not_much_larger_than_the_extended_one() -> None:
    model = dict(sizes.dense())
    p = CodingParameters(qp=-26)
    extended, base = (
        len(nnc_core.encode(model, parameters=replace(p, general_profile_idc=profile))) for profile in (1, 0)
    )
    assert abs(base - extended) < 0.05 * extended
