"""The driver that invents values: legal ones, for property tests."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from nnc_core.errors import NncError
from nnc_core.syntax.driver import SIGNED, UNSIGNED, Buffer, Syntax

if TYPE_CHECKING:
    from random import Random

_LONGEST_LIST = 64
_LETTERS = "abcxyz019._-/: éβ→𝛂"
T = TypeVar("T")


class Sampler(Syntax):
    """Returns legal values drawn from ``source``; mostly small ones, now and then an extreme one."""

    def __init__(self, source: Random) -> None:
        self._source = source

    def u(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``u(bits)``."""
        if "count" in name:
            return self._source.randrange(4 if bits < 32 else 40)
        return self._source.choice(range(1 << bits) if valid is None else valid) if bits < 64 else self._wide(bits)

    def i(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``i(bits)``."""
        half = 1 << (bits - 1)
        return self._source.choice(range(-half, half) if valid is None else valid)

    def ue(self, k: int, name: str, value: int = 0, valid: Sequence[int] = UNSIGNED) -> int:
        """``ue(k)``."""
        return self._small(valid)

    def ie(self, k: int, name: str, value: int = 0, valid: Sequence[int] = SIGNED) -> int:
        """``ie(k)``."""
        return self._small(valid)

    def flt(self, name: str, value: float = 0.0) -> float:
        """``flt(32)``; finite, and exact in binary32."""
        number: float = struct.unpack("<f", struct.pack("<f", self._source.uniform(-1e6, 1e6)))[0]
        return number

    def st(self, name: str, value: str = "", longest: int = 4096) -> str:
        """``st(v)``."""
        return "".join(self._source.choice(_LETTERS) for _ in range(self._source.randrange(12)))

    def bs(self, name: str, value: Buffer = b"") -> Buffer:
        """``bs(v)``."""
        return bytes(self._source.randrange(256) for _ in range(self._source.randrange(40)))

    def byte_alignment(self) -> None:
        """``byte_alignment()``."""

    def reserved(self, bits: int, name: str) -> None:
        """Draw nothing: what a reserved field holds is not kept."""

    def expect(self, count: int, bits: int, name: str) -> None:
        """Refuse long lists, since a sample shall stay small."""
        if count > _LONGEST_LIST:
            raise self.illegal(name, f"{count} elements are too many for a sample")

    def _wide(self, bits: int) -> int:
        return self._source.randrange(1 << 63) << (bits - 63)

    def _small(self, valid: Sequence[int]) -> int:
        """Draw a value that is often within a few of zero, or of the legal value nearest to zero."""
        if not valid or self._source.random() < 0.05:
            return self._source.choice(valid)
        near = min(max(0, valid[0]), valid[-1])
        window = [n for n in range(near - 4, near + 5) if n in valid]
        return self._source.choice(window)


def sample(table: Callable[[Syntax, T], None], record: Callable[[], T], source: Random, tries: int = 1000) -> T:
    """Fill a record with what ``table`` allows; start afresh where values that are legal alone clash."""
    for _ in range(tries):
        drawn = record()
        try:
            table(Sampler(source), drawn)
        except (NncError, IndexError):
            continue
        return drawn
    raise ValueError(f"no legal values found in {tries} tries")
