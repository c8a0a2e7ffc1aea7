"""The procedures of ISO/IEC 15938-18: a decoder is outcomes_of with the bitstreams of the suite (4.5)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conformance.negative.index import Negative, listed
from conformance.suite.decoders import CrashedError, Decoder, RefusedError, Session, UnsupportedError
from conformance.suite.files import MODEL_INFO, Folder, load
from conformance.suite.rows import Row

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
        stream = f"{self.stream}: " if self.stream and len(self.row.files) > 1 else ""
        position = "" if self.position is None else f"{list(self.position)}"
        place = f"{self.tensor}{position} " if self.tensor else ""
        return f"{stream}{place}{self.reason}" if self.reason else ""


@dataclass(frozen=True)
class Difference:
    """Where a decoder's result first differs from what is expected."""

    tensor: str
    reason: str
    position: tuple[int, ...] | None = None


def outcomes_of(
    decoder: Decoder,
    rows: Iterable[Row],
    folder: Folder,
    tolerance: float = TOLERANCE,
    reason_against: Callable[[Row], str | None] = lambda row: None,
) -> Iterator[Outcome]:
    """Test a decoder with the rows, one after another, but for those that it claims not to support."""
    for row in rows:
        if (reason := reason_against(row)) is not None:
            yield Outcome(row, UNSUPPORTED, reason)
            continue
        outcome, start = Outcome(row), time.perf_counter()
        _test(decoder, outcome, folder, tolerance)
        outcome.seconds = time.perf_counter() - start
        yield outcome


def _test(decoder: Decoder, outcome: Outcome, folder: Folder, tolerance: float) -> None:
    try:
        with decoder.session(outcome.row) as session:
            for name in outcome.row.files:
                outcome.stream = name
                _step(session, outcome, folder, tolerance)
                if outcome.status != PASSED:
                    return
    except UnsupportedError as error:
        outcome.status, outcome.reason = UNSUPPORTED, str(error)
    except (RefusedError, CrashedError) as error:
        outcome.status, outcome.reason = FAILED, str(error)


def _step(session: Session, outcome: Outcome, folder: Folder, tolerance: float) -> None:
    """Decode the next bitstream of a row, and compare."""
    beside = folder.out_of_band(outcome.stream) if outcome.row.out_of_band else None
    found, expected = session.decode(folder.stream(outcome.stream), beside), load(folder.expected(outcome.stream))
    outcome.described = _describes(found) or not _describes(expected)
    if difference := first_difference(expected, found, tolerance):
        outcome.status, outcome.reason = FAILED, difference.reason
        outcome.tensor, outcome.position = difference.tensor, difference.position


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


# --- bitstreams that break a rule -------------------------------------------------------------------------------------


@dataclass
class Refusal:
    """What a decoder made of a bitstream that breaks a rule."""

    negative: Negative
    status: str
    reason: str


def refusals(decoder: Decoder, folder: Path) -> Iterator[Refusal]:
    """Hand a decoder the negative bitstreams, which are written to ``folder``: it must refuse what is not optional."""
    folder.mkdir(parents=True, exist_ok=True)
    for negative in listed():
        if not negative.profile:  # that is for validators
            yield _refusal(decoder, negative, folder)


def _refusal(decoder: Decoder, negative: Negative, folder: Path) -> Refusal:
    (stream := folder / f"{negative.rule}.nctm").write_bytes(negative.data)
    beside = None
    if negative.beside:
        (beside := folder / f"{negative.rule}_oob.json").write_text(json.dumps(negative.beside))
    try:
        with decoder.session(None) as session:
            session.decode(stream, beside)
    except RefusedError as error:
        return Refusal(negative, PASSED, f"refused: {error}")
    except UnsupportedError as error:
        return Refusal(negative, PASSED, f"not supported: {error}")
    except CrashedError as error:
        return Refusal(negative, FAILED, f"{error}, expected a refusal (exit code 3)")
    return Refusal(negative, PASSED if negative.optional else FAILED, "accepted")
