"""The arithmetic-coded payload of a data unit: its tensors one after another, in one codeword (clause 10)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.entropy.native import Decoder, Encoder, shift_indices
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.errors import PayloadError, TruncatedError
from nnc_core.syntax.driver import Buffer
from nnc_core.tables.code_points import GeneralProfileIdc
from nnc_core.tables.entry_point import EntryPoint

# The least probable symbol has 2 of at most 511 parts of the range: no bin costs less than 1 / 177 of a bit.
_MOST_BINS_PER_BYTE = 8 * 177
_FEW = 1024

SHARED: Final = 16 << 20
"""Bytes of a tensor's levels from which on it is worth the while of several threads."""


class CodedTensor(NamedTuple):
    """A tensor as the payload has it.

    ``levels`` are int32, rows x width, with dependent quantization undone; ``qp`` is the difference from the base
    quantization parameter, None for integers. ``entry_points`` follow from the rest; an encoder is not told them.
    """

    levels: NDArray[np.int32]
    qp: int | None = None
    choices: TensorChoices = TensorChoices()
    entry_points: Sequence[EntryPoint] = ()


class Shape(NamedTuple):
    """The size of a tensor as a matrix, and what the headers say about it."""

    rows: int
    width: int
    parameters: TensorParameters
    entry_points: Sequence[EntryPoint] = ()


def decode_payload(payload: Buffer, shapes: Sequence[Shape], qp_bits: int, threads: int = 1) -> Iterator[CodedTensor]:
    """Read the tensors of a payload, which must end with the last; ``qp_bits`` is 0 where no QP precedes each.

    Several ``threads`` share a large tensor that has entry points.

    Raises `PayloadError` or `TruncatedError`, before it takes memory for what so few bytes cannot hold.
    """
    _check_plausible(shapes, len(payload))
    decoder = Decoder(payload)
    for rows, width, parameters, told in shapes:
        qp = decoder.iae(qp_bits) if qp_bits else None
        share = threads if 4 * rows * width >= SHARED else 1
        levels, choices, entry_points = decoder.tensor(rows, width, parameters, told, share)
        yield CodedTensor(levels, qp, choices, entry_points)
    consumed = decoder.finish()
    if consumed != len(payload):
        raise PayloadError(f"{len(payload) - consumed} bytes follow the codeword")


class Effort(NamedTuple):
    """What an encoder may try: optimised shift indices, skipped rows, the contexts of the history.

    So many ``threads`` may share a large tensor that has entry points.
    """

    param_opt_flag: bool = True
    row_skip_enabled_flag: bool = True
    hist_dep_sig_prob_enabled_flag: bool = False
    threads: int = 1


def encode_payload(
    tensors: Sequence[CodedTensor], parameters: Sequence[TensorParameters], qp_bits: int, threads: int = 1
) -> tuple[bytes, list[list[EntryPoint]]]:
    """Code tensors into a payload; also return the entry points of each. Raises ValueError as `Encoder.tensor`."""
    encoder = Encoder()
    for tensor, p in zip(tensors, parameters, strict=True):
        if tensor.qp is not None:
            encoder.iae(tensor.qp, qp_bits)
        encoder.tensor(tensor.levels, p, tensor.choices, threads if tensor.levels.nbytes >= SHARED else 1)
    payload = encoder.finish()
    return payload, encoder.entry_points


def encode_shortest(
    tensors: Sequence[CodedTensor],
    alternatives: Sequence[Sequence[TensorParameters]],
    qp_bits: int,
    effort: Effort,
) -> tuple[bytes, list[list[EntryPoint]], int]:
    """Code tensors, each with those choices that make it shortest of all that ``effort`` lets try.

    Each of the ``alternatives`` has parameters for all tensors; the number of the best one is returned as well.
    """
    if len(tensors) == 1:
        return _search(tensors[0], [parameters[0] for parameters in alternatives], qp_bits, effort)[:3]
    coded = [
        encode_payload(
            [_best(tensor, p, qp_bits, effort) for tensor, p in zip(tensors, parameters, strict=True)],
            parameters,
            qp_bits,
            effort.threads,
        )
        for parameters in alternatives
    ]
    number = min(range(len(coded)), key=lambda j: len(coded[j][0]))
    return *coded[number], number


def _best(tensor: CodedTensor, p: TensorParameters, qp_bits: int, effort: Effort) -> CodedTensor:
    return tensor._replace(choices=_search(tensor, [p], qp_bits, effort).choices)


class _Trial(NamedTuple):
    """A tensor coded with some of the parameters and with these choices."""

    payload: bytes
    entry_points: list[list[EntryPoint]]
    number: int
    choices: TensorChoices


def _search(tensor: CodedTensor, alternatives: Sequence[TensorParameters], qp_bits: int, effort: Effort) -> _Trial:
    """The shortest of: without and with row skipping, then other parameters, then the history on top of the best."""

    def shortest(number: int, trials: Iterable[TensorChoices]) -> _Trial:
        p = alternatives[number]
        coded = ((encode_payload([tensor._replace(choices=c)], [p], qp_bits, effort.threads), c) for c in trials)
        return min((_Trial(*both, number, c) for both, c in coded), key=_size)

    levels, first = tensor.levels, alternatives[0]
    may_skip = effort.row_skip_enabled_flag and _can_skip_rows(levels.shape, first)
    skips = (False, True) if may_skip and not levels.any(axis=1).all() else (False,)
    best = shortest(0, (c for skip in skips for c in _choices(levels, first, skip, False, effort)))
    skip = best.choices.row_skip_enabled_flag
    for number, p in enumerate(alternatives[1:], 1):
        best = min(best, shortest(number, _choices(levels, p, skip, False, effort)), key=_size)
    p = alternatives[best.number]
    if effort.hist_dep_sig_prob_enabled_flag and _can_use_history(levels.shape, p):
        best = min(best, shortest(best.number, _choices(levels, p, skip, True, effort)), key=_size)
    return best


def _size(trial: _Trial) -> int:
    return len(trial.payload)


def _choices(
    levels: NDArray[np.int32], p: TensorParameters, skipping: bool, history: bool, effort: Effort
) -> Iterator[TensorChoices]:
    """With shift indices, which are chosen by an estimate; where there are few levels, its errors count."""
    choices = TensorChoices(skipping, history)
    indices = shift_indices(levels, p, choices) if effort.param_opt_flag else ()
    if any(indices):
        yield TensorChoices(skipping, history, indices)
    if not any(indices) or levels.size <= _FEW:
        yield choices


def _can_skip_rows(shape: tuple[int, ...], p: TensorParameters) -> bool:
    """Whether the syntax has skipped rows, and all decoders understand them alike.

    With dependent quantization, some take the part of a skipped row that lies in one block to be as wide as the tensor,
    when they step the state. As four zeros lead back to the same state, that shows unless the widths agree modulo 4.
    """
    width = shape[1]
    disputed = p.dq_flag and p.scan_order > 0 and width > 4 << p.scan_order and width % 4 != 0
    return _has_flags(shape, p) and not disputed


def _can_use_history(shape: tuple[int, ...], p: TensorParameters) -> bool:
    return _has_flags(shape, p) and p.parent_node_id_present_flag and p.history is not None and bool(p.history.any())


def _has_flags(shape: tuple[int, ...], p: TensorParameters) -> bool:
    """Whether the syntax has flags in front of the levels."""
    extended = p.general_profile_idc == GeneralProfileIdc.EXTENDED
    return extended and min(shape) > 1 and p.codebook_size != 1


def first_qp(payload: Buffer, qp_bits: int) -> int:
    """The quantization parameter of the first tensor in a payload, as the difference from the base."""
    return Decoder(payload[:16]).iae(qp_bits)


def _check_plausible(shapes: Sequence[Shape], size: int) -> None:
    """Refuse dimensions that ``size`` payload bytes cannot fill, before memory is taken for them."""
    if sum(map(_fewest_bins, shapes)) > _MOST_BINS_PER_BYTE * (size + 8):
        described = " and ".join(f"{shape.rows} x {shape.width}" for shape in shapes)
        raise TruncatedError(f"{described} elements in {size} payload bytes")


def _fewest_bins(shape: Shape) -> int:
    extended = shape.parameters.general_profile_idc == GeneralProfileIdc.EXTENDED
    if extended and shape.parameters.codebook_size == 1:
        return 0
    # A row can be skipped with one bin.
    return shape.rows if extended and min(shape.rows, shape.width) > 1 else shape.rows * shape.width
