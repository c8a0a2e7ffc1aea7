"""What the bitstreams of the suite exercise: syntax elements, code points, contexts, branches of the binarization.

Elements come from the syntax descriptions, code points from the tables of numbers, contexts from the layout of the
arithmetic coder, branches from the lines of the decoder in plain Python. What no bitstream exercises has a reason here.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from conformance.decoder import cabac, quant_tensor
from conformance.decoder.decode import Decoder
from conformance.decoder.state import State
from conformance.suite.elements import code_points, named_in_tables
from conformance.suite.files import Folder
from conformance.suite.rows import Row
from nnc_core.bitstream import Bitstream
from nnc_core.coder.bins import traced_bins
from nnc_core.coder.data import input_parameters_from_json
from nnc_core.coder.decoder import decode_unit
from nnc_core.coder.history import Histories
from nnc_core.entropy.contexts import Layout
from nnc_core.entropy.tracing import context_name

UNARY_LENGTH = 10
"""The number of abs_level_greater_x flags in most bitstreams; their contexts are looked at."""

_NEVER = "a base value that is not zero is at least 1"

REASONS: Mapping[str, str] = {
    "independently_decodable_flag = 0": "no unit here needs others of its kind; decoders do not look at it",
    "abs_level_greater_x_tca[1] = 0": _NEVER,
    "abs_level_greater_x_tca[1] = 1": _NEVER,
    "abs_level_greater_x_tca[3] = 0": _NEVER,
    "abs_level_greater_x_tca[3] = 1": _NEVER,
    "abs_level_greater_x2[30] = 1": "the level would have more than 32 bits",
}
"""What no bitstream exercises, and why."""


@dataclass
class Coverage:
    """By what is to be exercised, the rows that do."""

    elements: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    points: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    contexts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    lines: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def missing(self) -> list[str]:
        """What no row exercises, without a reason."""
        groups = (self.elements, self.points, self.contexts, self.lines)
        return [what for group in groups for what, rows in group.items() if not rows and what not in REASONS]

    def described(self) -> dict[str, dict[str, list[str]]]:
        """By group and what is to be exercised, the rows; or the reason why there are none."""
        groups = {name: getattr(self, name) for name in ("elements", "points", "contexts", "lines")}
        return {
            group: {what: sorted(rows) or [REASONS.get(what, "missing")] for what, rows in exercised.items()}
            for group, exercised in groups.items()
        }


def covered(rows: Iterable[Row], folder: Folder) -> Coverage:
    """Look into the bitstreams of the rows."""
    found = Coverage()
    for group, expected in zip(_groups(found), (_elements(), _points(), _contexts(), _lines()), strict=True):
        for what in expected:
            group[what] = set()
    for row in rows:
        histories: dict[bool, Histories] = {False: {}, True: {}}
        state = State()
        for name in row.files:
            beside = folder.out_of_band(name).read_text() if row.out_of_band else "{}"
            _look(found, row, folder.stream(name).read_bytes(), beside, histories)
            if row.table == 3:  # they are there for that, and looking at lines takes long
                with _lines_noted(found.lines, row.name):
                    Decoder(state, json.loads(beside)).decode(folder.stream(name).read_bytes())
    return found


def _groups(found: Coverage) -> tuple[dict[str, set[str]], ...]:
    return found.elements, found.points, found.contexts, found.lines


# --- syntax elements --------------------------------------------------------------------------------------------------


def _elements() -> Iterator[str]:
    yield from sorted(named_in_tables())


def _points() -> Iterator[str]:
    for element, points in code_points().items():
        yield from (f"{element} = {name}" for name in points.values())


def _look(found: Coverage, row: Row, data: bytes, beside: str, histories: dict[bool, Histories]) -> None:
    known = input_parameters_from_json(beside)
    bitstream, names = Bitstream(data, input_parameters=known.get), code_points()
    for unit in bitstream.units:
        for traced in bitstream.trace(unit):
            element = traced.name.partition("[")[0]
            found.elements[element].add(row.name)
            if element in names and (point := names[element].get(int(traced.value))):  # type: ignore[call-overload]
                found.points[f"{element} = {point}"].add(row.name)
    residual = bitstream.mps is not None and bitstream.mps.nnr_pre_flag
    before = histories[residual]
    left: dict[str, Any] = {}
    if not row.small:  # bins take long, and those of small rows are enough
        return
    for data_unit in bitstream.data_units:
        for tensor in traced_bins(data_unit, before):
            for each in tensor.bins:
                if each.context:
                    found.contexts[f"{each.context} = {each.value}"].add(row.name)
        left |= decode_unit(data_unit, before).histories
    histories[residual] = {**before, **left}


# --- contexts and branches --------------------------------------------------------------------------------------------


def _contexts() -> Iterator[str]:
    layout = Layout(UNARY_LENGTH)
    for context in range(layout.size + 2):
        yield from (f"{context_name(layout, context)} = {value}" for value in (0, 1))


def _lines() -> Iterator[str]:
    """The lines that do something in the arithmetic decoder and the binarization, but for those that refuse."""
    for module in (cabac, quant_tensor):
        path = Path(str(module.__file__))
        text = path.read_text().splitlines()
        for number in sorted(_executable(compile(path.read_text(), str(path), "exec"))):
            if "raise " not in text[number - 1]:
                yield f"{path.name}:{number} {text[number - 1].strip()}"


def _executable(code: CodeType) -> set[int]:
    """The lines of all functions in compiled code."""
    found: set[int] = set()
    for constant in code.co_consts:
        if isinstance(constant, CodeType) and constant.co_name != "__annotate__":  # which only who asks for types runs
            if constant.co_flags & 0x2:  # a function, and not a class
                found |= {line for *_, line in constant.co_lines() if line and line > constant.co_firstlineno}
            found |= _executable(constant)
    return found


@contextmanager
def _lines_noted(lines: dict[str, set[str]], row: str) -> Iterator[None]:
    """Note the lines that run in the meantime."""
    paths = {str(Path(str(module.__file__))): module for module in (cabac, quant_tensor)}
    seen: set[tuple[str, int]] = set()

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        seen.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    before = sys.gettrace()
    sys.settrace(lambda frame, event, argument: local if frame.f_code.co_filename in paths else None)
    try:
        yield
    finally:
        sys.settrace(before)
    ran = {f"{Path(path).name}:{number}" for path, number in seen}
    for line in lines:
        if line.partition(" ")[0] in ran:
            lines[line].add(row)
