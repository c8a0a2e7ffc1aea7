"""Messages of protocol buffers, read field by field."""

from __future__ import annotations

from collections.abc import Iterator

from nnc_adapters.shared import protobuf

__all__ = ["Message"]


class Message:
    """The message in ``data[start:end]``; `protobuf.WireError` if it is not one, or has a field of another type."""

    def __init__(self, data: memoryview, start: int = 0, end: int | None = None) -> None:
        self._data = data
        self._fields = list(protobuf.fields(data, start, len(data) if end is None else end))

    def field(self, number: int, wire_type: int) -> protobuf.Field | None:
        """The last field of this number: that is the one which counts."""
        found = None
        for field in self._all(number, wire_type):
            found = field
        return found

    def number(self, number: int) -> int:
        """A number; 0 where it is not stored."""
        field = self.field(number, protobuf.VARINT)
        return 0 if field is None else protobuf.varint(self._data, field.value, field.end)[0]

    def text(self, number: int) -> str:
        """A text; empty where it is not stored."""
        field = self.field(number, protobuf.LENGTH_DELIMITED)
        try:
            return "" if field is None else bytes(self._data[field.value : field.end]).decode()
        except UnicodeDecodeError as error:
            raise protobuf.WireError(f"field {number} is not text: {error}") from error

    def messages(self, number: int) -> Iterator[Message]:
        """The messages in a repeated field."""
        for field in self._all(number, protobuf.LENGTH_DELIMITED):
            yield Message(self._data, field.value, field.end)

    def _all(self, number: int, wire_type: int) -> Iterator[protobuf.Field]:
        for field in self._fields:
            if field.number == number:
                if field.wire_type != wire_type:
                    raise protobuf.WireError(f"field {number} at byte {field.start} has wire type {field.wire_type}")
                yield field
