"""A bitstream as units: an index that leaves payloads untouched, and a writer that streams (clauses 6.3 and 6.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnc_core.lazy import imported_on_use

if TYPE_CHECKING:
    from nnc_core.bitstream.data_units import DataUnit
    from nnc_core.bitstream.division import Division
    from nnc_core.bitstream.index import Bitstream
    from nnc_core.bitstream.units import UnitRecord
    from nnc_core.bitstream.writer import BitstreamWriter
else:
    __getattr__ = imported_on_use(
        __name__,
        {
            "data_units": ("DataUnit",),
            "division": ("Division",),
            "index": ("Bitstream",),
            "units": ("UnitRecord",),
            "writer": ("BitstreamWriter",),
        },
    )

__all__ = ["Bitstream", "BitstreamWriter", "DataUnit", "Division", "UnitRecord"]
