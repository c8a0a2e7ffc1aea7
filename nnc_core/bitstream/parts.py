"""One bitstream as many, and back: for containers that keep an NNR per tensor (ISO/IEC 15938-17, Annex E).

Units are copied, never decoded. Each part has the start unit and the model parameter set of the whole, so that it can
be decoded alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from nnc_core.bitstream import Bitstream, UnitRecord
from nnc_core.bitstream.marks import mark_of
from nnc_core.bitstream.units import is_reference_list
from nnc_core.errors import BitstreamError, ModelError, UnitOrderError, UnsupportedError
from nnc_core.lazy import LazyMapping
from nnc_core.limits import Limits
from nnc_core.stored import Bytes, StoredBytes, viewed
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.data_unit import context_after, is_decomposed
from nnc_core.syntax.driver import Buffer
from nnc_core.syntax.layer_parameter_set import LayerParameterSet
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.syntax.reader import Reader
from nnc_core.syntax.unit_types import header_bytes, read_header
from nnc_core.syntax.units import (
    UnitHeader,
    nnr_unit_header,
    nnr_unit_size,
    unit,
)
from nnc_core.tables.code_points import NnrUnitType, PayloadType

__all__ = ["MODEL", "Parts", "begins_bitstream", "bitstreams", "join", "joined", "spans", "split"]

MODEL = "__model__"
"""The key of what belongs to no single tensor: topology and quantization units, or a whole bitstream."""

_OF_TENSORS = (NnrUnitType.NNR_NDU, NnrUnitType.NNR_LPS, NnrUnitType.NNR_AGG)
_NO_LAYER = unit(NnrUnitType.NNR_LPS, header_bytes(NnrUnitType.NNR_LPS, LayerParameterSet(), SyntaxContext()))
"""A layer parameter set that says nothing: what the model parameter set says holds again."""


def split(data: Buffer | StoredBytes, limits: Limits | None = None) -> Parts:
    """Take a bitstream apart into one bitstream per tensor; see `Parts`.

    Raises a `BitstreamError` where it is damaged, `UnsupportedError` for several reference lists, `ModelError` for a
    tensor that is called like `MODEL`.
    """
    return Parts(data, limits)


class Parts(LazyMapping[bytes]):
    """The parts of a bitstream by tensor name, in bitstream order; each is put together when it is asked for.

    Tensors that only decode together (a block, the factors of a decomposition) stay together under the name of the
    first, with the layer parameter set in force for them, and come out of aggregate units. What belongs to no tensor
    comes first, under `MODEL`, where there is any.
    """

    def __init__(self, data: Buffer | StoredBytes, limits: Limits | None = None) -> None:
        self._data = viewed(data)
        bitstream = Bitstream(data, limits)
        _refuse_several_lists(bitstream)
        self._prefix = _prefix(bitstream, self._raw)
        self._layers = _layers(bitstream.units)
        model = b"".join(self._raw(u) for u in bitstream.units if u.type not in _OF_TENSORS)
        self._groups = dict(_groups(bitstream.units))
        self._model = {MODEL: model} if model != self._prefix or not self._groups else {}
        self._order = dict.fromkeys([*self._model, *self._groups])

    def __getitem__(self, name: str) -> bytes:
        if name in self._model:
            return self._model[name]
        units = self._groups[name]
        return b"".join((self._prefix, self._layers[units[0].index], *map(self._raw, units)))

    def _names(self) -> Collection[str]:
        return self._order

    def _raw(self, unit: UnitRecord) -> memoryview:
        return self._data[unit.offset : unit.offset + unit.size]


def join(parts: Mapping[str, Buffer], limits: Limits | None = None) -> bytes:
    """Make one bitstream of the parts that `split` made; see `joined`."""
    return b"".join(joined(parts, limits))


def joined(parts: Mapping[str, Buffer], limits: Limits | None = None) -> Iterator[Buffer]:
    """The bytes of the bitstream that consists of ``parts``, piece by piece; each part is fetched once.

    A single part is taken as it is. Otherwise `MODEL`, or else the first part, says what all must agree on. Raises
    `ModelError` where parts differ in profile, model parameter set or reference list, hold the same tensor, or carry a
    topology elsewhere than under `MODEL`; `BitstreamError` and `UnsupportedError` as `split`.
    """
    if len(parts) == 1:
        yield from parts.values()
        return
    joiner = _Joiner(limits or Limits())
    for key in sorted(parts, key=lambda key: key != MODEL):
        yield from joiner.units(key, parts[key])


def bitstreams(data: Buffer, limits: Limits | None = None) -> Iterator[memoryview]:
    """The bitstreams in ``data`` that stand one after another, as views; see `spans`."""
    view = memoryview(data).cast("B")
    return (view[span] for span in spans(view, limits))


def spans(view: Bytes, limits: Limits | None = None) -> Iterator[slice]:
    """Where bitstreams stand one after another; nothing but the sizes and types of units is read.

    `BitstreamError` where a unit does not fit into the data or the first one is not a start unit, `LimitError` for too
    many units.
    """
    limits = (limits or Limits()).following(len(view))
    start = offset = index = 0
    while offset < len(view) or index == 0:
        limits.check("units", index + 1)
        h = _unit_header(view, offset, index)
        if index == 0 and h.nnr_unit_type != NnrUnitType.NNR_STR:
            message, rule = "the data do not begin with an NNR_STR", "start-unit-first"
            raise UnitOrderError(message, unit=0, element="nnr_unit_type", rule=rule)
        if h.nnr_unit_type == NnrUnitType.NNR_STR and index:
            yield slice(start, offset)
            start = offset
        offset += h.nnr_unit_size
        index += 1
    yield slice(start, len(view))


def _unit_header(view: Bytes, offset: int, index: int) -> UnitHeader:
    reader = Reader(view, offset, unit=index)
    h = UnitHeader()
    nnr_unit_size(reader, h)
    reader.narrow(h.nnr_unit_size)
    nnr_unit_header(reader, h)
    return h


def _layers(units: Iterable[UnitRecord]) -> dict[int, bytes]:
    """For each data unit the layer parameter set in force, if any; it does not say that it stands in an aggregate."""
    layer, found = b"", {}
    around: list[tuple[int, bytes]] = []
    for record in units:
        while around and around[-1][0] != record.within:
            layer = around.pop()[1]
        if isinstance(record.header, LayerParameterSet):
            header = replace(record.header, lps_self_contained_flag=False)
            layer = unit(NnrUnitType.NNR_LPS, header_bytes(NnrUnitType.NNR_LPS, header, record.context))
        elif record.type == NnrUnitType.NNR_AGG:
            around.append((record.index, layer))
        found[record.index] = layer
    return found


def _refuse_several_lists(bitstream: Bitstream) -> None:
    if sum(is_reference_list(u.header) for u in bitstream.units) > 1:
        raise UnsupportedError("NNR_TPL_REFLIST", "a bitstream with several reference lists cannot be taken apart")


def _prefix(bitstream: Bitstream, raw: Callable[[UnitRecord], Buffer]) -> bytes:
    """Start unit, model parameter set and reference list: what every part begins with."""
    kept = [
        u
        for u in bitstream.units
        if u.type in (NnrUnitType.NNR_STR, NnrUnitType.NNR_MPS) or is_reference_list(u.header)
    ]
    referring = any(is_reference_list(u.header) for u in kept)
    return b"".join(_without_topology(u) if _announces(u) and not referring else raw(u) for u in kept)


def _announces(unit: UnitRecord) -> bool:
    return isinstance(unit.header, ModelParameterSet) and unit.header.topology_carriage_flag


def _without_topology(record: UnitRecord) -> bytes:
    """The model parameter set of a bitstream that has no topology any more."""
    if not isinstance(record.header, ModelParameterSet):
        raise TypeError("no model parameter set")
    header = replace(record.header, topology_carriage_flag=False)
    return unit(NnrUnitType.NNR_MPS, header_bytes(NnrUnitType.NNR_MPS, header, record.context))


def _groups(units: Iterable[UnitRecord]) -> Iterator[tuple[str, list[UnitRecord]]]:
    """Data units that can only be read together, under the first name of the first."""
    group: list[UnitRecord] = []
    fragments = 0
    for record in units:
        if record.type != NnrUnitType.NNR_NDU:
            continue
        if not fragments and group and not _continues(record) and not _belongs(record, group[0]):
            yield _key(group), group
            group = []
        group.append(record)
        fragments = max(0, record.partial_data_counter - 1)
    if group:
        yield _key(group), group


def _key(group: list[UnitRecord]) -> str:
    name = mark_of(group[0].names[0]).tensor
    if name == MODEL:
        raise ModelError("the tensor has the name that is reserved for the model", tensor=name)
    return name


def _belongs(record: UnitRecord, first: UnitRecord) -> bool:
    """Whether the unit carries a part of the tensor that ``first`` carries another part of."""
    return mark_of(record.names[0]).tensor == mark_of(first.names[0]).tensor


def _continues(record: UnitRecord) -> bool:
    """Whether the unit is the second factor of a decomposed tensor, and thus read with the one before in mind."""
    h = record.data_header
    alone = h.nnr_compressed_data_unit_payload_type != PayloadType.NNR_PT_BLOCK and is_decomposed(h)
    return alone and context_after(h, record.context).factor_g is None


class _Joiner:
    """What the parts so far agree on."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._agreed: tuple[object, ...] | None = None
        self._names: set[str] = set()
        self._count = 0
        self._layered = False  # whether a layer parameter set of a part before is still in force

    def units(self, key: str, data: Buffer) -> Iterator[Buffer]:
        """The units that the part called ``key`` adds to the bitstream."""
        view = memoryview(data).cast("B")
        bitstream = Bitstream(view, self._limits)
        _refuse_several_lists(bitstream)
        if any(record.type == NnrUnitType.NNR_AGG for record in bitstream.units):
            raise UnsupportedError("NNR_AGG", f"the part {key!r} has an aggregate unit; split takes its units out")
        first = self._agreed is None
        self._check_agreement(key, bitstream)
        self._check_names(key, bitstream)
        if self._layered and bitstream.data_units:
            yield _NO_LAYER
            self._layered = False
        for record in bitstream.units:
            if first or record.type in _OF_TENSORS:
                self._count = self._limits.check("units", self._count + 1)
                self._layered = self._layered or record.type == NnrUnitType.NNR_LPS
                yield view[record.offset : record.offset + record.size]
            else:
                _refuse_topology(key, record)

    def _check_agreement(self, key: str, bitstream: Bitstream) -> None:
        lists = [bytes(bitstream.payload(u)) for u in bitstream.units if is_reference_list(u.header)]
        # As bytes: a missing performance is not a number, and does not equal itself.
        mps = [_without_topology(u) for u in bitstream.units if u.type == NnrUnitType.NNR_MPS]
        found = (bitstream.general_profile_idc, mps, lists)
        if self._agreed is None:
            self._agreed = found
        elif found != self._agreed:
            kinds = ("general_profile_idc", "the model parameter set", "the reference list")
            differing = next(kind for kind, a, b in zip(kinds, found, self._agreed, strict=True) if a != b)
            raise ModelError(f"cannot be joined to the parts before: {differing} differs", tensor=key)

    def _check_names(self, key: str, bitstream: Bitstream) -> None:
        names = {name for record in bitstream.units for name in record.names}
        for name in names & self._names:
            raise ModelError(f"the tensor is in another part than {key!r} too", tensor=name)
        self._names |= names


def _refuse_topology(key: str, record: UnitRecord) -> None:
    known = (NnrUnitType.NNR_STR, NnrUnitType.NNR_MPS)
    if record.type not in known and not is_reference_list(record.header):
        raise ModelError(f"only the part {MODEL!r} may have units of type {record.type}", tensor=key)


def begins_bitstream(data: Buffer) -> bool:
    """Whether ``data``, of which the first 8 bytes are enough, begin with a start unit."""
    reader, h = Reader(data), UnitHeader()
    try:
        nnr_unit_size(reader, h)
        nnr_unit_header(reader, h)
        read_header(reader, NnrUnitType.NNR_STR, SyntaxContext())
    except BitstreamError:
        return False
    return h.nnr_unit_type == NnrUnitType.NNR_STR and h.nnr_unit_size * 8 == reader.bit_offset
