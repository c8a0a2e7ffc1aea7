"""The native engine equals the reference: every byte, level, entry point and consumed length."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnc_core import _native
from nnc_core.approximator.reference import expand
from nnc_core.entropy import native, reference
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.errors import BitstreamError, PayloadError
from nnc_core.tables import cabac, estimates


@st.composite
def tensors(draw: st.DrawFn) -> tuple[np.ndarray, TensorParameters, TensorChoices]:
    rows = draw(st.integers(1, 40))
    width = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scan_order = draw(st.integers(0, 4))
    dq = draw(st.booleans())
    extended = draw(st.booleans())
    book = draw(st.sampled_from([0, 0, 0, 1, 2, 3, 5, 13, 60, 300])) if extended and not dq else 0
    zero = draw(st.integers(0, max(0, book - 1)))
    spread = draw(st.sampled_from([0.1, 0.5, 2, 20, 3000, 2**27]))
    indices = np.rint(rng.laplace(size=(rows, width)) * spread).clip(-(2**30) + 1, 2**30 - 1)
    if book:
        indices = indices.clip(-zero, book - 1 - zero)
    indices[rng.random(rows) < draw(st.sampled_from([0, 0.3, 1]))] = 0
    levels = indices.astype(np.int32)
    base = rng.integers(-3, 4, (rows, width), np.int32) if draw(st.booleans()) else None
    history = rng.integers(0, 2, (rows, width), np.uint8) if draw(st.booleans()) else None
    parameters = TensorParameters(
        general_profile_idc=int(extended),
        cabac_unary_length_minus1=draw(st.sampled_from([0, 1, 9, 10, 16, 255])),
        dq_flag=dq,
        scan_order=scan_order,
        parent_node_id_present_flag=draw(st.booleans()),
        codebook_size=book,
        codebook_zero_offset=zero,
        base=base,
        history=history,
    )
    choices = TensorChoices(draw(st.booleans()), draw(st.booleans()))
    return expand(levels, scan_order) if dq else levels, parameters, choices


@settings(max_examples=150, deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=2), st.integers(-128, 127))
def test_both_implementations_write_the_same_bytes_and_read_them_back(
    items: list[tuple[np.ndarray, TensorParameters, TensorChoices]], qp: int
) -> None:
    encoders = reference.Encoder(), native.Encoder()
    for levels, parameters, choices in items:
        best = reference.shift_indices(levels, parameters, choices)
        assert native.shift_indices(levels, parameters, choices) == best
        chosen = TensorChoices(choices.row_skip_enabled_flag, choices.hist_dep_sig_prob_enabled_flag, best)
        for encoder in encoders:
            encoder.iae(qp, 8)
            encoder.tensor(levels, parameters, chosen)
    payload, native_payload = (encoder.finish() for encoder in encoders)
    assert native_payload == payload
    assert encoders[1].entry_points == encoders[0].entry_points

    decoders = reference.Decoder(payload), native.Decoder(payload)
    for number, (levels, parameters, _) in enumerate(items):
        decoded = []
        for decoder in decoders:
            assert decoder.iae(8) == qp
            decoded.append(decoder.tensor(*levels.shape, parameters))  # type: ignore[call-arg]
        assert np.array_equal(decoded[0].levels, levels)
        assert np.array_equal(decoded[1].levels, levels)
        assert decoded[1].choices == decoded[0].choices
        assert decoded[1].entry_points == decoded[0].entry_points == encoders[0].entry_points[number]
    assert [decoder.finish() for decoder in decoders] == [len(payload)] * 2


@settings(max_examples=60, deadline=None)
@given(tensors(), st.data())
def test_both_implementations_agree_on_damaged_payloads(
    item: tuple[np.ndarray, TensorParameters, TensorChoices], data: st.DataObject
) -> None:
    levels, parameters, choices = item
    encoder = native.Encoder()
    encoder.tensor(levels, parameters, choices)
    payload = bytearray(encoder.finish())
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    del payload[data.draw(st.integers(0, len(payload))) :]

    def outcome(decoder: reference.Decoder | native.Decoder) -> tuple[bytes, int] | str:
        try:
            levels_read = decoder.tensor(*levels.shape, parameters).levels  # type: ignore[call-arg]
            return levels_read.tobytes(), decoder.finish()
        except BitstreamError as error:
            return type(error).__name__

    damaged = bytes(payload)
    assert outcome(native.Decoder(damaged)) == outcome(reference.Decoder(damaged))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32), st.booleans(), st.sampled_from([0, 0.0005, 0.01, 0.05]), st.integers(0, 2), st.integers(0, 8)
)
def test_long_runs_of_zeros_are_decoded_as_in_the_reference(
    seed: int, dq_flag: bool, density: float, scan_order: int, shift_index: int
) -> None:
    rng = np.random.default_rng(seed)
    indices = (rng.integers(-3, 4, (40, 60)) * (rng.random((40, 60)) < density)).astype(np.int32)
    levels = expand(indices, scan_order) if dq_flag else indices
    parameters = TensorParameters(dq_flag=dq_flag, scan_order=scan_order)
    encoder = native.Encoder()
    # Parameter sets that differ between the contexts of a run settle at different times, or differently.
    sets = [shift_index if i % 2 else 0 for i in range(53 + 4 * 11 + 31)]
    encoder.tensor(levels, parameters, TensorChoices(shift_indices=tuple(sets)))
    payload = bytearray(encoder.finish())
    if seed % 2:
        payload[rng.integers(len(payload))] ^= 1 << rng.integers(8)

    def outcome(decoder: native.Decoder | reference.Decoder) -> object:
        try:
            found = decoder.tensor(40, 60, parameters)
            return found.levels.tolist(), found.entry_points, decoder.finish()
        except BitstreamError as error:
            return type(error).__name__

    found = outcome(native.Decoder(bytes(payload)))
    assert found == outcome(reference.Decoder(bytes(payload)))
    assert seed % 2 or found[0] == levels.tolist()  # type: ignore[index]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, 32), max_size=4), st.booleans(), st.integers(0, 2**32), st.floats(0, 1.2), st.booleans())
def test_short_payloads_of_values_end_alike(
    numbers: list[int], with_tensor: bool, seed: int, share: float, damaged: bool
) -> None:
    rng = np.random.default_rng(seed)
    levels, parameters = rng.integers(-2, 3, (3, 4)).astype(np.int32), TensorParameters()
    encoder = native.Encoder()
    for bits in numbers:
        encoder.iae(-int(rng.integers(0, 1 << bits >> 1)) if bits > 1 else 0, bits)
    if with_tensor:
        encoder.tensor(levels, parameters, TensorChoices())
    payload = bytearray(encoder.finish() + b"\xff\xff")
    if damaged:
        payload[rng.integers(len(payload))] = rng.integers(256)
    cut = bytes(payload[: int(share * (len(payload) - 2))])

    def outcome(decoder: native.Decoder | reference.Decoder) -> list[object]:
        found: list[object] = []
        try:
            found += [decoder.iae(bits) for bits in numbers]
            if with_tensor:
                found.append(decoder.tensor(3, 4, parameters).levels.tolist())
            found.append(decoder.finish())
        except BitstreamError as error:
            found.append(type(error).__name__)
        return found

    assert outcome(native.Decoder(cut)) == outcome(reference.Decoder(cut))


@pytest.mark.parametrize("module", [native, reference])
@pytest.mark.parametrize("start", [b"\xff\x00", b"\xff\x7f", b"\xff\x80", b"\xff\xff"])
def test_a_payload_that_no_encoder_starts_like_that_is_refused(module: ModuleType, start: bytes) -> None:
    with pytest.raises(PayloadError, match="start"):
        module.Decoder(start + bytes(50)).tensor(2, 2, TensorParameters())
    with pytest.raises(PayloadError, match="start"):
        module.Decoder(start).finish()
    with pytest.raises(PayloadError, match="start"):
        module.Decoder(start).iae(8)


def test_the_largest_start_of_a_payload_is_decoded_alike() -> None:
    payload = b"\xfe" + b"\xff" * 200
    decoders = reference.Decoder(payload), native.Decoder(payload)
    assert [decoder.iae(32) for decoder in decoders] == [-1] * 2
    assert decoders[0].iae(20) == decoders[1].iae(20)


def test_a_long_tensor_is_optimised_alike_after_estimators_have_met() -> None:
    rng = np.random.default_rng(3)
    levels = np.rint(rng.laplace(size=(60, 300)) * np.linspace(0.2, 3, 60)[:, None]).astype(np.int32)
    for scan_order in (0, 3):
        parameters, choices = TensorParameters(scan_order=scan_order), TensorChoices()
        assert native.shift_indices(levels, parameters, choices) == reference.shift_indices(levels, parameters, choices)


def test_the_native_tables_are_those_of_the_reference() -> None:
    tables = _native.tables()
    assert tables["lps"] == [width for row in cabac.LPS for width in row]
    assert tables["step"] == list(cabac.STEP)
    assert tables["parameter_sets"] == [tuple(p) for p in cabac.PARAMETER_SETS]
    assert tables["next_state"] == list(cabac.NEXT_STATE)
    assert tables["rates"] == list(estimates.rates())


@pytest.mark.parametrize("module", [reference, native])
def test_what_cannot_be_coded_is_refused(module: object) -> None:
    def refuse(levels: list[list[int]], parameters: TensorParameters, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            module.Encoder().tensor(np.array(levels, np.int32), parameters, TensorChoices())  # type: ignore[attr-defined]

    refuse([[0, -(2**31)]], TensorParameters(), "cannot be coded")
    refuse([[-(2**31)]], TensorParameters(dq_flag=True), "cannot be coded")
    refuse([[1]], TensorParameters(dq_flag=True), "dependent quantization")
    refuse([[2]], TensorParameters(codebook_size=3, codebook_zero_offset=1), "codebook")
    refuse([[1]], TensorParameters(codebook_size=1), "codebook")
    with pytest.raises(ValueError, match="bits"):
        module.Encoder().iae(128, 8)  # type: ignore[attr-defined]


@settings(max_examples=80, deadline=None)
@given(tensors(), st.sampled_from([None, -38]), st.booleans(), st.sampled_from([1, 3]))
def test_one_call_codes_a_tensor_as_the_shortest_of_the_candidates_and_reads_it_back(
    item: tuple[np.ndarray, TensorParameters, TensorChoices], qp: int | None, optimised: bool, threads: int
) -> None:
    levels, parameters, choices = item
    candidates = reference.shift_candidates(levels, parameters, choices)
    assert native.shift_candidates(levels, parameters, choices) == candidates
    coded = []
    for indices in candidates if optimised else [None]:
        encoder = native.Encoder()
        if qp is not None:
            encoder.iae(qp, 8)
        encoder.tensor(levels, parameters, replace(choices, shift_indices=indices))
        coded.append((encoder.finish(), encoder.entry_points[0], indices))
    payload, points, indices = min(coded, key=lambda each: len(each[0]))
    found = native.encode(levels, parameters, qp, 8, choices, optimised=optimised, threads=threads)
    assert (found.payload, found.entry_points, found.choices.shift_indices) == (payload, points, indices)
    assert found.has_zero_rows == (not levels.any(axis=1).all())

    back = native.decode(payload, *levels.shape, parameters, 0 if qp is None else 8)  # type: ignore[call-arg]
    assert (back.qp, back.consumed) == (qp or 0, len(payload))
    assert np.array_equal(back.tensor.levels, levels)
    assert back.tensor.entry_points == points


def test_the_estimate_tells_which_shift_indices_make_a_small_tensor_shortest() -> None:
    rng, best, found = np.random.default_rng(1), 0, 0
    for size in range(16, 1024, 4):
        levels = expand(np.rint(rng.laplace(0, rng.uniform(0.2, 20), (4, size // 4))).astype(np.int32), 0)
        parameters, sizes = TensorParameters(dq_flag=True), []
        for indices in (None, native.shift_indices(levels, parameters, TensorChoices())):
            encoder = native.Encoder()
            encoder.tensor(levels, parameters, TensorChoices(shift_indices=indices))
            sizes.append(len(encoder.finish()))
        best += min(sizes)
        found += len(native.encode(levels, parameters, None, 0, TensorChoices(), optimised=True).payload)
    assert best <= found <= best * 1.0001


@pytest.mark.parametrize(
    ("rows", "width", "scan_order", "dq_flag", "scale"),
    [(80, 1100, 0, False, 0.9), (500, 1100, 0, True, 0.3), (600, 200, 1, False, 0.9), (1100, 120, 1, False, 0.9)],
)
def test_shift_indices_are_those_of_the_reference_where_contexts_are_sampled(
    rows: int, width: int, scan_order: int, dq_flag: bool, scale: float
) -> None:
    rng = np.random.default_rng(rows)
    drifting = np.linspace(0.2, 2, rows)[:, None]
    indices = np.rint(rng.laplace(size=(rows, width)) * drifting * scale).astype(np.int32)
    levels = expand(indices, scan_order) if dq_flag else indices
    parameters = TensorParameters(dq_flag=dq_flag, scan_order=scan_order)
    found = native.shift_indices(levels, parameters, TensorChoices())
    assert found == reference.shift_indices(levels, parameters, TensorChoices())
    assert any(found)
    for threads in (2, 5):
        assert native.shift_indices(levels, parameters, TensorChoices(), threads) == found


@pytest.mark.parametrize("dq_flag", [False, True])
@pytest.mark.parametrize("share", [0.0003, 0.02, 0.3])
def test_long_runs_of_zeros_are_coded_alike(dq_flag: bool, share: float) -> None:
    rng = np.random.default_rng(11)
    indices = np.rint(rng.laplace(size=(9, 2600)) * 3 * (rng.random((9, 2600)) < share)).astype(np.int32)
    levels = expand(indices, 0) if dq_flag else indices
    parameters, coded = TensorParameters(dq_flag=dq_flag), []
    for module in (reference, native):
        choices = TensorChoices(shift_indices=module.shift_indices(levels, parameters, TensorChoices()))
        encoder = module.Encoder()
        encoder.tensor(levels, parameters, choices)
        coded.append((choices, encoder.finish()))
    assert coded[1] == coded[0]


@settings(max_examples=60, deadline=None)
@given(tensors(), st.data())
def test_threads_that_share_a_tensor_change_nothing(
    item: tuple[np.ndarray, TensorParameters, TensorChoices], data: st.DataObject
) -> None:
    levels, parameters, choices = item
    encoders = native.Encoder(), native.Encoder()
    for encoder, threads in zip(encoders, (1, 3), strict=True):
        encoder.iae(7, 8)
        encoder.tensor(levels, parameters, choices, threads)
        encoder.iae(-5, 8)
    payload, shared = (encoder.finish() for encoder in encoders)
    assert shared == payload
    assert encoders[1].entry_points == encoders[0].entry_points

    told = list(encoders[0].entry_points[0])
    if told and data.draw(st.booleans()):  # a header that is wrong
        place = data.draw(st.integers(0, len(told) - 1))
        told[place] = told[place]._replace(bit_offset=data.draw(st.integers(0, 1 << 40)))
    decoder = native.Decoder(payload)
    assert decoder.iae(8) == 7
    decoded = decoder.tensor(*levels.shape, parameters, told, 3)  # type: ignore[call-arg]
    assert np.array_equal(decoded.levels, levels)
    assert decoded.entry_points == encoders[0].entry_points[0]
    assert decoder.iae(8) == -5
    assert decoder.finish() == len(payload)


@settings(max_examples=60, deadline=None)
@given(tensors(), st.data())
def test_threads_that_share_a_damaged_tensor_find_what_one_finds(
    item: tuple[np.ndarray, TensorParameters, TensorChoices], data: st.DataObject
) -> None:
    levels, parameters, choices = item
    encoder = native.Encoder()
    encoder.tensor(levels, parameters, choices)
    payload = bytearray(encoder.finish())
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    outcomes = []
    for threads in (1, 3):
        decoder = native.Decoder(bytes(payload))
        try:
            outcomes.append(
                decoder.tensor(*levels.shape, parameters, encoder.entry_points[0], threads).levels.tobytes()  # type: ignore[call-arg]
            )
        except BitstreamError as error:
            outcomes.append(repr(error).encode())
    assert outcomes[0] == outcomes[1]
