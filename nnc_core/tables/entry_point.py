"""Where a payload can be entered, as both headers and the payload coder know it."""

from __future__ import annotations

from typing import NamedTuple


class EntryPoint(NamedTuple):
    """Where a decoder can start at a row of blocks other than the first.

    ``bit_offset`` counts bits since the previous row of blocks, ``cabac_offset`` is the decoder's offset register and
    ``dq_state`` the state of dependent quantization there.
    """

    bit_offset: int
    cabac_offset: int
    dq_state: int
