"""Neural Network Coding (ISO/IEC 15938-17): the codec.

`encode` and `decode` work on named arrays in memory, `open` on a file from which single tensors are taken, `write`
streams a whole model into a file. `split` takes a bitstream apart into one per tensor, `join` undoes that.
"""

from __future__ import annotations

from nnc_core.bitstream.parts import join, split
from nnc_core.coder.encode import encode, write
from nnc_core.coder.file import NnrFile, TensorInfo, decode
from nnc_core.coder.file import open_file as open
from nnc_core.errors import (
    BitstreamError,
    LimitError,
    MissingDependencyError,
    ModelError,
    NncError,
    UnsupportedError,
)
from nnc_core.limits import Limits
from nnc_core.nnr_model import ModelInfo, SourceModel, Topology
from nnc_core.planner.parameters import CodingParameters, Rule
from nnc_core.syntax.context import InputParameters

__all__ = [
    "BitstreamError",
    "CodingParameters",
    "InputParameters",
    "LimitError",
    "Limits",
    "MissingDependencyError",
    "ModelError",
    "ModelInfo",
    "NncError",
    "NnrFile",
    "Rule",
    "SourceModel",
    "TensorInfo",
    "Topology",
    "UnsupportedError",
    "__version__",
    "decode",
    "encode",
    "join",
    "open",
    "split",
    "write",
]
__version__ = "0.1.0"
