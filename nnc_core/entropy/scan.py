"""The order in which the elements of a tensor are coded (clause 10, scan orders)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple


class Segment(NamedTuple):
    """Elements coded one after the other: those of one row that lie in one block.

    ``band`` is the number of the row of blocks if a band starts here, else None.
    """

    row: int
    columns: range
    band: int | None


def effective_scan_order(rows: int, width: int, scan_order: int) -> int:
    """`scan_order`, or 0 for a tensor that is a single row or column."""
    return scan_order if rows > 1 and width > 1 else 0


def count_bands(rows: int, width: int, scan_order: int) -> int:
    """How many rows of blocks there are; 1 in row order."""
    scan_order = effective_scan_order(rows, width, scan_order)
    return -(-rows // (4 << scan_order)) if scan_order else 1


def segments(rows: int, width: int, scan_order: int) -> Iterator[Segment]:
    """The segments of a (rows x width) matrix in coding order."""
    scan_order = effective_scan_order(rows, width, scan_order)
    if scan_order == 0:
        return (Segment(row, range(width), None) for row in range(rows))
    return _block_segments(rows, width, 4 << scan_order)


def _block_segments(rows: int, width: int, block: int) -> Iterator[Segment]:
    marked = rows > block  # a single band needs no entry point: nothing happens at its start
    for top in range(0, rows, block):
        for left in range(0, width, block):
            for row in range(top, min(top + block, rows)):
                starts = marked and left == 0 and row == top
                yield Segment(row, range(left, min(left + block, width)), top // block if starts else None)
