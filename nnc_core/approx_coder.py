"""Approximation and coding in one go (ISO/IEC 15938-18, module ``approx_coder``)."""

from __future__ import annotations

from nnc_core.approximator import part18 as approximator
from nnc_core.approximator.data import ApproxData, ApproxInfo
from nnc_core.coder import part18 as coder
from nnc_core.coder.data import EncInfo
from nnc_core.nnr_model.evaluation import Evaluation
from nnc_core.nnr_model.model_info import ModelInfo
from nnc_core.syntax.driver import Buffer


def encode(
    approx_info: ApproxInfo,
    enc_info: EncInfo,
    model_info: ModelInfo,
    approx_data: ApproxData,
    evaluation: Evaluation | None = None,
) -> bytes:
    """Quantize the tensors of ``approx_data`` as ``approx_info`` says, and code them as ``enc_info`` says.

    The ``evaluation`` is for options such as ``opt_qp``; see `nnc_core.approximator.approx`.

    >>> import numpy as np
    >>> from nnc_core.nnr_model import model_info_of
    >>> tensors = {"w": np.array([[0.5, -0.25], [0.0, 1.0]], np.float32)}
    >>> info = {"approx_method": "uniform", "qp": {"w": -20}, "dq_flag": {"w": 0}}
    >>> data = encode(info, {}, model_info_of(tensors), {"parameters": tensors, "qp_density": 2})
    >>> decode(data)["parameters"]["w"].tolist()
    [[0.5, -0.25], [0.0, 1.0]]
    """
    return coder.encode(enc_info, model_info, approximator.approx(approx_info, model_info, approx_data, evaluation))


def decode(bitstream: Buffer, model_info: ModelInfo | None = None) -> ApproxData:
    """Decode and reconstruct; batch-norm is unfolded, scalings are applied and factors multiplied where there are any.

    ``model_info`` is filled in where it does not know better.
    """
    info: ModelInfo = {} if model_info is None else model_info
    return approximator.restored(coder.decode(bitstream, info), info)
