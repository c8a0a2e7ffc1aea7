"""A bitstream as a mapping of tensors, decoded when they are asked for."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from math import prod
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from numpy.typing import NDArray

from nnc_core.bitstream import Bitstream, UnitRecord
from nnc_core.coder.decode import decode_unit, output_dtype, output_shape, read_qp
from nnc_core.coder.pool import in_order, thread_count
from nnc_core.lazy import LazyMapping
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.syntax.context import InputParameters
from nnc_core.syntax.driver import Buffer


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What the headers say about a tensor; ``size`` is that of its unit in bytes, ``qp`` None where there is none."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    payload_type: str
    qp: int | None
    dq_flag: bool
    scan_order: int
    size: int
    unit: int


class NnrFile(LazyMapping[NDArray[Any]]):
    """An NNR bitstream whose units are indexed and whose tensors are decoded one at a time, by name.

    Made by `nnc_core.open`. ``units`` lists the units, ``tensors`` describes the tensors, ``topology`` is the
    description that came along; none of these decodes anything.
    """

    def __init__(
        self,
        data: Buffer | mmap.mmap,
        limits: Limits | None = None,
        input_parameters: Mapping[str, InputParameters] | None = None,
    ) -> None:
        self._limits = limits or Limits()
        self._map = data if isinstance(data, mmap.mmap) else None
        known = input_parameters or {}
        self.bitstream = Bitstream(data, self._limits, known.get)

    def __enter__(self) -> NnrFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; what is being decoded in other threads is finished first."""
        self.bitstream.close()
        if self._map is not None:
            # Views of it live on in running decoders and in the traceback of an error; the last one closes it.
            with suppress(BufferError):
                self._map.close()

    @property
    def units(self) -> tuple[UnitRecord, ...]:
        """The NNR units in bitstream order."""
        return self.bitstream.units

    @cached_property
    def topology(self) -> Topology | None:
        """The description of the model that the bitstream carries."""
        return self.bitstream.topology

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What the headers say about each tensor that has a unit of its own; reads no payload but its first bits."""
        return MappingProxyType({name: self._info(name, unit) for name, unit in self.bitstream.data_units.items()})

    def decode(self, name: str) -> NDArray[Any]:
        """Decode one tensor: float32 or int32, or what ``nnr_decompressed_data_format`` asks for.

        KeyError for a name that is not in the bitstream; `BitstreamError`, `UnsupportedError` or `LimitError` where the
        tensor cannot be decoded.
        """
        unit = self._unit(name)
        self._limits.check("decoded_bytes", _decoded_size(unit), f"tensor {name!r}")
        return decode_unit(self.bitstream, unit)

    def decode_all(self, threads: int | None = None) -> Iterator[tuple[str, NDArray[Any]]]:
        """Decode every tensor in bitstream order, several at a time."""
        names = list(self)
        self._check_total()
        jobs = ((lambda name=name: (name, self.decode(name))) for name in names)
        return in_order(jobs, threads)

    @contextmanager
    def decoding_ahead(self, threads: int | None = None) -> Iterator[Mapping[str, NDArray[Any]]]:
        """The tensors as a mapping that decodes the next ones while the caller works on one."""
        count = thread_count(threads)
        self._check_total()
        if count == 1:
            yield self
            return
        with ThreadPoolExecutor(count) as pool:
            ahead = _Ahead(self, pool, count)
            try:
                yield ahead
            finally:
                ahead.cancel()

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.decode(name)

    def __iter__(self) -> Iterator[str]:
        for unit in (*self.bitstream.data_units.values(), *self.bitstream.compound_units):
            yield from unit.names

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return name in self._units

    @cached_property
    def _units(self) -> Mapping[str, UnitRecord]:
        compound = {name: unit for unit in self.bitstream.compound_units for name in unit.names}
        return {**self.bitstream.data_units, **compound}

    def _unit(self, name: str) -> UnitRecord:
        return self._units[name]

    def _info(self, name: str, unit: UnitRecord) -> TensorInfo:
        h = unit.data_header
        return TensorInfo(
            name=name,
            shape=output_shape(unit),
            dtype=output_dtype(h).name,
            payload_type=h.nnr_compressed_data_unit_payload_type.name,
            qp=read_qp(self.bitstream, unit),
            dq_flag=h.dq_flag,
            scan_order=h.scan_order,
            size=unit.size,
            unit=unit.index,
        )

    def _check_total(self) -> None:
        self._limits.check("decoded_bytes", sum(map(_decoded_size, self.bitstream.data_units.values())))


def _decoded_size(unit: UnitRecord) -> int:
    return prod(output_shape(unit)) * output_dtype(unit.data_header).itemsize


class _Ahead(LazyMapping[NDArray[Any]]):
    """Tensors of a file; asking for one starts the decoding of those that follow it in the bitstream.

    What has been started is kept until it is asked for, so each tensor is decoded once in whatever order they are
    taken. Where that differs from the bitstream's, fewer are decoded ahead.
    """

    def __init__(self, file: NnrFile, pool: ThreadPoolExecutor, count: int) -> None:
        self._file = file
        self._pool = pool
        self._count = count
        self._names = list(file)
        self._places = {name: place for place, name in enumerate(self._names)}
        self._running: dict[str, Future[NDArray[Any]]] = {}
        self._taken: set[str] = set()

    def __getitem__(self, name: str) -> NDArray[Any]:
        place = self._places[name]
        self._taken.add(name)
        if name not in self._running:
            self._start(name)
        for following in self._names[place + 1 : place + self._count]:
            if len(self._running) < self._count and following not in self._running and following not in self._taken:
                self._start(following)
        return self._running.pop(name).result()

    def _start(self, name: str) -> None:
        self._running[name] = self._pool.submit(self._file.decode, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def cancel(self) -> None:
        """Drop what has not started."""
        for future in self._running.values():
            future.cancel()


def open_file(
    path: str | os.PathLike[str],
    *,
    limits: Limits | None = None,
    input_parameters: Mapping[str, InputParameters] | None = None,
) -> NnrFile:
    """Open an NNR file and index its units, without decoding anything.

    The file is mapped into memory, not read. ``input_parameters`` has, by tensor name, what reaches the decoder by
    other ways than the bitstream. Raises `BitstreamError` where its structure is damaged, `LimitError` where
    it asks for too much.
    """
    with Path(path).open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return NnrFile(b"")  # raises: there is no start unit
        return NnrFile(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), limits, input_parameters)


def decode(
    data: Buffer,
    *,
    limits: Limits | None = None,
    threads: int | None = None,
    input_parameters: Mapping[str, InputParameters] | None = None,
) -> dict[str, NDArray[Any]]:
    """Decode a whole NNR bitstream into its tensors, by name and in bitstream order.

    Arrays are float32 for quantized and raw tensors, int32 for integer ones, or what ``nnr_decompressed_data_format``
    asks for. ``input_parameters`` as for `open`. Raises `BitstreamError`, `UnsupportedError` or `LimitError`.
    """
    return dict(NnrFile(data, limits, input_parameters).decode_all(threads))
