"""One unit of a bitstream as the index knows it, and its header by type (clause 6.3)."""

from __future__ import annotations

from dataclasses import dataclass, field

from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.syntax.unit_types import Header


@dataclass(frozen=True, slots=True)
class UnitRecord:
    """One NNR unit of a bitstream: ``data[offset : offset + size]``, its payload from ``payload_offset`` on.

    ``header`` is what the unit says before its payload (all of it, for a parameter set), ``None`` for a type that is
    not interpreted. ``names`` are the tensors of a data unit, in header order. ``context`` is what the header was read
    with.
    """

    index: int
    offset: int
    size: int
    type: int
    header: Header | None
    payload_offset: int
    payload_size: int
    partial_data_counter: int = 0
    names: tuple[str, ...] = ()
    context: SyntaxContext = field(default_factory=SyntaxContext, repr=False)

    @property
    def data_header(self) -> CompressedDataUnitHeader:
        """The header of a data unit; `TypeError` for any other unit."""
        if not isinstance(self.header, CompressedDataUnitHeader):
            raise TypeError(f"unit {self.index} is no data unit")
        return self.header
