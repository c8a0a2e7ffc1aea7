"""A bitstream as a mapping of tensors, decoded when they are asked for."""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from numpy.typing import NDArray

from nnc_core.bitstream import Bitstream, DataUnit, UnitRecord
from nnc_core.bitstream.marks import mark_of, numpy_name, restored
from nnc_core.bitstream.scope import Sink, refuse
from nnc_core.coder.ahead import Ahead
from nnc_core.coder.block import output_elements, output_shapes, unit_dtype
from nnc_core.coder.decoder import DecodedUnit, decode_unit, read_qp
from nnc_core.coder.history import Histories
from nnc_core.coder.metadata import describe
from nnc_core.coder.pool import Job, Outcome, Window, decoding_threads, in_order, merged, thread_pool
from nnc_core.errors import PayloadError
from nnc_core.lazy import LazyMapping
from nnc_core.limits import Limits
from nnc_core.nnr_model import ModelInfo, Topology
from nnc_core.records import dataclass
from nnc_core.stored import StoredBytes
from nnc_core.syntax.context import InputParameters
from nnc_core.syntax.driver import Buffer

if TYPE_CHECKING:
    from concurrent.futures import Executor


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What the headers say about a tensor; ``size`` is that of its units in bytes, ``qp`` None where there is none.

    ``unit`` is the index of its first unit, and of that unit is what else is said.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    payload_type: str
    qp: int | None
    dq_flag: bool
    scan_order: int
    size: int
    unit: int


class _Carrier(NamedTuple):
    """Units that are decoded together, and the tensors that they make: a block, or a tensor under several marks."""

    names: tuple[str, ...]
    units: tuple[DataUnit, ...]

    @property
    def plain(self) -> bool:
        """Whether there is one unit, and its tensors have the names that stand in it."""
        return len(self.units) == 1 and self.units[0].names == self.names


class TensorSlice:
    """A tensor of a file, of which a part is asked for as from an array; ``shape`` and ``dtype`` decode nothing."""

    def __init__(self, file: NnrFile, info: TensorInfo) -> None:
        self._file = file
        self.name, self.shape, self.dtype = info.name, info.shape, info.dtype

    def __getitem__(self, index: Any) -> NDArray[Any]:
        part: NDArray[Any] = self._file.decode(self.name)[index]
        return part


_SHOWN = 20
_Tensors = dict[str, NDArray[Any]]
_DecodingJob = Job[_Tensors]
_Outcome = Outcome[_Tensors]


class NnrFile(LazyMapping[NDArray[Any]]):
    """An NNR bitstream whose units are indexed and whose tensors are decoded one at a time, by name.

    Made by `nnc_core.open`. ``units`` lists the units, ``tensors`` describes the tensors, ``topology`` is the
    description that came along; none of these decodes anything. The tensors of a block are decoded together, and each
    has its own name.

    ``history`` is what the bitstreams before left, and makes this one an update of theirs; then `history_after` is
    what the next one needs. ``sink`` as for `Bitstream`.
    """

    def __init__(
        self,
        data: Buffer | mmap.mmap | StoredBytes,
        limits: Limits | None = None,
        input_parameters: Mapping[str, InputParameters] | None = None,
        history: Histories | None = None,
        sink: Sink = refuse,
    ) -> None:
        self._limits = (limits or Limits()).following(len(data))
        known = input_parameters or {}
        self.bitstream = Bitstream(data, self._limits, known.get, sink)
        self._history = history
        self._left: dict[int, Histories] = {}

    def __enter__(self) -> NnrFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what other threads are decoding is finished first."""
        self.bitstream.close()

    @property
    def units(self) -> tuple[UnitRecord, ...]:
        """The NNR units in bitstream order."""
        return self.bitstream.units

    @cached_property
    def topology(self) -> Topology | None:
        """The description of the model that the bitstream carries."""
        return self.bitstream.topology

    @cached_property
    def model_info(self) -> ModelInfo:
        """What the bitstream says of the model beside its tensors: what was pruned, performance maps, and the like.

        Masks are uint8 arrays; see `nnc_core.reduction.restore`.
        """
        info = ModelInfo()
        describe(self.bitstream, info)
        return info

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What the headers say about each tensor, in bitstream order; reads no payload but its first bits."""
        return MappingProxyType({info.name: info for each in self._carriers for info in self._infos(each)})

    def decode(self, name: str) -> NDArray[Any]:
        """Decode one tensor: float32 or int32, or what ``nnr_decompressed_data_format`` asks for.

        KeyError for a name that is not in the bitstream; `BitstreamError`, `UnsupportedError`, `UpdateError` or
        `LimitError` where the tensor cannot be decoded.
        """
        return self._decoded(self._places[self._present(name)])[name]

    def decode_all(
        self, threads: int | None = None, executor: Executor | None = None
    ) -> Iterator[tuple[str, NDArray[Any]]]:
        """Decode every tensor in bitstream order, several at a time."""
        self._check_total()
        count = decoding_threads(threads, self._sizes) if executor is None else 1
        jobs = (
            Job(partial(_decode, each, self._known(each), count), size)
            for each, size in zip(self._carriers, self._sizes, strict=True)
        )
        for carrier, decoded in zip(self._carriers, in_order(jobs, count, executor), strict=True):
            yield from self._noted(carrier, decoded).items()

    @contextmanager
    def decoding_ahead(self, threads: int | None = None) -> Iterator[Mapping[str, NDArray[Any]]]:
        """The tensors as a mapping that decodes the next ones while the caller works on one."""
        self._check_total()
        count = decoding_threads(threads, self._sizes)
        jobs = [self._job(*each, count) for each in zip(self._carriers, self._sizes, strict=True)]
        if count == 1 or len(list(merged(jobs))) < 2:  # nothing to decode meanwhile
            yield Ahead([each.names for each in self._carriers], jobs, None)
            return
        with thread_pool(count) as pool:
            window: Window[_Outcome] = Window(pool)
            try:
                yield Ahead([each.names for each in self._carriers], jobs, window)
            finally:
                window.cancel()

    def get_tensor(self, name: str) -> NDArray[Any]:
        """The same as `decode`, under the name that users of safetensors know."""
        return self.decode(name)

    def get_slice(self, name: str) -> TensorSlice:
        """A tensor that is decoded when a part of it is taken; KeyError for a name that is not in the bitstream."""
        return TensorSlice(self, self.tensors[self._present(name)])

    def _present(self, name: str) -> str:
        if name in self._places:
            return name
        from difflib import get_close_matches

        near = get_close_matches(str(name), self._places, 1)
        hint = f"did you mean {near[0]!r}?" if near else "small ones may stand in the topology"
        raise KeyError(f"the bitstream has no tensor {name!r}; {hint}")

    def metadata(self) -> dict[str, Any]:
        """What the bitstream says about itself: its size, edition of the tool set, and format of the topology."""
        topology = self.topology
        return {
            "bytes": sum(unit.size for unit in self.units),
            "general_profile_idc": self.bitstream.general_profile_idc,
            "topology_storage_format": None if topology is None else int(topology.storage_format),
        }

    def __repr__(self) -> str:
        shown = [f"  {t.name}: {t.dtype} {list(t.shape)}, {t.size} bytes" for t in self.tensors.values()]
        more = [f"  ... and {len(shown) - _SHOWN} more"] if len(shown) > _SHOWN else []
        total = sum(unit.size for unit in self.units)
        return "\n".join([f"<NnrFile: {len(self)} tensors, {total} bytes>", *shown[:_SHOWN], *more])

    def history_after(self) -> Histories:
        """What the bitstream after this one needs; decodes the units that were not decoded so far.

        Raises ValueError for a file that was opened without a history.
        """
        if self._history is None:
            raise ValueError("the file was opened without a history")
        for carrier in self._carriers:
            if carrier.units[0].index not in self._left:
                self._decoded(carrier)
        return {**self._history, **{name: left for each in self._left.values() for name, left in each.items()}}

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.decode(name)

    def _names(self) -> Collection[str]:
        return self._places

    @cached_property
    def _carriers(self) -> Sequence[_Carrier]:
        """In the order of their first units."""
        groups: dict[tuple[str, ...], list[DataUnit]] = {}
        for unit in self.bitstream.data_units:
            names = (mark_of(unit.names[0]).tensor,) if len(unit.names) == 1 else unit.names
            groups.setdefault(names, []).append(unit)
        return [_Carrier(names, tuple(units)) for names, units in groups.items()]

    @cached_property
    def _sizes(self) -> Sequence[int]:
        """The bytes of the tensors of each carrier."""
        return [_decoded_size(carrier) for carrier in self._carriers]

    @cached_property
    def _places(self) -> Mapping[str, _Carrier]:
        return {name: carrier for carrier in self._carriers for name in carrier.names}

    def _job(self, carrier: _Carrier, size: int, threads: int) -> _DecodingJob:
        return Job(partial(self._decoded, carrier, threads), size)

    def _decoded(self, carrier: _Carrier, threads: int = 1) -> _Tensors:
        self._limits.check("decoded_bytes", _decoded_size(carrier), f"tensor {carrier.names[0]!r}")
        return self._noted(carrier, _decode(carrier, self._known(carrier), threads))

    def _known(self, carrier: _Carrier) -> Histories | None:
        """What the bitstreams before left of the tensors in some units."""
        if self._history is None:
            return None
        names = (name for unit in carrier.units for name in unit.names)
        return {name: self._history[name] for name in names if name in self._history}

    def _noted(self, carrier: _Carrier, decoded: DecodedUnit) -> _Tensors:
        if self._history is not None:
            self._left[carrier.units[0].index] = decoded.histories
        return decoded.tensors

    def _infos(self, carrier: _Carrier) -> Iterator[TensorInfo]:
        unit = carrier.units[0]
        h = unit.header
        mark = mark_of(unit.names[0])
        dtype, turned = "" if carrier.plain else numpy_name(mark), not carrier.plain and mark.reversed_dimensions
        qp = dict([found]) if (found := read_qp(unit)) else {}
        for name, (unit_name, shape) in zip(carrier.names, output_shapes(unit).items(), strict=True):
            yield TensorInfo(
                name=name,
                shape=shape[::-1] if turned else shape,
                dtype=dtype or unit_dtype(h).name,
                payload_type=h.nnr_compressed_data_unit_payload_type.name,
                qp=qp.get(unit_name),
                dq_flag=h.dq_flag,
                scan_order=h.scan_order if len(shape) > 1 else 0,
                size=sum(unit.size for unit in carrier.units),
                unit=unit.index,
            )

    def _check_total(self) -> None:
        self._limits.check("decoded_bytes", sum(self._sizes))


def _decoded_size(carrier: _Carrier) -> int:
    return sum(output_elements(unit) * unit_dtype(unit.header).itemsize for unit in carrier.units)


def _decode(carrier: _Carrier, histories: Histories | None, threads: int) -> DecodedUnit:
    """The tensors that some units make, and what these leave for the next update."""
    decoded = [decode_unit(unit, histories, threads) for unit in carrier.units]
    if carrier.plain:
        return decoded[0]
    try:
        parts = [(mark_of(name), array) for each in decoded for name, array in each.tensors.items()]
        left = {name: history for each in decoded for name, history in each.histories.items()}
        return DecodedUnit({carrier.names[0]: restored(parts)}, left)
    except PayloadError as error:
        error.unit, error.tensor = carrier.units[0].index, carrier.names[0]
        raise


Source = Buffer | str | os.PathLike[str] | BinaryIO
"""A bitstream: its bytes, the path of a file, or a binary file object that is open for reading."""


def open_file(
    source: Source,
    *,
    limits: Limits | None = None,
    input_parameters: Mapping[str, InputParameters] | None = None,
    history: Histories | None = None,
) -> NnrFile:
    """Open a bitstream and index its units, without decoding anything.

    ``source`` is a path, the bytes, or a binary file object. Files are read when something is asked for, never mapped
    (see `nnc_core.stored.StoredBytes`). ``input_parameters`` has, by tensor name, what reaches the decoder by other
    ways than the bitstream, ``history`` what earlier bitstreams left. Raises `BitstreamError` if its structure is
    damaged, `LimitError` if it asks for too much, `ModelError` if a file has become shorter.
    """
    return NnrFile(_data(source), limits, input_parameters, history)


def _data(source: Source) -> Buffer | mmap.mmap | StoredBytes:
    if isinstance(source, bytes | bytearray | memoryview | mmap.mmap):
        return source
    if isinstance(source, str | os.PathLike):
        return StoredBytes(source)
    try:
        is_file = stat.S_ISREG(os.fstat(source.fileno()).st_mode)
    except (OSError, AttributeError):  # in memory, or what an archive gives
        is_file = False
    return StoredBytes(source) if is_file else source.read()


def decode(
    source: Source,
    *,
    limits: Limits | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    input_parameters: Mapping[str, InputParameters] | None = None,
    history: Histories | None = None,
) -> dict[str, NDArray[Any]]:
    """Decode a whole NNR bitstream, its bytes or a file, into its tensors, by name and in bitstream order.

    Arrays are float32 for quantized and raw tensors, int32 for integer ones, or what ``nnr_decompressed_data_format``
    asks for. ``input_parameters`` and ``history`` as for `open`; an ``executor`` decodes in place of ``threads``
    (default: one per core). Raises `BitstreamError`, `UnsupportedError`, `UpdateError` or `LimitError`.
    """
    return dict(
        open_file(source, limits=limits, input_parameters=input_parameters, history=history).decode_all(
            threads, executor
        )
    )
