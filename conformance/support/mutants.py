"""Decoders that are broken on purpose, one fault each: what a conformance suite must be able to catch.

Each fault is planted into the decoder in plain Python with pytest's ``monkeypatch``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from conformance.decoder import cabac, decode, headers, quant_tensor, state, topology

Plant = Callable[[pytest.MonkeyPatch], None]


def one_context_index_wrong(patch: pytest.MonkeyPatch) -> None:
    """The neighbour's sign counts for sig_flag as if it were always positive."""
    patch.setattr(quant_tensor, "_sign_class", lambda value: 0 if value == 0 else 2)


def one_rounding_wrong(patch: pytest.MonkeyPatch) -> None:
    """The octave of a step is truncated towards zero."""

    def reconstructed(levels: Any, qp: int | None, qp_density: int, book: Any) -> Any:
        if qp is None or qp >= 0:
            return right(levels, qp, qp_density, book)
        return right(levels, qp + (1 << qp_density) * (qp % (1 << qp_density) != 0), qp_density, book)

    right = decode._reconstructed
    patch.setattr(decode, "_reconstructed", reconstructed)


def a_skipped_row_read_as_its_neighbour(patch: pytest.MonkeyPatch) -> None:
    """The list of skipped rows is off by one."""

    def levels(d: Any, p: Any, contexts: Any, row_skip_list: list[bool], history: bool) -> Any:
        return right(d, p, contexts, [*row_skip_list[1:], *row_skip_list[:1]], history)

    right = quant_tensor._levels
    patch.setattr(quant_tensor, "_levels", levels)


def the_temporal_context_off_by_one(patch: pytest.MonkeyPatch) -> None:
    """Levels of the update before are taken from the next position."""

    def quant(d: Any, p: Any) -> Any:
        p.base = None if p.base is None else np.roll(p.base, 1, axis=1)
        return right(d, p)

    right = decode.quant_tensor
    patch.setattr(decode, "quant_tensor", quant)


def the_base_from_the_wrong_set(patch: pytest.MonkeyPatch) -> None:
    """Residuals build on the last plain updates, and not on the last residuals."""

    class OneTree(dict[bool, Any]):
        def __getitem__(self, residual: bool) -> Any:
            return super().__getitem__(False)

    right = state.State.__init__

    def init(self: state.State) -> None:
        right(self)
        self.trees = OneTree(self.trees)

    patch.setattr(state.State, "__init__", init)


def fragments_joined_in_reverse(patch: pytest.MonkeyPatch) -> None:
    """The parts of a unit are put in front of those before."""

    def whole(self: decode.Decoder, unit: Any, header: bytes) -> bytes | None:
        before, self._joined = self._joined, b""
        payload = right(self, unit, header)
        if payload is None:
            self._joined += before
            return None
        return payload + before

    right = decode.Decoder._whole
    patch.setattr(decode.Decoder, "_whole", whole)


def two_trellis_transitions_exchanged(patch: pytest.MonkeyPatch) -> None:
    """Two transitions of dependent quantization are exchanged."""
    wrong = ((0, 2), (5, 7), *quant_tensor.STATE_TRANSITIONS[2:])
    patch.setattr(quant_tensor, "STATE_TRANSITIONS", wrong)


def contexts_kept_at_an_entry_point(patch: pytest.MonkeyPatch) -> None:
    """Contexts are not started anew where a row of blocks begins."""

    def segments(d: Any, p: Any, contexts: Any) -> Iterator[Any]:
        class Kept:
            def reset(self) -> None:
                pass

        return right(d, p, Kept())

    right = quant_tensor.segments
    patch.setattr(quant_tensor, "segments", segments)


def the_range_kept_at_an_entry_point(patch: pytest.MonkeyPatch) -> None:
    """The range is not set to 256 where a row of blocks begins."""

    def segments(d: Any, p: Any, contexts: Any) -> Iterator[Any]:
        class Kept:
            ivl_offset = 0

        return right(Kept(), p, contexts)

    right = quant_tensor.segments
    patch.setattr(quant_tensor, "segments", segments)


def the_codebook_zero_off_by_one(patch: pytest.MonkeyPatch) -> None:
    """Level 0 stands for the entry before."""

    def reconstructed(levels: Any, qp: int | None, qp_density: int, book: Any) -> Any:
        if book is None:
            return right(levels, qp, qp_density, book)
        return right(levels, qp, qp_density, headers.Codebook([book.values[0], *book.values], book.zero_offset))

    right = decode._reconstructed
    patch.setattr(decode, "_reconstructed", reconstructed)


def a_block_in_the_order_of_its_header(patch: pytest.MonkeyPatch) -> None:
    """The tensors of a block are read in the order in which their names stand."""

    def block(h: Any) -> Any:
        members = {name: (name, shape, book) for name, shape, book in right(h)}
        return [members[name] for name in h.names]

    right = decode._block
    patch.setattr(decode, "_block", block)


def a_unary_length_off_by_one(patch: pytest.MonkeyPatch) -> None:
    """cabac_unary_length_minus1 is taken for the length."""

    def quant(d: Any, p: Any) -> Any:
        p.cabac_unary_length_minus1 -= 1
        return right(d, p)

    right = decode.quant_tensor
    patch.setattr(decode, "quant_tensor", quant)


def a_number_of_the_step_table_wrong(patch: pytest.MonkeyPatch) -> None:
    """A step with which contexts learn is 1328 instead of 1392."""
    patch.setattr(cabac, "STEP", tuple(1328 if step == 1392 else step for step in cabac.STEP))


def a_context_that_learns_too_fast(patch: pytest.MonkeyPatch) -> None:
    """The slow estimate of parameter set 5 is as fast as that of set 2."""
    sets = list(cabac.PARAMETER_SETS)
    sets[5] = sets[2]
    patch.setattr(cabac, "PARAMETER_SETS", tuple(sets))


def residuals_taken_for_updates(patch: pytest.MonkeyPatch) -> None:
    """The prediction is not added."""

    def apply(self: decode.Decoder) -> None:
        self.state.predictions = {}
        right(self)

    right = decode.Decoder._apply
    patch.setattr(decode.Decoder, "_apply", apply)


def a_history_of_the_last_update_only(patch: pytest.MonkeyPatch) -> None:
    """What was not zero in the updates before the last is forgotten."""

    def after(h: Any, node: Any, levels: Any, payload: bytes) -> Any:
        node.history = None
        return right(h, node, levels, payload)

    right = decode.node_after
    patch.setattr(decode, "node_after", after)


def updates_not_added_up(patch: pytest.MonkeyPatch) -> None:
    """The last update stands for the model."""

    def apply(self: decode.Decoder) -> None:
        self.state.model = {}
        right(self)

    right = decode.Decoder._apply
    patch.setattr(decode.Decoder, "_apply", apply)


def dimensions_out_of_band_reversed(patch: pytest.MonkeyPatch) -> None:
    """The dimensions that are sent out of band are read from the last to the first."""

    def known(names: list[str], beside: Any) -> dict[str, Any]:
        found = dict(right(names, beside))
        if "tensor_dimensions" in found:
            found["tensor_dimensions"] = found["tensor_dimensions"][::-1]
        return found

    right = headers._known
    patch.setattr(headers, "_known", known)


def a_mask_without_its_first_bit(patch: pytest.MonkeyPatch) -> None:
    """The bit mask of a pruning container is shifted by one."""

    def mask(r: Any) -> list[int]:
        bits = right(r)
        return [*bits[1:], *bits[:1]]

    right = topology._bit_mask
    patch.setattr(topology, "_bit_mask", mask)


MUTANTS: dict[Plant, str] = {
    one_context_index_wrong: "1.2",
    one_rounding_wrong: "1.2",
    a_skipped_row_read_as_its_neighbour: "2.24",
    the_temporal_context_off_by_one: "2.5",
    the_base_from_the_wrong_set: "2.24",
    fragments_joined_in_reverse: "1.15",
    two_trellis_transitions_exchanged: "1.17",
    contexts_kept_at_an_entry_point: "1.2",
    the_range_kept_at_an_entry_point: "1.2",
    the_codebook_zero_off_by_one: "1.15",
    a_block_in_the_order_of_its_header: "1.23",
    a_unary_length_off_by_one: "1.15",
    a_number_of_the_step_table_wrong: "1.15",
    a_context_that_learns_too_fast: "1.15",
    residuals_taken_for_updates: "2.25",
    a_history_of_the_last_update_only: "2.11",
    updates_not_added_up: "2.5",
    dimensions_out_of_band_reversed: "1.25",
    a_mask_without_its_first_bit: "1.5",
}
"""By mutant, a row that catches it."""
