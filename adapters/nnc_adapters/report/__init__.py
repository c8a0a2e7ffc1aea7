"""Where the bytes of a bitstream go, and what they cost in accuracy: as data, as a page, and as Markdown."""

from __future__ import annotations

from nnc_adapters.report.build import report
from nnc_adapters.report.data import Bytes, Levels, Report, StreamReport, TensorReport, UnitReport
from nnc_adapters.report.described import described
from nnc_adapters.report.markdown import markdown
from nnc_adapters.report.page import page

__all__ = [
    "Bytes",
    "Levels",
    "Report",
    "StreamReport",
    "TensorReport",
    "UnitReport",
    "described",
    "markdown",
    "page",
    "report",
]
