"""How units are cut into parts (``partial_data_counter``, clause 6.4.3.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from nnc_core.errors import LimitError
from nnc_core.syntax.driver import Buffer
from nnc_core.syntax.units import LONG, SHORT, unit_size

MOST_PARTS: Final = 255


class Division(NamedTuple):
    """Into how many parts a unit is cut, or how large one may be in bytes, which counts more; 0: as may be.

    These are ``partial_data_counter`` and ``max_ndu_nnr_unit_size`` of ISO/IEC 15938-18, Table 11.
    """

    parts: int = 0
    max_unit_size: int = 0

    def pieces(self, header_size: int, payload: Buffer) -> Iterator[tuple[int, Buffer]]:
        """The counter and payload of each part of a unit whose type has a header of ``header_size`` bytes.

        `LimitError` if 255 parts are not enough, or the header alone is too large.
        """
        most, wanted = self.max_unit_size or LONG, 1 if self.max_unit_size else max(1, self.parts)
        if min(wanted, max(1, len(payload))) == 1 and unit_size(header_size, len(payload)) <= most:
            yield 0, payload
            return
        room = most - unit_size(header_size, 0, in_parts=True) - (2 if most > SHORT else 0)
        if room < 1:
            raise LimitError("max_ndu_nnr_unit_size", most - room + 1, most, "the header of a part")
        size = max(1, min(room, -(-len(payload) // wanted)))
        count = -(-len(payload) // size)
        if count > MOST_PARTS:
            raise LimitError("partial_data_counter", count, MOST_PARTS)
        view = memoryview(payload)
        for j in range(count):
            yield count - j if count > 1 else 0, view[j * size : (j + 1) * size]


WHOLE: Final = Division()
