"""What a report says: bytes, errors, levels and syntax elements of a bitstream."""

from __future__ import annotations

import math
from dataclasses import field
from typing import NamedTuple

from nnc_adapters.comparison import TensorComparison, TopologyVerdict
from nnc_core.records import dataclass
from nnc_core.syntax import TracedElement

__all__ = ["Bytes", "Levels", "Report", "StreamReport", "TensorReport", "UnitReport"]

_FEW = 5


class Bytes(NamedTuple):
    """Where bytes go: payloads of tensors, descriptions of the model, names, and everything else."""

    weights: int = 0
    topology: int = 0
    names: int = 0
    headers: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self)


class Levels(NamedTuple):
    """A histogram of quantized levels, or of integers.

    ``counts[i]`` counts the levels from ``first + i * width`` on, ``below`` and ``above`` what lies beside these bins.
    ``entropy`` is that of the coded integers taken one by one, in bits: what they would cost without contexts.
    """

    first: int
    width: int
    counts: tuple[int, ...]
    below: int
    above: int
    zeros: int
    entropy: float


@dataclass(frozen=True, slots=True)
class TensorReport:
    """One tensor: its place and form in the bitstream and, with an original, what became of its values.

    ``bytes`` are those of its ``units``; a block's are shared out among its tensors by their elements. ``exact_as``
    says in which form exact values travel, ``step`` is the distance of quantized ones. ``error`` is None without an
    original.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: str
    qp: int | None
    step: float | None
    units: tuple[int, ...]
    bytes: Bytes
    exact_as: str = ""
    levels: Levels | None = None
    error: TensorComparison | None = None

    @property
    def elements(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def bits_per_weight(self) -> float:
        """The bits for each number, headers and names included."""
        return 8 * self.bytes.total / max(self.elements, 1)

    @property
    def exact(self) -> bool:
        """Whether no value changed, as far as is known."""
        return self.error.exact if self.error else bool(self.exact_as)

    @property
    def sqnr_db(self) -> float | None:
        """The signal-to-noise ratio in decibels; None for an exact tensor, and without an original."""
        return None if self.error is None or self.error.exact else self.error.sqnr_db

    @property
    def why_exact(self) -> str:
        """The reason why it is exact, or the form in which exact values travel."""
        reason = self.error.exact_because if self.error else None
        return (reason or f"stored losslessly{self.exact_as and f': {self.exact_as}'}") if self.exact else ""


@dataclass(frozen=True, slots=True)
class UnitReport:
    """One unit: ``head`` are its first bytes, from before the payload until a little into it."""

    index: int
    offset: int
    size: int
    type: str
    kind: str
    content: str
    payload_offset: int
    within: int | None
    elements: tuple[TracedElement, ...]
    omitted: int
    head: bytes


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One bitstream; ``sqnr_db`` is that of all its weights together, ``topology`` how it compares; see `verify`."""

    label: str
    bytes: Bytes
    tensors: tuple[TensorReport, ...]
    units: tuple[UnitReport, ...]
    sqnr_db: float | None = None
    topology: TopologyVerdict | None = None
    original_bytes: int | None = None

    @property
    def weights(self) -> int:
        """The numbers in all tensors."""
        return sum(t.elements for t in self.tensors)

    @property
    def bits_per_weight(self) -> float | None:
        """The bits of the whole bitstream for each number; None where there is none."""
        return 8 * self.bytes.total / self.weights if self.weights else None

    @property
    def largest(self) -> list[TensorReport]:
        """The five tensors that take most bytes."""
        return sorted(self.tensors, key=lambda t: -t.bytes.total)[:_FEW]

    @property
    def worst(self) -> list[TensorReport]:
        """The five tensors with the lowest SQNR."""
        noisy = [(t.sqnr_db, place) for place, t in enumerate(self.tensors) if t.sqnr_db is not None]
        return [self.tensors[place] for _, place in sorted(noisy)[:_FEW]]

    @property
    def exact(self) -> dict[str, list[TensorReport]]:
        """The tensors that are exact, by the reason for it."""
        reasons: dict[str, list[TensorReport]] = {}
        for tensor in self.tensors:
            if tensor.exact:
                reasons.setdefault(tensor.why_exact, []).append(tensor)
        return reasons


@dataclass(frozen=True, slots=True)
class Report:
    """A bitstream, and others beside it; ``original`` is the name of the model that they were made from."""

    stream: StreamReport
    beside: tuple[StreamReport, ...] = field(default_factory=tuple)
    original: str | None = None

    @property
    def streams(self) -> tuple[StreamReport, ...]:
        """All bitstreams, that of the report first."""
        return (self.stream, *self.beside)
