"""What the coder gets of a bitstream: tensors in one kind of unit, whether alone, in a block, cut up or in parts."""

from __future__ import annotations

from dataclasses import field, replace

from nnc_core.bitstream.units import UnitRecord, place
from nnc_core.errors import UnitOrderError
from nnc_core.records import dataclass
from nnc_core.stored import Bytes
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import CompressedDataUnitHeader, context_after, is_decomposed
from nnc_core.syntax.driver import Buffer
from nnc_core.tables.code_points import PayloadType


@dataclass(frozen=True, slots=True)
class DataUnit:
    """One or several tensors that are coded together: an NNR_NDU, or all parts of one, in ``units``."""

    units: tuple[UnitRecord, ...]
    _data: Bytes = field(repr=False, compare=False)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickled with its own bytes only, for pools of processes."""
        start = self.units[0].offset
        units = tuple(replace(u, offset=u.offset - start, payload_offset=u.payload_offset - start) for u in self.units)
        return _restored, (units, bytes(self._data[start : self.units[-1].offset + self.units[-1].size]))

    @property
    def index(self) -> int:
        """The index of the first unit."""
        return self.units[0].index

    @property
    def size(self) -> int:
        """The bytes of all units together."""
        return sum(unit.size for unit in self.units)

    @property
    def header(self) -> CompressedDataUnitHeader:
        """The header, which all parts share."""
        header: CompressedDataUnitHeader = self.units[0].header  # type: ignore[assignment]  # that of a data unit
        return header

    @property
    def context(self) -> SyntaxContext:
        """What the header was read with."""
        return self.units[0].context

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors, in header order."""
        return self.units[0].names

    @property
    def qp_density(self) -> int:
        """The precision of the step size; `UnitOrderError` if no parameter set in force has one."""
        return self._quantization[0]

    @property
    def quantization_parameter(self) -> int:
        """The base quantization parameter; `UnitOrderError` if no parameter set in force has one."""
        return self._quantization[1]

    @property
    def opens_decomposition(self) -> bool:
        """Whether this is the first factor of a decomposed tensor, in a unit of its own."""
        return context_after(self.header, self.context).factor_g is not None

    @property
    def closes_decomposition(self) -> bool:
        """Whether this is the second factor of the tensor whose first one came just before."""
        block = self.header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_BLOCK
        return not block and is_decomposed(self.header) and not self.opens_decomposition

    @property
    def payload(self) -> Buffer:
        """The payload bytes: a view, or the joined bytes of all parts."""
        views = [self._data[u.payload_offset : u.payload_offset + u.payload_size] for u in self.units]
        return views[0] if len(views) == 1 else b"".join(views)

    def place(self, element: str) -> int:
        """Where in the first unit an element of the header starts, or else the payload, in bits."""
        return place(self._data, self.units[0], element)

    @property
    def _quantization(self) -> tuple[int, int]:
        found = self.units[0].quantization
        if found is None:
            message = "no parameter set in force has a qp_density"
            raise UnitOrderError(message, unit=self.index, rule="qp-density")
        return found


def _restored(units: tuple[UnitRecord, ...], data: bytes) -> DataUnit:
    return DataUnit(units, memoryview(data))
