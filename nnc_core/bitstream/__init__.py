"""A bitstream as units: an index that leaves payloads untouched, and a writer that streams (clauses 6.3 and 6.4)."""

from nnc_core.bitstream.data_units import DataUnit
from nnc_core.bitstream.division import Division
from nnc_core.bitstream.index import Bitstream
from nnc_core.bitstream.units import UnitRecord
from nnc_core.bitstream.writer import BitstreamWriter

__all__ = ["Bitstream", "BitstreamWriter", "DataUnit", "Division", "UnitRecord"]
