"""A file or buffer as units: found by their sizes, payloads untouched until they are asked for."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from itertools import chain
from types import MappingProxyType

from nnc_core.bitstream.data_units import DataUnit
from nnc_core.bitstream.descriptions import Descriptions, Parts, in_parts
from nnc_core.bitstream.scope import Sink, refuse
from nnc_core.bitstream.units import UnitRecord, trace
from nnc_core.bitstream.walk import Walk
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.stored import StoredBytes, viewed
from nnc_core.syntax.context import InputParameters, SyntaxContext, nothing_known
from nnc_core.syntax.driver import Buffer
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.syntax.pruning import PruningTopologyContainer
from nnc_core.syntax.reader import TracedElement
from nnc_core.tables.code_points import NnrUnitType

_UNKNOWN = 63


class Bitstream:
    """The units of a bitstream, found by their sizes; payloads are not read before they are asked for.

    ``data`` may be a file or a memory map, and must stay as it is. ``input_parameters`` looks up what is known of a
    tensor by other ways than the bitstream, such as its dimensions. Construction raises a `BitstreamError` for whatever
    is wrong with sizes, order or headers, and `LimitError` for what exceeds ``limits``. With a ``sink`` that keeps
    violations, ``units`` goes as far as they allow; the rest of the interface is for bitstreams without any.
    """

    def __init__(
        self,
        data: Buffer | mmap.mmap | StoredBytes,
        limits: Limits | None = None,
        input_parameters: Callable[[str], InputParameters | None] = nothing_known,
        sink: Sink = refuse,
    ) -> None:
        self._data = viewed(data)
        self._limits = (limits or Limits()).following(len(self._data))
        walk = Walk(self._data, self._limits, input_parameters, sink)
        self.units: tuple[UnitRecord, ...] = tuple(walk.units())
        self.general_profile_idc: int = walk.scope.context.general_profile_idc
        self.mps: ModelParameterSet | None = walk.scope.mps
        self.context: SyntaxContext = walk.scope.context
        self.topology_elements: tuple[str, ...] = walk.scope.context.topology_elements

    @property
    def rest(self) -> UnitRecord | None:
        """What follows the units where the violation of a size, or of what others depend on, has ended the walk."""
        start = max((unit.offset + unit.size for unit in self.units), default=0)
        size = len(self._data) - start
        if size == 0:
            return None
        rest = UnitRecord(len(self.units), start, size, _UNKNOWN, None, start, size, context=self.context)
        for element in self.trace(rest):
            if element.name == "nnr_unit_type" and isinstance(element.value, int):
                return replace(rest, type=element.value)
        return rest

    @cached_property
    def data_units(self) -> tuple[DataUnit, ...]:
        """What holds tensors, in bitstream order."""
        parts = in_parts(unit for unit in self.units if unit.type == NnrUnitType.NNR_NDU)
        return tuple(DataUnit(units, self._data) for units in parts if units[0].header is not None)

    @cached_property
    def tensors(self) -> Mapping[str, DataUnit]:
        """The data unit of each tensor, in bitstream order and within a unit in header order."""
        return MappingProxyType({name: unit for unit in self.data_units for name in unit.names})

    @cached_property
    def topology(self) -> Topology | None:
        """The description in the topology unit, with the quantization unit; a lone zero byte stands for no data.

        An application-private format counts where there is no other description. Raises `UnsupportedError` for formats
        beyond the enumerations and for several descriptions, `LimitError` beyond ``limits.topology_bytes``,
        `BitstreamError` for damaged data.
        """
        return self._descriptions.topology()

    @cached_property
    def pruning(self) -> PruningTopologyContainer | None:
        """The pruning topology container; raises `BitstreamError` where it is damaged.

        Masks have a bit for each element, and what bounds a tensor bounds them too: `LimitError`.
        """
        container = self._descriptions.pruning()
        for mask in (container.prune_mask, container.sparse_mask) if container is not None else ():
            self._limits.check("tensor_elements", mask.count_bits, "count_bits")
        return container

    def payload(self, *units: UnitRecord) -> Buffer:
        """The payload bytes of a unit: a view, or the joined bytes of several."""
        views = [self._data[u.payload_offset : u.payload_offset + u.payload_size] for u in units]
        return views[0] if len(views) == 1 else b"".join(views)

    def trace(self, unit: UnitRecord) -> list[TracedElement]:
        """Every syntax element of ``unit`` above the arithmetic coder, in order, with its place and bits."""
        return trace(self._data, unit)

    def close(self) -> None:
        """Close the data, so that a memory map can be closed, too; payload views of one must be gone by then."""
        self._data.release()

    @cached_property
    def _descriptions(self) -> Descriptions:
        kinds = (NnrUnitType.NNR_TPL, NnrUnitType.NNR_QNT)
        parts = chain.from_iterable(in_parts(u for u in self.units if u.type == kind) for kind in kinds)
        return Descriptions(tuple(parts), self._joined, self._limits)

    def _joined(self, parts: Parts) -> Buffer:
        return self.payload(*parts)
