"""What indices cost in bits, as an adaptive coder learns it, in plain Python: for the reference quantizers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from nnc_core.entropy.contexts import Context, Layout
from nnc_core.tables.estimates import RATE_UNIT_BITS

RATE_BLOCK = 16
"""After so many elements a quantizer teaches the model what seems to be the best choice for them."""


class RateModel:
    """The contexts of one tensor without codebook, base or history; costs are bits times `lagrangian`.

    It knows an index by its `neighbour`, the sign of the index before it, and the state of dependent quantization.
    """

    def __init__(self, lagrangian: float, cabac_unary_length_minus1: int, shift_indices: Sequence[int] | None) -> None:
        self._unit = lagrangian / (1 << RATE_UNIT_BITS)
        self._layout = Layout(cabac_unary_length_minus1 + 1)
        self._shift_indices = shift_indices or (0,) * self._layout.size
        if len(self._shift_indices) != self._layout.size:
            raise ValueError(
                f"shift_indices are {len(self._shift_indices)}, one for each of {self._layout.size} contexts"
            )
        self.restart()

    def restart(self) -> None:
        """Forget everything, as at the start of a row of blocks."""
        self._contexts = [Context(index) for index in self._shift_indices]

    def flags(self, index: int, neighbour: int, state: int) -> float:
        """The cost of significance and sign."""
        return self._unit * self._bits(self._flag_bins(index, neighbour, state))

    def magnitude(self, index: int) -> float:
        """The cost of everything that follows them; 0 for index 0."""
        return self._unit * (self._bits(self._magnitude_bins(index)) + (self._remainder(index) << RATE_UNIT_BITS))

    def learn(self, index: int, neighbour: int, state: int) -> None:
        """Adapt to an index that is coded."""
        for bins in (self._flag_bins(index, neighbour, state), self._magnitude_bins(index)):
            for context, value in bins:
                self._contexts[context].update(value)

    def _bits(self, bins: Iterable[tuple[int, bool]]) -> int:
        return sum(self._contexts[context].bits(value) for context, value in bins)

    def _flag_bins(self, index: int, neighbour: int, state: int) -> Iterator[tuple[int, bool]]:
        yield self._layout.sig_flag(state, neighbour, 0, marked=False), index != 0
        if index != 0:
            yield self._layout.sign_flag(neighbour, 0), index < 0

    def _magnitude_bins(self, index: int) -> Iterator[tuple[int, bool]]:
        if index == 0:
            return
        for j in range(self._layout.unary_length):
            yield self._layout.greater_x(j, index < 0, 0), abs(index) > j + 1
            if abs(index) == j + 1:
                return
        for j in range(self._remainder(index)):
            yield self._layout.greater_x2(j), True
        yield self._layout.greater_x2(self._remainder(index)), False

    def _remainder(self, index: int) -> int:
        """How many bits follow the prefix."""
        rest = abs(index) - self._layout.unary_length
        return rest.bit_length() - 1 if rest > 0 else 0
