"""One update of one tensor as a data unit: the contexts of the updates before it are used where they save bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.coder.history import History
from nnc_core.entropy.native import Encoder, shift_indices
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.tables.code_points import GeneralProfileIdc, ParentNodeIdType, PayloadType

__all__ = ["QP_DENSITY", "CodedUpdate", "coded_update"]

QP_DENSITY = 4


class CodedUpdate(NamedTuple):
    """A data unit, and what it leaves for the next update of its tensor."""

    header: CompressedDataUnitHeader
    payload: bytes
    history: History


def coded_update(
    name: str,
    shape: tuple[int, ...],
    levels: NDArray[np.int32],
    history: History,
    *,
    qp: int | None = None,
    dq_flag: bool = False,
) -> CodedUpdate:
    """Code the ``levels`` (int32, rows x width) of an update that follows on ``history``; ``qp`` None for integers.

    With dependent quantization the levels are multiples of the step, as elsewhere.
    """
    header = _header(name, shape, history, qp, dq_flag)
    parameters = TensorParameters(
        general_profile_idc=GeneralProfileIdc.EXTENDED,
        cabac_unary_length_minus1=header.cabac_unary_length_minus1,
        dq_flag=dq_flag,
        parent_node_id_present_flag=True,
        history=history.marks,
    )
    best = min(_ways(levels, history, parameters, qp), key=lambda way: len(way[1]))
    header.temporal_context_modeling_flag = best[0].base is not None
    return CodedUpdate(header, best[1], history.after(header, levels, best[1]))


def _ways(
    levels: NDArray[np.int32], history: History, parameters: TensorParameters, qp: int | None
) -> Iterator[tuple[TensorParameters, bytes]]:
    """The ways of coding that are worth a try: each context is tried on top of those that helped before."""
    choices = TensorChoices(row_skip_enabled_flag=_skips_rows(levels))
    plain = _coded(levels, parameters, choices, qp)
    yield parameters, plain
    if history.base is not None and history.base.any():
        with_base = replace(parameters, base=history.base)
        coded = _coded(levels, with_base, choices, qp)
        yield with_base, coded
        if len(coded) < len(plain):
            parameters = with_base
    if history.marks is not None and history.marks.any() and min(levels.shape) > 1:
        yield parameters, _coded(levels, parameters, replace(choices, hist_dep_sig_prob_enabled_flag=True), qp)


def _skips_rows(levels: NDArray[np.int32]) -> bool:
    return min(levels.shape) > 1 and not levels.any(axis=1).all()


def _coded(levels: NDArray[np.int32], parameters: TensorParameters, choices: TensorChoices, qp: int | None) -> bytes:
    encoder = Encoder()
    if qp is not None:
        encoder.iae(qp, 6 + QP_DENSITY)
    chosen = replace(choices, shift_indices=shift_indices(levels, parameters, choices))
    encoder.tensor(levels, parameters, chosen)
    return encoder.finish()


def _header(
    name: str, shape: tuple[int, ...], history: History, qp: int | None, dq_flag: bool
) -> CompressedDataUnitHeader:
    return CompressedDataUnitHeader(
        nnr_compressed_data_unit_payload_type=PayloadType.NNR_PT_INT if qp is None else PayloadType.NNR_PT_FLOAT,
        topology_elem_id=name,
        tensor_dimensions=shape or (1,),
        node_id_present_flag=True,
        device_id=history.device_id,
        parameter_id=history.parameter_id,
        put_node_depth=history.depth + 1,
        parent_node_id_present_flag=True,
        parent_node_id_type=ParentNodeIdType.ICNN_NDU_ID,
        parent_device_id=history.device_id,
        dq_flag=dq_flag,
    )
