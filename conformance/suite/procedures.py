"""The procedures of ISO/IEC 15938-18: a decoder is outcomes_of with the bitstreams of the suite (4.5)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from suite.decoders import CrashedError, Decoder, RefusedError, UnsupportedError
from suite.files import MODEL_INFO, Folder, load
from suite.rows import Row

Arrays = Mapping[str, NDArray[Any]]

TOLERANCE = 1e-6
"""How much floats may differ (4.5.2)."""
PASSED, FAILED, UNSUPPORTED = "passed", "failed", "unsupported"


@dataclass
class Outcome:
    """What became of a row; a difference names the bitstream, the tensor, and the first position in it."""

    row: Row
    status: str = PASSED
    reason: str = ""
    stream: str = ""
    tensor: str = ""
    position: tuple[int, ...] | None = None
    seconds: float = 0.0
    described: bool = True

    @property
    def message(self) -> str:
        """The reason in one line."""
        place = f" {self.tensor}" * bool(self.tensor) + f"{list(self.position)}" * (self.position is not None)
        return f"{self.stream}{place}: {self.reason}" if self.reason else ""


@dataclass(frozen=True)
class Difference:
    """Where a decoder's result first differs from what is expected."""

    tensor: str
    reason: str
    position: tuple[int, ...] | None = None


def outcomes_of(
    decoder: Decoder, rows: Iterable[Row], folder: Folder, tolerance: float = TOLERANCE
) -> Iterator[Outcome]:
    """Test a decoder with the rows, one after another."""
    for row in rows:
        outcome, start = Outcome(row), time.perf_counter()
        _test(decoder, outcome, folder, tolerance)
        outcome.seconds = time.perf_counter() - start
        yield outcome


def _test(decoder: Decoder, outcome: Outcome, folder: Folder, tolerance: float) -> None:
    row = outcome.row
    with decoder.session(row) as session:
        for name in row.files:
            outcome.stream = name
            beside = folder.out_of_band(name) if row.out_of_band else None
            try:
                found = session.decode(folder.stream(name), beside)
            except UnsupportedError as error:
                outcome.status, outcome.reason = UNSUPPORTED, str(error)
                return
            except (RefusedError, CrashedError) as error:
                outcome.status, outcome.reason = FAILED, str(error)
                return
            expected = load(folder.expected(name))
            outcome.described = _describes(found) or not _describes(expected)
            if difference := first_difference(expected, found, tolerance):
                outcome.status, outcome.reason = FAILED, difference.reason
                outcome.tensor, outcome.position = difference.tensor, difference.position
                return


def _describes(arrays: Arrays) -> bool:
    return any(name.startswith(MODEL_INFO) for name in arrays)


def first_difference(expected: Arrays, found: Arrays, tolerance: float = TOLERANCE) -> Difference | None:
    """Compare tensors: integers and text identical, floats within the tolerance.

    What a bitstream says of the model beside its tensors counts only if the decoder returns any of it.
    """
    if not _describes(found):
        expected = {name: array for name, array in expected.items() if not name.startswith(MODEL_INFO)}
    for name in expected:
        if name not in found:
            return Difference(name, "is missing")
        if difference := _difference(name, expected[name], found[name], tolerance):
            return difference
    strange = next((name for name in found if name not in expected), None)
    return Difference(strange, "is not in the bitstream") if strange is not None else None


def _difference(name: str, expected: NDArray[Any], found: NDArray[Any], tolerance: float) -> Difference | None:
    if expected.shape != found.shape:
        return Difference(name, f"has shape {found.shape}, expected {expected.shape}")
    if _kind(expected) != _kind(found):
        return Difference(name, f"has {found.dtype} values, expected {expected.dtype}")
    wrong = ~_equal(expected, found, tolerance)
    if not wrong.any():
        return None
    position = tuple(int(index) for index in np.argwhere(wrong)[0])
    return Difference(name, f"is {found[position]}, expected {expected[position]}", position)


def _kind(array: NDArray[Any]) -> str:
    return "integer" if array.dtype.kind in "iu" else array.dtype.kind


def _equal(expected: NDArray[Any], found: NDArray[Any], tolerance: float) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = expected == found
    if expected.dtype.kind == "f":
        with np.errstate(invalid="ignore"):
            same |= abs(expected.astype(np.float64) - found.astype(np.float64)) <= tolerance
        same |= np.isnan(expected) & np.isnan(found)
    return same
