"""``nnr_aggregate_unit_header()``: several units in one."""

from __future__ import annotations

from dataclasses import field
from functools import partial
from typing import Final, NamedTuple

from nnc_core.records import dataclass
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.driver import Elements, Indexed, Syntax


class AggregateLayout(NamedTuple):
    """Which of the elements that are not certain an aggregate's header has.

    Two hints per unit, the second of which is there only where tensors are cut into blocks, and a byte_alignment().
    Nothing published settles it; the units themselves show which layout fits.
    """

    quant_bitdepth: bool = True
    ctu_scan_order: bool = False
    aligned: bool = True


LAYOUTS: Final = tuple(
    AggregateLayout(bit_depth, scan_order, aligned)
    for aligned in (True, False)
    for bit_depth, scan_order in ((True, False), (True, True), (False, False))
)
"""All readings, in the order in which they are tried."""


@dataclass(slots=True)
class AggregatedUnit:
    """What the header of an aggregate says about one of its units; ``None`` for what is absent."""

    nnr_unit_type: int | None = None
    nnr_unit_entry_point: int | None = None
    quant_bitdepth: int | None = None
    ctu_scan_order: int | None = None


@dataclass(slots=True)
class AggregateUnitHeader:
    """``nnr_aggregate_unit_header()``; ``layout`` None stands for what the parameter sets in force ask for."""

    nnr_aggregate_unit_type: int = 0
    entry_points_present_flag: bool = False
    units: tuple[AggregatedUnit, ...] = field(default_factory=lambda: (AggregatedUnit(), AggregatedUnit()))
    layout: AggregateLayout | None = None


def nnr_aggregate_unit_header(s: Syntax, h: AggregateUnitHeader, ctx: SyntaxContext) -> None:
    """``nnr_aggregate_unit_header()`` (clause 6.3.3.8)."""
    e = Elements(s, h)
    e.u(8, "nnr_aggregate_unit_type")
    e.flag("entry_points_present_flag")
    s.reserved(7, "nnr_reserved_zero_7bits")
    count = 2 + s.u(16, "num_of_nnr_units_minus2", len(h.units) - 2)
    s.expect(count, 24, "num_of_nnr_units_minus2")
    ctx.limits.check("units", count, "num_of_nnr_units_minus2")
    h.units = h.units if len(h.units) == count else tuple(AggregatedUnit() for _ in range(count))
    for i, unit in enumerate(h.units):
        entry = Elements(Indexed(s, i), unit)
        entry.u(6, "nnr_unit_type", when=h.entry_points_present_flag)
        entry.u(34, "nnr_unit_entry_point", when=h.entry_points_present_flag)
    usual = AggregateLayout(ctu_scan_order=ctx.block_partitioning)
    layouts = sorted(LAYOUTS, key=lambda layout: layout != usual)
    h.layout = s.first_fit(layouts, h.layout or usual, partial(_hints, s, h), "aggregate-units", count)


def _hints(s: Syntax, h: AggregateUnitHeader, layout: AggregateLayout) -> None:
    for i, unit in enumerate(h.units):
        entry = Elements(Indexed(s, i), unit)
        entry.u(5, "quant_bitdepth", when=layout.quant_bitdepth)
        entry.u(1, "ctu_scan_order", when=layout.ctu_scan_order)
    if layout.aligned:
        s.byte_alignment()
