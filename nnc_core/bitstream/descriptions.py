"""What topology and quantization units describe: the model in a framework's terms, and what was pruned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from nnc_core.bitstream.scope import topology_payload
from nnc_core.bitstream.units import UnitRecord, compression_format
from nnc_core.errors import UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.records import dataclass
from nnc_core.syntax.deflate import deflate, inflate
from nnc_core.syntax.driver import Buffer
from nnc_core.syntax.pruning import PruningTopologyContainer
from nnc_core.syntax.quantization import QuantizationUnitHeader
from nnc_core.syntax.topology import TopologyUnitHeader
from nnc_core.tables.code_points import PRIVATE_TOPOLOGY, TopologyCompressionFormat, TopologyStorageFormat

EMPTY = b"\0"
"""Topology data of no bytes, in the form that all known decoders read."""

_NOT_DESCRIPTIONS = (TopologyStorageFormat.NNR_TPL_PRUN, TopologyStorageFormat.NNR_TPL_REFLIST)
_PRIVATE = range(128, 256)

Parts = Sequence[UnitRecord]


@dataclass(frozen=True, slots=True)
class Descriptions:
    """The descriptions in a bitstream: ``units`` has the parts of each unit, ``payload`` joins their payloads."""

    units: Sequence[Parts]
    payload: Callable[[Parts], Buffer]
    limits: Limits

    def topology(self) -> Topology | None:
        """The description of the model, with what goes with it; None where there is no topology unit."""
        found = [p for p in self.units if (number := _format(p)) is not None and number not in _NOT_DESCRIPTIONS]
        if not found:
            return None
        private = [p for p in found if _format(p) == PRIVATE_TOPOLOGY]
        standard = [p for p in found if _format(p) not in _PRIVATE]
        description = standard or [p for p in found if _format(p) != PRIVATE_TOPOLOGY]
        storage_format = _known_format((description or private)[0])
        data = self._only(description, "topology")
        return Topology(
            storage_format, data or b"", self._quantization(storage_format), self._only(private, "topology")
        )

    def pruning(self) -> PruningTopologyContainer | None:
        """The pruning topology container; None where there is none."""
        found = [p for p in self.units if _format(p) == TopologyStorageFormat.NNR_TPL_PRUN]
        if len(found) > 1:
            raise UnsupportedError("several pruning topology containers in one bitstream")
        for parts in found:
            header = parts[-1].header
            if isinstance(header, TopologyUnitHeader):
                return topology_payload([self.payload(parts)], parts[-1], header, parts[-1].context).pruning
        return None

    def _quantization(self, storage_format: int) -> bytes | None:
        """The data of the only quantization unit, which is in the terms of ``storage_format``."""
        found = [parts for parts in self.units if isinstance(parts[0].header, QuantizationUnitHeader)]
        if len(found) > 1:
            raise UnsupportedError("several quantization descriptions in one bitstream")
        for parts in found:
            header = parts[0].header
            if isinstance(header, QuantizationUnitHeader) and header.quantization_storage_format != storage_format:
                described = f"quantization_storage_format {header.quantization_storage_format}"
                raise UnsupportedError(f"{described} beside topology_storage_format {storage_format:d}")
        return self._only(found, "quantization")

    def _only(self, found: Sequence[Parts], kind: str) -> bytes | None:
        """The data of the only unit in ``found``."""
        if not found:
            return None
        if len(found) > 1:
            raise UnsupportedError(f"several {kind} descriptions in one bitstream")
        compressed = compression_format(found[0][0].header)
        data = inflate(compressed, self.payload(found[0]), self.limits.topology_bytes, found[0][0].index, kind)
        return b"" if data == EMPTY and compressed == TopologyCompressionFormat.NNR_PT_RAW else data


def smallest(data: bytes, *, thorough: bool = False) -> tuple[TopologyCompressionFormat, bytes]:
    """A description as its unit carries it: compressed, perhaps ``thorough``ly, where that is smaller; never empty."""
    packed = deflate(data, thorough=thorough)
    if len(packed) < len(data) or data == EMPTY:  # which would stand for no bytes
        return TopologyCompressionFormat.NNR_DFL, packed
    return TopologyCompressionFormat.NNR_PT_RAW, data or EMPTY


def in_parts(units: Iterable[UnitRecord]) -> list[tuple[UnitRecord, ...]]:
    """The units, each with the further parts of it that follow."""
    groups: list[tuple[UnitRecord, ...]] = []
    missing = 0
    for unit in units:
        if missing:
            groups[-1] += (unit,)
        else:
            groups.append((unit,))
        missing = max(0, unit.partial_data_counter - 1)
    return groups


def _format(parts: Parts) -> int | None:
    header = parts[0].header
    return header.topology_storage_format if isinstance(header, TopologyUnitHeader) else None


def _known_format(parts: Parts) -> int:
    """The format of a description: of the enumeration, or one that only an application knows."""
    number = _format(parts) or 0
    if number in _PRIVATE and number != PRIVATE_TOPOLOGY:
        return number
    try:
        return TopologyStorageFormat(number)
    except ValueError:
        raise UnsupportedError(f"topology_storage_format {number}") from None
