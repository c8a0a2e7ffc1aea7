"""Reading tables of FlatBuffers: numbers and vectors at positions that are checked before anything is read."""

from __future__ import annotations

from collections.abc import Iterator

from nnc_core.errors import ModelError
from nnc_core.records import dataclass

__all__ = ["Table", "root"]


# How often the bytes of a file may be read. Parts of it can be shared, so that a small file could take forever.
_TIMES = 16


@dataclass(slots=True)
class _Budget:
    """How many bytes of vectors may still be read."""

    left: int

    def spend(self, size: int, at: int) -> None:
        self.left -= size
        if self.left < 0:
            raise ModelError(f"its parts are shared too often, as the vector at byte {at}")


@dataclass(frozen=True, slots=True)
class Table:
    """A table at byte ``at``; fields that are not stored have their default."""

    data: memoryview
    at: int
    budget: _Budget

    def number(self, field: int, size: int, default: int = 0) -> int:
        """An integer of ``size`` bytes; two's complement."""
        at = self._field(field)
        return default if at is None else _read(self.data, at, size, signed=True)

    def table(self, field: int) -> Table | None:
        """A table."""
        at = self._field(field)
        return None if at is None else Table(self.data, _target(self.data, at), self.budget)

    def tables(self, field: int) -> Iterator[Table]:
        """The tables in a vector."""
        start, count = self.vector(field, 4)
        for at in range(start, start + 4 * count, 4):
            yield Table(self.data, _target(self.data, at), self.budget)

    def numbers(self, field: int) -> list[int]:
        """The integers of 4 bytes in a vector."""
        start, count = self.vector(field, 4)
        return [_read(self.data, start + 4 * n, 4, signed=True) for n in range(count)]

    def text(self, field: int) -> str:
        """A text; what is not UTF-8 is escaped."""
        start, count = self.vector(field, 1)
        return bytes(self.data[start : start + count]).decode("utf-8", "backslashreplace")

    def vector(self, field: int, size: int) -> tuple[int, int]:
        """Where the elements of a vector begin, and how many there are, of ``size`` bytes each."""
        at = self._field(field)
        if at is None:
            return 0, 0
        start = _target(self.data, at)
        count = _read(self.data, start, 4)
        if start + 4 + count * size > len(self.data):
            raise ModelError(f"a vector of {count} elements at byte {start} ends outside the file")
        self.budget.spend(4 + count * size, start)
        return start + 4, count

    def _field(self, field: int) -> int | None:
        """Where a field is stored."""
        directory = self.at - _read(self.data, self.at, 4, signed=True)
        size = _read(self.data, directory, 2)
        entry = 4 + 2 * field
        if entry + 2 > size:
            return None
        offset = _read(self.data, directory + entry, 2)
        return self.at + offset if offset else None


def root(data: memoryview) -> Table:
    """The table that a file consists of."""
    return Table(data, _target(data, 0), _Budget(_TIMES * len(data)))


def _target(data: memoryview, at: int) -> int:
    return at + _read(data, at, 4)


def _read(data: memoryview, at: int, size: int, *, signed: bool = False) -> int:
    if not 0 <= at <= len(data) - size:
        raise ModelError(f"{size} bytes at byte {at} are needed, the file has {len(data)}")
    return int.from_bytes(data[at : at + size], "little", signed=signed)
