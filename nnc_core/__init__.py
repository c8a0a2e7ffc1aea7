"""Neural Network Coding (ISO/IEC 15938-17): the codec.

`encode` and `decode` work on named arrays in memory, `open` on a file from which single tensors are taken, `write`
streams a whole model into a file. `split` takes a bitstream apart into one per tensor, `join` undoes that.
`UpdateEncoder` and `UpdateDecoder` code what changed in a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnc_core.lazy import imported_on_use

if TYPE_CHECKING:
    from nnc_core.approximator.calibrated import Covariance, LayerInputs
    from nnc_core.bitstream.parts import join, split
    from nnc_core.coder.history import History
    from nnc_core.coder.plan import Method, ModelPlan, TensorPlan
    from nnc_core.errors import (
        BitstreamError,
        IntegrityError,
        LimitError,
        MissingDependencyError,
        MissingLinkError,
        ModelError,
        NncError,
        ReplayError,
        UnsupportedError,
        UpdateError,
        WrongBaseError,
    )
    from nnc_core.file import NnrFile, TensorInfo, decode
    from nnc_core.file import open_file as open
    from nnc_core.limits import Limits
    from nnc_core.nnr_model import Evaluation, ModelInfo, QpSearch, SourceModel, Topology
    from nnc_core.planner.evaluated import optimize
    from nnc_core.planner.parameters import CodingParameters, Rule
    from nnc_core.planner.planning import plan
    from nnc_core.planner.prediction import Prediction, predict
    from nnc_core.syntax.context import InputParameters
    from nnc_core.updates import LossyOptions, UpdateDecoder, UpdateEncoder, UpdateOptions
    from nnc_core.writing import encode, write
else:
    # Programs that only ask for help, or look at headers, need not wait for what they do not use.
    __getattr__ = imported_on_use(
        __name__,
        {
            "approximator.calibrated": ("Covariance", "LayerInputs"),
            "bitstream.parts": ("join", "split"),
            "coder.history": ("History",),
            "writing": ("encode", "write"),
            "errors": (
                "BitstreamError",
                "IntegrityError",
                "LimitError",
                "MissingDependencyError",
                "MissingLinkError",
                "ModelError",
                "NncError",
                "ReplayError",
                "UnsupportedError",
                "UpdateError",
                "WrongBaseError",
            ),
            "file": ("NnrFile", "TensorInfo", "decode", "open_file as open"),
            "limits": ("Limits",),
            "nnr_model": ("Evaluation", "ModelInfo", "QpSearch", "SourceModel", "Topology"),
            "planner.evaluated": ("optimize",),
            "planner.parameters": ("CodingParameters", "Rule"),
            "coder.plan": ("Method", "ModelPlan", "TensorPlan"),
            "planner.planning": ("plan",),
            "planner.prediction": ("Prediction", "predict"),
            "syntax.context": ("InputParameters",),
            "updates": ("LossyOptions", "UpdateDecoder", "UpdateEncoder", "UpdateOptions"),
        },
    )

__all__ = [
    "BitstreamError",
    "CodingParameters",
    "Covariance",
    "Evaluation",
    "History",
    "InputParameters",
    "IntegrityError",
    "LayerInputs",
    "LimitError",
    "Limits",
    "LossyOptions",
    "Method",
    "MissingDependencyError",
    "MissingLinkError",
    "ModelError",
    "ModelInfo",
    "ModelPlan",
    "NncError",
    "NnrFile",
    "Prediction",
    "QpSearch",
    "ReplayError",
    "Rule",
    "SourceModel",
    "TensorInfo",
    "TensorPlan",
    "Topology",
    "UnsupportedError",
    "UpdateDecoder",
    "UpdateEncoder",
    "UpdateError",
    "UpdateOptions",
    "WrongBaseError",
    "__version__",
    "decode",
    "encode",
    "join",
    "open",
    "optimize",
    "plan",
    "predict",
    "split",
    "write",
]
__version__ = "0.1.0"
