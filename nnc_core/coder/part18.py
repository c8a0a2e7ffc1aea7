"""The functions of ISO/IEC 15938-18, module ``coder``: dictionaries to a bitstream, and back.

Names of blocks are not in a bitstream: `decode` takes them from ``model_info``, or calls a block like its weight.
"""

from __future__ import annotations
