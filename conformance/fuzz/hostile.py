"""Makes hostile bitstreams of valid ones: the many ways in which these can be damaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import wraps
from random import Random

from conformance.fuzz.damage import EXTREMES, Damage, flipped, inserted_or_deleted, overwritten, with_extreme_number
from conformance.fuzz.seeds import Seed, encoded, handmade, seeds
from nnc_core.bitstream import UnitRecord
from nnc_core.errors import NncError
from nnc_core.syntax import Writer
from nnc_core.syntax.unit_types import UNIT_TYPES
from nnc_core.syntax.units import unit
from nnc_core.tables.code_points import NnrUnitType

_MOST_ELEMENTS = 5000
_ANY = range(-(1 << 70), 1 << 70)


class Disturber(Writer):
    """Writes what it is given but for the elements at ``places``, which become extreme values, legal or not."""

    def __init__(self, source: Random, places: Sequence[int] = ()) -> None:
        super().__init__()
        self._source = source
        self._places = places
        self.elements = 0

    def whole_bytes(self) -> bytes:
        """What was written, filled up with a proper alignment."""
        if self.bits & 7:
            self.byte_alignment()
        return self.data()

    def u(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``u(bits)``, whose value is cut to what the bits hold."""
        return super().u(bits, name, self._disturbed(name, value) & ((1 << bits) - 1))

    def i(self, bits: int, name: str, value: int = 0, valid: Sequence[int] | None = None) -> int:
        """``i(bits)``, whose value is cut to what the bits hold."""
        half = 1 << (bits - 1)
        return super().i(bits, name, (self._disturbed(name, value) + half) % (2 * half) - half)

    def ue(self, k: int, name: str, value: int = 0, valid: Sequence[int] = ()) -> int:
        """``ue(k)``."""
        return super().ue(k, name, self._disturbed(name, value), _ANY)

    def ie(self, k: int, name: str, value: int = 0, valid: Sequence[int] = ()) -> int:
        """``ie(k)``."""
        value = int(value or 0)
        extreme = self._disturbed(name, value)
        return super().ie(k, name, -extreme if extreme != value and self._source.random() < 0.5 else extreme, _ANY)

    def st(self, name: str, value: str = "", longest: int = 4096) -> str:
        """``st(v)``."""
        self._count(name)
        return super().st(name, value or "", longest)

    def flt(self, name: str, value: float = 0.0) -> float:
        """``flt(32)``."""
        return super().flt(name, value or 0.0)

    def _count(self, name: str) -> None:
        self.elements += 1
        if self.elements > _MOST_ELEMENTS:
            raise self.illegal(name, "an element in disorder asks for a list without end")

    def _disturbed(self, name: str, value: int) -> int:
        self._count(name)
        value = int(value or 0)  # None is what an element has that was absent in the original
        if self.elements - 1 not in self._places:
            return value
        return self._source.choice((*EXTREMES, value + 1, max(0, value - 1), 2 * value))


def disturbed(source: Random, seed: Seed) -> bytes:
    """Set some elements of a header to extreme values; the syntax that follows goes along, and so does the size."""
    parts = list(seed.parts)
    place = source.randrange(len(parts))
    found = seed.units[place]
    payload = parts[place][found.payload_offset - found.offset :]
    parts[place] = unit(_kind(found), _disturbed_header(source, found), payload, found.partial_data_counter)
    return b"".join(parts)


def _disturbed_header(source: Random, found: UnitRecord) -> bytes:
    if found.type not in UNIT_TYPES:
        return source.randbytes(2)
    table = UNIT_TYPES[found.type].header.run
    whole = Disturber(source)
    table(whole, deepcopy(found.header), found.context)
    places = [source.randrange(whole.elements) for _ in range(source.choice((1, 1, 2, 3)))]
    writer = Disturber(source, places)
    with suppress(NncError, ValueError, IndexError):  # what comes next may make no sense with the new value
        table(writer, deepcopy(found.header), found.context)
    return writer.whole_bytes()


def _kind(found: UnitRecord) -> NnrUnitType:
    return NnrUnitType(found.type) if found.type <= max(NnrUnitType) else NnrUnitType.NNR_QNT


def reordered(source: Random, seed: Seed) -> bytes:
    """Move, repeat, or drop whole units."""
    parts = list(seed.parts)
    for _ in range(source.choice((1, 1, 2, 3))):
        part = source.choice(parts)
        action = source.randrange(3)
        if action:
            parts.insert(source.randrange(len(parts) + 1), part if action == 1 else part * source.choice((1, 2, 300)))
        elif len(parts) > 1:
            parts.remove(part)
    return b"".join(parts)


def repacked(source: Random, seed: Seed) -> bytes:
    """Damage one unit inside, or give it another payload, and correct its size."""
    parts = list(seed.parts)
    place = source.randrange(len(parts))
    found = seed.units[place]
    start = found.payload_offset - found.offset
    head, payload = parts[place][2 if found.size < 1 << 15 else 4 : start], parts[place][start:]
    damage = source.choice((flipped, overwritten, inserted_or_deleted, with_extreme_number, _replaced))
    if source.random() < 0.5:
        head = damage(source, head)
    else:
        payload = damage(source, payload)
    size = 2 + len(head) + len(payload)
    parts[place] = size.to_bytes(2, "big") + head + payload
    return b"".join(parts)


def _replaced(source: Random, data: bytes) -> bytes:
    count = source.choice((0, 1, 2, 9, len(data), 2000))
    return source.choice((bytes(count), b"\xff" * count, source.randbytes(count)))


def spliced(source: Random, seed: Seed, other: Seed) -> bytes:
    """Go on with another bitstream, from anywhere or from the start of a unit."""
    if source.random() < 0.5:
        return seed.data[: source.randrange(len(seed.data))] + other.data[source.randrange(len(other.data)) :]
    return b"".join([*seed.parts[: source.randrange(len(seed.parts)) + 1], *other.parts[source.randrange(3) :]])


def _of_bytes(damage: Damage) -> Callable[[Random, Seed], bytes]:
    """Damage that knows nothing of units."""

    @wraps(damage)
    def done(source: Random, seed: Seed) -> bytes:
        return damage(source, seed.data)

    return done


_DAMAGES = (
    *map(_of_bytes, (flipped, overwritten, inserted_or_deleted, with_extreme_number)),
    *(disturbed, disturbed, disturbed, reordered, repacked, repacked),
)


class Cases:
    """The hostile bitstreams of one run: number ``n`` is the same whenever ``seed`` and the corpus are.

    The first ``cuts`` are the bitstreams to start from, cut at every byte.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._seeds = seeds()
        cuts = [(number, size) for number, found in enumerate(self._seeds) for size in range(len(found.data))]
        Random(seed).shuffle(cuts)
        self._own = len([*encoded(), *handmade()])
        self._cuts = sorted(cuts, key=lambda cut: cut[0] >= self._own)  # those of the corpus come last
        self.cuts = len(cuts)

    def __getitem__(self, number: int) -> tuple[str, bytes]:
        """What was done to which bitstream, and the result."""
        if number < self.cuts:
            which, size = self._cuts[number]
            return f"{self._seeds[which].name}: cut to {size} bytes", self._seeds[which].data[:size]
        source = Random(f"{self._seed} {number - self.cuts}")
        seed = source.choice(self._seeds if source.random() < 0.5 else self._seeds[: self._own])
        what, data = self._damaged(source, seed)
        if source.random() < 0.2:
            more, data = self._damaged(source, Seed("", data))
            what = f"{what}, {more}"
        return f"{seed.name}: {what}", data

    def _damaged(self, source: Random, seed: Seed) -> tuple[str, bytes]:
        """Damage a bitstream in one way; one that has no units any more is but flipped."""
        if not seed.units:
            return "flipped", flipped(source, seed.data)
        if source.random() < 0.1:
            other = source.choice(self._seeds)
            return f"spliced with {other.name}", spliced(source, seed, other)
        damage = source.choice(_DAMAGES)
        return damage.__name__, damage(source, seed)
