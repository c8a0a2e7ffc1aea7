"""The arithmetic-coded payload of a data unit: its tensors one after another, in one codeword (clause 10)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.entropy.native import Coded, Decoder, Encoder, decode, encode
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.errors import PayloadError, TruncatedError
from nnc_core.syntax.driver import Buffer
from nnc_core.tables.code_points import GeneralProfileIdc
from nnc_core.tables.entry_point import EntryPoint

# The least probable symbol has 2 of at most 511 parts of the range: no bin costs less than 1 / 177 of a bit.
_MOST_BINS_PER_BYTE = 8 * 177

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
    if len(shapes) == 1:
        rows, width, parameters, told = shapes[0]
        qp, tensor, consumed = decode(
            payload, rows, width, parameters, qp_bits, told, _share(4 * rows * width, threads)
        )
        yield CodedTensor(tensor.levels, qp if qp_bits else None, tensor.choices, tensor.entry_points)
    else:
        decoder = Decoder(payload)
        for rows, width, parameters, told in shapes:
            first = decoder.iae(qp_bits) if qp_bits else None
            tensor = decoder.tensor(rows, width, parameters, told, _share(4 * rows * width, threads))
            yield CodedTensor(tensor.levels, first, tensor.choices, tensor.entry_points)
        consumed = decoder.finish()
    if consumed != len(payload):
        raise PayloadError(f"{len(payload) - consumed} bytes follow the codeword")


def _share(size: int, threads: int) -> int:
    """How many threads are to share a tensor whose levels have ``size`` bytes."""
    return threads if size >= SHARED else 1


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
        encoder.tensor(tensor.levels, p, tensor.choices, _share(tensor.levels.nbytes, threads))
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
        best = _search(tensors[0], [parameters[0] for parameters in alternatives], qp_bits, effort)
        return best.coded.payload, [best.coded.entry_points], best.number
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
    return tensor._replace(choices=_search(tensor, [p], qp_bits, effort).coded.choices)


class _Trial(NamedTuple):
    """A tensor coded with some of the parameters."""

    coded: Coded
    number: int


def _search(tensor: CodedTensor, alternatives: Sequence[TensorParameters], qp_bits: int, effort: Effort) -> _Trial:
    """The shortest of: without and with row skipping, then other parameters, then the history on top of the best."""
    levels, threads = tensor.levels, _share(tensor.levels.nbytes, effort.threads)

    def trial(number: int, skip: bool, history: bool = False) -> _Trial:
        p, choices = alternatives[number], TensorChoices(skip, history)
        coded = encode(levels, p, tensor.qp, qp_bits, choices, optimised=effort.param_opt_flag, threads=threads)
        return _Trial(coded, number)

    best = trial(0, False)
    if effort.row_skip_enabled_flag and best.coded.has_zero_rows and _can_skip_rows(levels.shape, alternatives[0]):
        best = min(best, trial(0, True), key=_size)
    skip = best.coded.choices.row_skip_enabled_flag
    for number in range(1, len(alternatives)):
        best = min(best, trial(number, skip), key=_size)
    if effort.hist_dep_sig_prob_enabled_flag and _can_use_history(levels.shape, alternatives[best.number]):
        best = min(best, trial(best.number, skip, True), key=_size)
    return best


def _size(trial: _Trial) -> int:
    return len(trial.coded.payload)


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
