"""Neural Network Coding (ISO/IEC 15938-17): the codec."""

from __future__ import annotations

from nnc_core.errors import BitstreamError, LimitError, ModelError, NncError, UnsupportedError
from nnc_core.limits import Limits

__all__ = ["BitstreamError", "LimitError", "Limits", "ModelError", "NncError", "UnsupportedError"]
__version__ = "0.1.0"
