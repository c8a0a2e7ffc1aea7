"""From tensors to NNR units and back, and the module ``coder`` of ISO/IEC 15938-18."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnc_core.lazy import imported_on_use

if TYPE_CHECKING:
    from nnc_core.coder.data import EncInfo, input_parameters_from_json, input_parameters_to_json
    from nnc_core.coder.part18 import Encoded, decode, encode, encode_all
else:
    __getattr__ = imported_on_use(
        __name__,
        {
            "data": ("EncInfo", "input_parameters_from_json", "input_parameters_to_json"),
            "part18": ("Encoded", "decode", "encode", "encode_all"),
        },
    )

__all__ = [
    "EncInfo",
    "Encoded",
    "decode",
    "encode",
    "encode_all",
    "input_parameters_from_json",
    "input_parameters_to_json",
]
