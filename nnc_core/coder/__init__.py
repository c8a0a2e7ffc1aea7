"""From tensors to NNR units and back, and the module ``coder`` of ISO/IEC 15938-18."""

from nnc_core.coder.data import EncInfo, input_parameters_from_json, input_parameters_to_json
from nnc_core.coder.part18 import Encoded, decode, encode, encode_all

__all__ = [
    "EncInfo",
    "Encoded",
    "decode",
    "encode",
    "encode_all",
    "input_parameters_from_json",
    "input_parameters_to_json",
]
