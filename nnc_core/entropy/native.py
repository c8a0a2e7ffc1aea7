"""DeepCABAC in native code (clause 10): the interface of `nnc_core.entropy.reference`, at full speed.

Coding releases the interpreter lock, so that tensors can be coded in several threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core import _native
from nnc_core.entropy.parameters import DecodedTensor, TensorChoices, TensorParameters
from nnc_core.errors import BitstreamError, PayloadError, TruncatedError
from nnc_core.tables.entry_point import EntryPoint

Buffer = bytes | bytearray | memoryview


class Encoder:
    """Codes values and tensors into one payload. After an error it is of no further use."""

    def __init__(self) -> None:
        self._encoder = _native.Encoder()

    @property
    def entry_points(self) -> list[list[EntryPoint]]:
        """For every tensor its entry points; known after `finish`."""
        return [[EntryPoint(*point) for point in points] for points in self._encoder.entry_points]

    def iae(self, value: int, bits: int) -> None:
        """Code a signed number in `bits` (0..32) equiprobable bins. Raises ValueError if it does not fit."""
        self._encoder.iae(value, bits)

    def tensor(
        self, levels: NDArray[np.int32], parameters: TensorParameters, choices: TensorChoices, threads: int = 1
    ) -> None:
        """Code the integers of a tensor (int32, rows x width); several ``threads`` share its rows of blocks.

        With dependent quantization these are the multiples of the step size. Raises ValueError for integers that are
        not on the quantizer's lattice, outside the codebook or -2**31, and for parameters of another shape.
        """
        self._encoder.tensor(
            _parameters(levels.shape, parameters),
            levels,
            choices.row_skip_enabled_flag,
            choices.hist_dep_sig_prob_enabled_flag,
            None if choices.shift_indices is None else bytes(choices.shift_indices),
            threads,
        )

    def finish(self) -> bytes:
        """End the codeword and return the payload."""
        return self._encoder.finish()


class Decoder:
    """Reads values and tensors from one payload, in the order in which they were coded.

    Beyond the payload's end there are zeros; that it was read so far is an error at the latest in `finish`.
    """

    def __init__(self, payload: Buffer) -> None:
        self._decoder = _native.Decoder(np.frombuffer(payload, np.uint8))

    def iae(self, bits: int) -> int:
        """Read a signed number of `bits` (0..32) equiprobable bins. Raises PayloadError as `tensor` does."""
        try:
            return self._decoder.iae(bits)
        except _native.CodewordError as error:
            raise _bitstream_error(error) from None

    def tensor(
        self,
        rows: int,
        width: int,
        parameters: TensorParameters,
        entry_points: Sequence[EntryPoint] = (),
        threads: int = 1,
    ) -> DecodedTensor:
        """Read a tensor; its integers are int32, rows x width. Raises PayloadError or TruncatedError.

        Several ``threads`` share its rows of blocks if ``entry_points`` are true; the result is the same without.
        """
        levels = np.empty((rows, width), np.int32)
        try:
            row_skip, history, indices, points = self._decoder.tensor(
                _parameters((rows, width), parameters), levels, entry_points if threads > 1 else (), threads
            )
        except _native.CodewordError as error:
            raise _bitstream_error(error) from None
        choices = TensorChoices(row_skip, history, _tuple(indices))
        return DecodedTensor(levels, choices, [EntryPoint(*point) for point in points])

    def finish(self) -> int:
        """Check the end of the codeword and return how many bytes it has. Raises as `tensor` does."""
        try:
            return self._decoder.finish()
        except _native.CodewordError as error:
            raise _bitstream_error(error) from None


def _bitstream_error(error: _native.CodewordError) -> BitstreamError:
    kind = TruncatedError if isinstance(error, _native.TruncatedCodewordError) else PayloadError
    return kind(str(error))


def shift_indices(
    levels: NDArray[np.int32],
    parameters: TensorParameters,
    choices: TensorChoices,
    threads: int = 1,
    *,
    sampled: bool = True,
) -> tuple[int, ...]:
    """The parameter set (0..8) that suits each context best when `levels` are coded, in flat order.

    Several ``threads`` share rows of blocks; the result is the same. Without ``sampled`` every bin counts, which takes
    several times as long.
    """
    skip, history = choices.row_skip_enabled_flag, choices.hist_dep_sig_prob_enabled_flag
    return tuple(_native.shift_indices(_parameters(levels.shape, parameters), levels, skip, history, threads, sampled))


def shift_candidates(
    levels: NDArray[np.int32], parameters: TensorParameters, choices: TensorChoices
) -> list[tuple[int, ...] | None]:
    """With which shift indices a tensor can be shortest: none, those of `shift_indices`, or both if that is close."""
    skip, history = choices.row_skip_enabled_flag, choices.hist_dep_sig_prob_enabled_flag
    indices, with_, without = _native.shift_candidates(_parameters(levels.shape, parameters), levels, skip, history)
    return [None] * without + [tuple(indices)] * with_


class Coded(NamedTuple):
    """The payload of one tensor, where it can be entered, the choices that are in it, and whether rows are all zero."""

    payload: bytes
    entry_points: list[EntryPoint]
    choices: TensorChoices
    has_zero_rows: bool


def encode(
    levels: NDArray[np.int32],
    parameters: TensorParameters,
    qp: int | None,
    qp_bits: int,
    choices: TensorChoices,
    *,
    optimised: bool,
    threads: int = 1,
) -> Coded:
    """A payload of one tensor, after its ``qp`` if there is one: what `Encoder` makes, in one call.

    With ``optimised`` it is the shortest with any of `shift_candidates`, without all indices are 0. Errors as there.
    """
    skip, history = choices.row_skip_enabled_flag, choices.hist_dep_sig_prob_enabled_flag
    payload, points, indices, zero_rows = _native.encode(
        _parameters(levels.shape, parameters), levels, qp, qp_bits, skip, history, optimised, threads
    )
    found = TensorChoices(skip, history, _tuple(indices) or None)
    return Coded(payload, [EntryPoint(*point) for point in points], found, zero_rows)


class Decoded(NamedTuple):
    """The tensor of a payload, the value in front of it, and how many bytes both take."""

    qp: int
    tensor: DecodedTensor
    consumed: int


def decode(
    payload: Buffer,
    rows: int,
    width: int,
    parameters: TensorParameters,
    qp_bits: int,
    entry_points: Sequence[EntryPoint] = (),
    threads: int = 1,
) -> Decoded:
    """What `Decoder` reads of a payload that is a value of ``qp_bits`` and a tensor, in one call. Errors as there."""
    levels = np.empty((rows, width), np.int32)
    told = entry_points if threads > 1 else ()
    try:
        qp, skip, history, indices, points, consumed = _native.decode(
            np.frombuffer(payload, np.uint8), _parameters((rows, width), parameters), levels, qp_bits, told, threads
        )
    except _native.CodewordError as error:
        raise _bitstream_error(error) from None
    choices = TensorChoices(skip, history, _tuple(indices))
    return Decoded(qp, DecodedTensor(levels, choices, [EntryPoint(*point) for point in points]), consumed)


@lru_cache(maxsize=256)
def _tuple(indices: bytes) -> tuple[int, ...]:
    """The numbers of contexts' parameter sets; small tensors often have the same, mostly zeros."""
    return tuple(indices)


def _parameters(shape: tuple[int, ...], p: TensorParameters) -> _native.TensorParameters:
    rows, width = shape
    return _native.TensorParameters(
        rows,
        width,
        p.general_profile_idc,
        p.cabac_unary_length_minus1,
        p.dq_flag,
        p.scan_order,
        p.parent_node_id_present_flag,
        p.codebook_size,
        p.codebook_zero_offset,
        p.base,
        p.history,
    )
