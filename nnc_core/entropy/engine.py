"""The binary arithmetic coder (clause 10): bins in, bits out, and back.

The interval has 9 bits: 256 <= interval <= 511 between bins. Both directions count in ``doublings`` how often it was
doubled; the decoder has then taken doublings + 9 bits from the payload. The encoder keeps the lower end of the
interval as one integer of unlimited size, which always fits in doublings + 9 bits: no carry needs a second thought.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from nnc_core.entropy.contexts import Context
from nnc_core.errors import PayloadError, TruncatedError
from nnc_core.tables.entry_point import EntryPoint

FIRST_INTERVAL = 510
ENTRY_INTERVAL = 256
REGISTER_BITS = 9


class Bins(ABC):
    """What the syntax needs of a coder, in either direction.

    Every method takes the value to write and returns the value that counts: an encoder hands back what it was given,
    a decoder ignores that and returns what it read. So the syntax is written down once.
    """

    @abstractmethod
    def start_contexts(self, shift_indices: Iterable[int]) -> None:
        """Replace all contexts by fresh ones, one for each parameter set in `shift_indices`."""

    @abstractmethod
    def bin(self, context: int, value: bool) -> bool:
        """Code one bin with the context of that number."""

    @abstractmethod
    def bypass(self, value: int, bits: int) -> int:
        """Code an unsigned number in equiprobable bins, the most significant first."""

    @abstractmethod
    def start_band(self, dq_state: int) -> None:
        """Make this place one where a decoder can start."""

    def start_element(self) -> None:  # noqa: B027
        """Get ready for the bins of one more integer; only statistics count them."""

    @abstractmethod
    def check(self) -> None:
        """Complain if the payload has already ended (called now and then)."""


class _Band(NamedTuple):
    doublings: int
    register: int
    dq_state: int


class _Coder(Bins):
    """What both directions have in common."""

    def __init__(self) -> None:
        self._interval = FIRST_INTERVAL
        self._doublings = 0
        self._contexts: list[Context] = []

    def start_contexts(self, shift_indices: Iterable[int]) -> None:
        """Contexts that know nothing yet."""
        self._contexts = [Context(index) for index in shift_indices]


class ArithmeticEncoder(_Coder):
    """Writes bins."""

    def __init__(self) -> None:
        super().__init__()
        self._low = 0
        self._bands: list[list[_Band]] = []

    def start_tensor(self) -> None:
        """Collect the entry points from here on in a list of their own."""
        self._bands.append([])

    def bin(self, context: int, value: bool) -> bool:
        """Keep the part of the interval that stands for the value."""
        model = self._contexts[context]
        width = model.lps_width(self._interval)
        self._interval -= width
        if value != model.mps:
            self._low += self._interval
            self._interval = width
        while self._interval < 256:
            self._interval *= 2
            self._low *= 2
            self._doublings += 1
        model.update(value)
        return value

    def bypass(self, value: int, bits: int) -> int:
        """Halve the interval `bits` times."""
        self._low = (self._low << bits) + self._interval * value
        self._doublings += bits
        return value

    def start_band(self, dq_state: int) -> None:
        """Give up what exceeds the fixed interval that a decoder starts with."""
        self._interval = ENTRY_INTERVAL
        self._bands[-1].append(_Band(self._doublings, self._low % 512, dq_state))

    def check(self) -> None:
        """An encoder never runs out of bits."""

    def payload(self) -> bytes:
        """End the codeword with a terminating bin of 1 and a stop bit, and return all of it."""
        word = (self._low + self._interval - 2) | 1
        bits = self._doublings + REGISTER_BITS
        padding = -bits % 8
        return (word << padding).to_bytes((bits + padding) // 8, "big")

    def entry_points(self, payload: bytes) -> list[list[EntryPoint]]:
        """The entry points of every tensor, now that the bits a decoder will find there are known."""
        return [_entry_points([_decoder_view(band, payload) for band in bands]) for bands in self._bands]


def _decoder_view(band: _Band, payload: bytes) -> _Band:
    """What a decoder's register holds at a band, given the low bits of the encoder's."""
    window = _bits(payload, band.doublings, REGISTER_BITS)
    return band._replace(register=(window - band.register) % 512)


def _entry_points(bands: list[_Band]) -> list[EntryPoint]:
    """Entry points of all bands but the first, each placed relative to the band before it."""
    return [
        EntryPoint(band.doublings - previous.doublings, band.register, band.dq_state)
        for previous, band in pairwise(bands)
    ]


def _bits(payload: bytes, start: int, count: int) -> int:
    """`count` bits of the payload from bit `start`; zeros follow its end."""
    value = 0
    for position in range(start, start + count):
        byte = payload[position // 8] if position // 8 < len(payload) else 0
        value = 2 * value + (byte >> (7 - position % 8) & 1)
    return value


class ArithmeticDecoder(_Coder):
    """Reads bins. Past the end of the payload it reads zeros, until `check` or `end` finds out."""

    def __init__(self, payload: bytes) -> None:
        super().__init__()
        self._payload = payload
        self._offset = _bits(payload, 0, REGISTER_BITS)
        self._bands: list[_Band] = []

    def start_tensor(self) -> None:
        """Collect entry points anew. Raises as `check_start`."""
        self.check_start()
        self._bands = []

    def check_start(self) -> None:
        """Raises PayloadError where no encoder starts a payload like this one."""
        if _bits(self._payload, 0, REGISTER_BITS) >= FIRST_INTERVAL:
            raise PayloadError(
                "the arithmetic decoder's offset is too large at the start",
                bit_offset=0,
                expected=f"less than {FIRST_INTERVAL}",
            )

    def bin(self, context: int, value: bool) -> bool:
        """Find the part of the interval that the offset lies in."""
        model = self._contexts[context]
        width = model.lps_width(self._interval)
        self._interval -= width
        value = model.mps
        if self._offset >= self._interval:
            value = not value
            self._offset -= self._interval
            self._interval = width
        while self._interval < 256:
            self._interval *= 2
            self._shift_in()
        model.update(value)
        return value

    def bypass(self, value: int, bits: int) -> int:
        """Compare the doubled offset with the interval `bits` times."""
        value = 0
        for _ in range(bits):
            self._shift_in()
            value = 2 * value + (self._offset >= self._interval)
            self._offset %= self._interval
        return value

    def _shift_in(self) -> None:
        self._offset = 2 * self._offset + _bits(self._payload, self._doublings + REGISTER_BITS, 1)
        self._doublings += 1

    def start_band(self, dq_state: int) -> None:
        """Raises PayloadError if the offset lies outside the fixed interval, as no encoder leaves it."""
        if self._offset >= ENTRY_INTERVAL:
            raise PayloadError(
                "the arithmetic decoder's offset is too large at a row of blocks",
                bit_offset=self._doublings,
                expected=f"less than {ENTRY_INTERVAL}",
            )
        self._interval = ENTRY_INTERVAL
        self._bands.append(_Band(self._doublings, self._offset, dq_state))

    def entry_points(self) -> list[EntryPoint]:
        """Where the rows of blocks of the current tensor began."""
        return _entry_points(self._bands)

    def check(self) -> None:
        """Raises TruncatedError if bits past the end have been used."""
        taken, available = self._doublings + REGISTER_BITS, 8 * len(self._payload)
        if taken > available:
            raise TruncatedError("the payload ends inside its codeword", bit_offset=available)

    def end(self) -> int:
        """Check the terminating bin, the stop bit and the zeros behind it; return the number of bytes used."""
        self.check_start()
        self.check()
        stop = self._doublings + REGISTER_BITS - 1
        if self._offset < self._interval - 2:
            raise PayloadError("the codeword continues after the last tensor", bit_offset=stop, expected="its end")
        unused = 7 - stop % 8
        if _bits(self._payload, stop, 1 + unused) != 1 << unused:
            raise PayloadError("the codeword has a wrong end", bit_offset=stop, expected="a one, then zeros")
        return stop // 8 + 1
