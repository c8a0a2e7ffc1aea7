"""DeepCABAC in plain Python: slow on purpose, shaped like clause 10, the judge of the native engine.

A payload is one codeword: any number of `iae` values and tensors, in the order in which they were coded.

>>> import numpy as np
>>> from nnc_core.entropy.parameters import TensorChoices, TensorParameters
>>> levels = np.array([[0, 1, -2], [3, 0, 0]], np.int32)
>>> encoder = Encoder()
>>> encoder.iae(-38, 8)
>>> encoder.tensor(levels, TensorParameters(), TensorChoices())
>>> encoder.finish().hex(" ")
'd9 6c 80 20 3f 99 e0'
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from nnc_core.entropy.contexts import Context, Layout, effective_codebook, signalled
from nnc_core.entropy.engine import ArithmeticDecoder, ArithmeticEncoder, Bins
from nnc_core.entropy.levels import MAX_MAGNITUDE, LevelCoder
from nnc_core.entropy.parameters import DecodedTensor, TensorChoices, TensorParameters
from nnc_core.entropy.scan import count_bands
from nnc_core.tables.cabac import PARAMETER_SETS
from nnc_core.tables.entry_point import EntryPoint
from nnc_core.tables.estimates import (
    BAND_FOLLOWED_EVERY,
    BANDS_FOLLOWED,
    BINS_UNTIL_MET,
    BINS_UNTIL_SAMPLED,
    BINS_UNTIL_SAMPLED_IN_LARGE,
    LARGE,
    LONG_WINDOW_MEETS,
    SAMPLED_EVERY,
    SAMPLED_RUN,
    SHIFT_DOUBT,
    SHIFT_DOUBT_ELEMENTS,
    SHIFT_INDEX_RATE,
    SHORT_WINDOW_MEETS,
)


class Encoder:
    """Codes values and tensors into one payload. After an error it is of no further use."""

    def __init__(self) -> None:
        self._bins = ArithmeticEncoder()
        self._entry_points: list[list[EntryPoint]] = []

    @property
    def entry_points(self) -> list[list[EntryPoint]]:
        """For every tensor its entry points; known after `finish`."""
        return self._entry_points

    def iae(self, value: int, bits: int) -> None:
        """Code a signed number in `bits` (0..32) equiprobable bins. Raises ValueError if it does not fit."""
        _check_bits(bits)
        if value and not -(1 << bits) <= 2 * value < 1 << bits:
            raise ValueError(f"{value} does not fit in {bits} bits")
        self._bins.bypass(value % (1 << bits), bits)

    def tensor(self, levels: NDArray[np.int32], parameters: TensorParameters, choices: TensorChoices) -> None:
        """Code the integers of a tensor (int32, rows x width).

        With dependent quantization these are the multiples of the step size. Raises ValueError for integers that are
        not on the quantizer's lattice, outside the codebook or -2**31, and for parameters of another shape.
        """
        _check_levels(levels)
        _check_shapes(levels.shape, parameters)
        self._bins.start_tensor()
        _code_tensor(self._bins, levels, parameters, choices)

    def finish(self) -> bytes:
        """End the codeword and return the payload."""
        payload = self._bins.payload()
        self._entry_points = self._bins.entry_points(payload)
        return payload


class Decoder:
    """Takes a payload apart; the caller knows what is in it, and in which order."""

    def __init__(self, payload: bytes | bytearray | memoryview) -> None:
        self._bins = ArithmeticDecoder(bytes(payload))

    def iae(self, bits: int) -> int:
        """Read a signed number of `bits` (0..32) bins. Raises PayloadError if no encoder starts a payload like this."""
        _check_bits(bits)
        self._bins.check_start()
        value = self._bins.bypass(0, bits)
        return value - (1 << bits) if 2 * value >> bits else value

    def tensor(self, rows: int, width: int, parameters: TensorParameters) -> DecodedTensor:
        """Read the integers of a tensor, what its encoder chose, and where its rows of blocks begin.

        Raises PayloadError for integers outside int32 or the codebook, TruncatedError if the payload is too short,
        and ValueError for parameters of another shape.
        """
        _check_shapes((rows, width), parameters)
        self._bins.start_tensor()
        levels, choices = _code_tensor(self._bins, np.zeros((rows, width), np.int32), parameters, TensorChoices())
        return DecodedTensor(levels, choices, self._bins.entry_points())

    def finish(self) -> int:
        """Check the codeword's end and return how many bytes it has; what follows is not looked at.

        Raises TruncatedError if the payload was too short, PayloadError if the codeword does not end here.
        """
        return self._bins.end()


def shift_indices(levels: NDArray[np.int32], parameters: TensorParameters, choices: TensorChoices) -> tuple[int, ...]:
    """The parameter set (0..8) that suits each context best when `levels` are coded, in flat order.

    The bins that will be coded are counted under all sets at once; a set other than 0 must save what its signalling
    costs. Indices already in `choices` do not matter. Raises ValueError as `Encoder.tensor` does.
    """
    return _chosen(_counted(levels, parameters, choices), _signalled(levels, parameters, choices))


def shift_candidates(
    levels: NDArray[np.int32], parameters: TensorParameters, choices: TensorChoices
) -> list[tuple[int, ...] | None]:
    """With which shift indices a tensor can be shortest: none, those of `shift_indices`, or both if that is close."""
    totals, sent = _counted(levels, parameters, choices), _signalled(levels, parameters, choices)
    indices = _chosen(totals, sent)
    some = sum(totals[context][indices[context]] for context in sent) + _signalling([indices[c] for c in sent])
    none = sum(totals[context][0] for context in sent) + _signalling([0] * len(sent))
    doubt = none // SHIFT_DOUBT if levels.size <= SHIFT_DOUBT_ELEMENTS else 0
    return [None] * (none <= some + doubt) + [indices] * (some < none + doubt)


def _signalling(indices: Sequence[int]) -> int:
    """The cost of sending these."""
    model, cost = Context(0), 0
    for index in indices:
        cost += model.bits(index > 0) + SHIFT_INDEX_RATE * (index > 0)
        model.update(index > 0)
    return cost


def _counted(levels: NDArray[np.int32], parameters: TensorParameters, choices: TensorChoices) -> list[list[int]]:
    """What the bins of each context cost under each parameter set."""
    _check_levels(levels)
    _check_shapes(levels.shape, parameters)
    (rows, width), size = levels.shape, Layout(parameters.cabac_unary_length_minus1 + 1).size
    skipping = _has_row_skip(parameters, rows, width) and choices.row_skip_enabled_flag
    statistics = _Statistics(size, levels.size, count_bands(rows, width, parameters.scan_order))
    LevelCoder(
        statistics,
        parameters,
        hist_flag=_has_hist_flag(parameters, rows, width) and choices.hist_dep_sig_prob_enabled_flag,
        row_skip_list=[skipping and not row.any() for row in levels],
        shift_indices=[0] * size,
    ).code(levels)
    return statistics.totals


def _signalled(levels: NDArray[np.int32], parameters: TensorParameters, choices: TensorChoices) -> list[int]:
    hist_flag = _has_hist_flag(parameters, *levels.shape) and choices.hist_dep_sig_prob_enabled_flag
    return list(signalled(parameters, hist_flag))


def _chosen(totals: Sequence[Sequence[int]], sent: Sequence[int]) -> tuple[int, ...]:
    best = [0] * len(totals)
    for context in sent:
        best[context] = _cheapest(totals[context])
    return tuple(best)


def _check_bits(bits: int) -> None:
    if not 0 <= bits <= 32:
        raise ValueError(f"a number of {bits} bits, expected 0..32")


def _check_levels(levels: NDArray[np.int32]) -> None:
    if levels.dtype != np.int32 or levels.ndim != 2:
        raise ValueError(f"levels are {levels.dtype} with {levels.ndim} dimensions, expected int32 with 2")
    if levels.size and levels.min() < -MAX_MAGNITUDE:
        raise ValueError(f"{-MAX_MAGNITUDE - 1} cannot be coded")


def _check_shapes(shape: tuple[int, ...], parameters: TensorParameters) -> None:
    for name in ("base", "history"):
        array = getattr(parameters, name)
        if array is not None and array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, the tensor {shape}")


def _has_row_skip(parameters: TensorParameters, rows: int, width: int) -> bool:
    """Whether row_skip_enabled_flag is in the syntax."""
    book = effective_codebook(parameters)
    return parameters.general_profile_idc == 1 and rows > 1 and width > 1 and not (book and book.size == 1)


def _has_hist_flag(parameters: TensorParameters, rows: int, width: int) -> bool:
    """Whether hist_dep_sig_prob_enabled_flag is in the syntax."""
    return parameters.parent_node_id_present_flag and _has_row_skip(parameters, rows, width)


def _code_tensor(
    bins: Bins, levels: NDArray[np.int32], parameters: TensorParameters, choices: TensorChoices
) -> tuple[NDArray[np.int32], TensorChoices]:
    """The whole syntax of one tensor; see `Bins` for how it works in both directions."""
    layout = Layout(parameters.cabac_unary_length_minus1 + 1)
    bins.start_contexts([0] * (layout.size + 2))
    hist_flag = _has_hist_flag(parameters, *levels.shape) and bool(
        bins.bypass(choices.hist_dep_sig_prob_enabled_flag, 1)
    )
    skipping = _has_row_skip(parameters, *levels.shape) and bool(bins.bypass(choices.row_skip_enabled_flag, 1))
    row_skip_list = [skipping and _row_skip(bins, layout, not row.any()) for row in levels]
    indices = _code_shift_indices(bins, parameters, hist_flag, choices.shift_indices)
    bins.start_contexts(indices)
    coder = LevelCoder(bins, parameters, hist_flag=hist_flag, row_skip_list=row_skip_list, shift_indices=indices)
    return coder.code(levels), TensorChoices(skipping, hist_flag, indices)


def _row_skip(bins: Bins, layout: Layout, empty: bool) -> bool:
    bins.check()
    return bins.bin(layout.row_skip, empty)


def _code_shift_indices(
    bins: Bins, parameters: TensorParameters, hist_flag: bool, given: Sequence[int] | None
) -> tuple[int, ...]:
    layout = Layout(parameters.cabac_unary_length_minus1 + 1)
    wanted = given or (0,) * layout.size
    _check_shift_indices(wanted, layout.size)
    indices = [0] * layout.size
    for context in signalled(parameters, hist_flag):
        indices[context] = _code_shift_index(bins, layout, wanted[context])
    return tuple(indices)


def _check_shift_indices(indices: Sequence[int], size: int) -> None:
    if len(indices) != size:
        raise ValueError(f"{len(indices)} shift indices for {size} contexts")
    if not all(0 <= index < len(PARAMETER_SETS) for index in indices):
        raise ValueError(f"shift indices {min(indices)}..{max(indices)}, expected 0..{len(PARAMETER_SETS) - 1}")


def _code_shift_index(bins: Bins, layout: Layout, index: int) -> int:
    if not bins.bin(layout.shift, index != 0):
        return 0
    return 1 + bins.bypass(index - 1, 3)


class _Statistics(Bins):
    """Codes nothing, but adds up for every context what its bins would cost under each parameter set."""

    def __init__(self, size: int, elements: int, bands: int) -> None:
        self._enough = BINS_UNTIL_SAMPLED if elements < LARGE else BINS_UNTIL_SAMPLED_IN_LARGE
        self._band_stride = 1 if elements < LARGE else min(max(bands // BANDS_FOLLOWED, 1), BAND_FOLLOWED_EVERY)
        self.totals = [[0] * len(PARAMETER_SETS) for _ in range(size)]
        self._weights = [1] * size
        self._band_weight = self._band_stride
        self._bands = self._elements = 0
        self._models: list[list[Context]] = []
        self._bins: list[int] = []
        self.start_contexts([0] * size)

    def start_contexts(self, shift_indices: Iterable[int]) -> None:
        """All nine models of every context start anew, whatever the choice."""
        self._models = [[Context(index) for index in range(len(PARAMETER_SETS))] for _ in shift_indices]
        self._bins = [0] * len(self._models)

    def bin(self, context: int, value: bool) -> bool:
        if weight := self._weights[context]:
            if self._bins[context] == BINS_UNTIL_MET:
                _let_meet(self._models[context])
            self._bins[context] += 1
            for index, model in enumerate(self._models[context]):
                self.totals[context][index] += weight * model.bits(value)
                model.update(value)
        return value

    def bypass(self, value: int, bits: int) -> int:
        """Costs the same under every set."""
        return value

    def start_band(self, dq_state: int) -> None:
        """Of the rows of blocks some stand for all, whatever is in the others."""
        self._band_weight = 0 if self._bands % self._band_stride else self._band_stride
        self._bands += 1
        self._elements = 0

    def start_element(self) -> None:
        """A run is so many elements."""
        if self._elements % SAMPLED_RUN == 0:
            self._start_run(self._elements // SAMPLED_RUN)
        self._elements += 1

    def check(self) -> None:
        """Nothing to run out of."""

    def _start_run(self, run: int) -> None:
        """Of contexts that have met many bins a sample is enough."""
        sampled = 0 if run % SAMPLED_EVERY else SAMPLED_EVERY * self._band_weight
        self._weights = [self._band_weight if met < self._enough else sampled for met in self._bins]


def _let_meet(models: list[Context]) -> None:
    """Estimators that adapt alike have come so close that the first of them can stand for all.

    This spares a fast encoder from following all nine; the choice is as good.
    """
    for model, short, long in zip(models, SHORT_WINDOW_MEETS, LONG_WINDOW_MEETS, strict=True):
        model.s0, model.s1 = models[short].s0, models[long].s1


def _cheapest(totals: Sequence[int]) -> int:
    """The parameter set with the smallest total, if it saves more than its signalling; the first of equals."""
    best, least = 0, totals[0]
    for index in range(1, len(totals)):
        if totals[index] + SHIFT_INDEX_RATE < least:
            best, least = index, totals[index] + SHIFT_INDEX_RATE
    return best
