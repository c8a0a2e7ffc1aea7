"""What an arithmetic-coded payload consists of, bin by bin: for people who look into a bitstream (clause 10)."""

from __future__ import annotations

from collections.abc import Iterable
from math import log2
from typing import NamedTuple

from nnc_core.entropy.contexts import GTX, SIG, SIG_HIST, SIG_TCA, SIGN, SIGN_TCA, Layout
from nnc_core.entropy.engine import ArithmeticDecoder
from nnc_core.entropy.parameters import TensorParameters
from nnc_core.entropy.reference import Decoder


class TracedBin(NamedTuple):
    """One bin, or a run of equiprobable ones in ``value``.

    ``context`` names the adaptive model, and is empty for equiprobable bins. ``bits`` is what the bin has cost: minus
    the binary logarithm of its part of the interval. ``bit_offset`` is how many bits of the payload had been read.
    """

    context: str
    value: int
    bits: float
    bit_offset: int


class TracingDecoder(Decoder):
    """The reference decoder, which also keeps every bin in ``bins``."""

    def __init__(self, payload: bytes | bytearray | memoryview) -> None:
        super().__init__(payload)
        self._bins = self._tracer = _TracingBins(bytes(payload))

    @property
    def bins(self) -> list[TracedBin]:
        """The bins so far."""
        return self._tracer.bins

    def name_contexts(self, parameters: TensorParameters) -> None:
        """Let bins go by the names of the contexts that a tensor with these parameters has."""
        self._tracer.layout = Layout(parameters.cabac_unary_length_minus1 + 1)


class _TracingBins(ArithmeticDecoder):
    def __init__(self, payload: bytes) -> None:
        super().__init__(payload)
        self.layout = Layout(1)
        self.bins: list[TracedBin] = []

    def bin(self, context: int, value: bool) -> bool:
        model, interval, place = self._contexts[context], self._interval, self._doublings
        width = model.lps_width(interval)
        likely = model.mps
        value = super().bin(context, value)
        bits = log2(interval / (interval - width if value == likely else width))
        self.bins.append(TracedBin(context_name(self.layout, context), int(value), bits, place))
        return value

    def bypass(self, value: int, bits: int) -> int:
        place = self._doublings
        value = super().bypass(value, bits)
        if bits:
            self.bins.append(TracedBin("", value, bits, place))
        return value


def context_name(layout: Layout, context: int) -> str:
    """The syntax element that a context serves, and the context's number among those of the element."""
    if context >= layout.size:
        return "shift_idx_minus_1_present_flag" if context == layout.shift else "row_skip_list"
    first, name = max(group for group in _groups(layout) if group[0] <= context)
    return f"{name}[{context - first}]"


def _groups(layout: Layout) -> Iterable[tuple[int, str]]:
    """Where the contexts of each element begin."""
    return (
        (SIG, "sig_flag"),
        (SIG_TCA, "sig_flag_tca"),
        (SIG_HIST, "sig_flag_hist"),
        (SIGN, "sign_flag"),
        (SIGN_TCA, "sign_flag_tca"),
        (GTX, "abs_level_greater_x"),
        (layout.gtx_tca, "abs_level_greater_x_tca"),
        (layout.x2, "abs_level_greater_x2"),
    )
