"""The reference entropy coder (and the native one) against golden payloads, itself, and hostile input."""

from __future__ import annotations

import doctest
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from conformance.support.corpus import CabacLayer, CabacVector, cabac_names, cabac_vector, for_each
from nnc_core.approximator.reference import expand
from nnc_core.entropy import native, reference
from nnc_core.entropy.contexts import Layout, signalled
from nnc_core.entropy.engine import ArithmeticDecoder, ArithmeticEncoder
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.entropy.reference import Decoder, Encoder, shift_indices
from nnc_core.entropy.scan import segments
from nnc_core.errors import BitstreamError, PayloadError, TruncatedError
from nnc_core.tables.entry_point import EntryPoint
from nnc_core.tables.estimates import rates

PLAIN = TensorChoices()


def matrix(*rows: list[int]) -> NDArray[np.int32]:
    return np.array(rows, np.int32)


def encoded(
    levels: NDArray[np.int32], parameters: TensorParameters, choices: TensorChoices = PLAIN, qp: int | None = None
) -> tuple[bytes, list[EntryPoint]]:
    encoder = Encoder()
    if qp is not None:
        encoder.iae(qp, 8)
    encoder.tensor(levels, parameters, choices)
    payload = encoder.finish()
    return payload, encoder.entry_points[0]


def assert_decodes(
    payload: bytes, levels: NDArray[np.int32], parameters: TensorParameters, qp: int | None = None
) -> None:
    decoder = Decoder(payload)
    if qp is not None:
        assert decoder.iae(8) == qp
    np.testing.assert_array_equal(decoder.tensor(*levels.shape, parameters).levels, levels)  # type: ignore[call-arg]
    assert decoder.finish() == len(payload)


# --- golden payloads -------------------------------------------------------------------------------------------------


both = pytest.mark.parametrize("module", [reference, native], ids=["reference", "native"])


def decoded_choices(vector: CabacVector, module: ModuleType) -> list[TensorChoices]:
    decoder = module.Decoder(vector.payload)
    for _, bits in vector.prefix:
        decoder.iae(bits)
    return [decoder.tensor(*layer.levels.shape, layer.parameters).choices for layer in vector.layers]


@both
@for_each("name", cabac_names())
def test_every_corpus_payload_decodes_exactly(name: str, module: ModuleType) -> None:
    vector = cabac_vector(name)
    decoder = module.Decoder(vector.payload)
    assert [decoder.iae(bits) for _, bits in vector.prefix] == [value for value, _ in vector.prefix]
    for layer in vector.layers:
        decoded = decoder.tensor(*layer.levels.shape, layer.parameters)
        np.testing.assert_array_equal(decoded.levels, layer.levels)
        assert decoded.entry_points == layer.entry_points
        # A codebook with a single entry leaves no room for the flag.
        assert decoded.choices.row_skip_enabled_flag == (layer.row_skip_flag and layer.parameters.codebook_size != 1)
    assert decoder.finish() == len(vector.payload)


@both
@for_each("name", cabac_names())
def test_every_corpus_payload_is_reproduced_from_its_levels(name: str, module: ModuleType) -> None:
    vector = cabac_vector(name)
    encoder = module.Encoder()
    for value, bits in vector.prefix:
        encoder.iae(value, bits)
    for layer, choices in zip(vector.layers, decoded_choices(vector, module), strict=True):
        encoder.tensor(layer.levels, layer.parameters, choices)
    assert encoder.finish() == vector.payload
    assert encoder.entry_points == [layer.entry_points for layer in vector.layers]


def counted_alike() -> list[str]:
    """Vectors whose encoder chose its shift indices by the bins that it coded (its estimate simplifies the others)."""
    vectors = {name: cabac_vector(name) for name in cabac_names()}
    return [name for name, vector in vectors.items() if vector.param_opt and all(map(is_simple, vector.layers))]


def is_simple(layer: CabacLayer) -> bool:
    return not (layer.parameters.dq_flag or layer.parameters.codebook_size or layer.entry_points)


@both
@for_each("name", counted_alike())
def test_shift_indices_are_those_of_the_corpus(name: str, module: ModuleType) -> None:
    vector = cabac_vector(name)
    for layer, choices in zip(vector.layers, decoded_choices(vector, module), strict=True):
        assert module.shift_indices(layer.levels, layer.parameters, choices) == choices.shift_indices


EXTENDED = TensorParameters(general_profile_idc=1, cabac_unary_length_minus1=10)


def test_a_small_tensor_has_the_expected_payload() -> None:
    levels = matrix([0, 1, -2], [3, 0, 0])
    payload, _ = encoded(levels, EXTENDED, qp=-38)
    assert payload.hex() == "d96c80203f99e0"
    assert_decodes(payload, levels, EXTENDED, qp=-38)


def test_large_integers_in_the_base_tool_set_have_the_expected_payload() -> None:
    levels = matrix([0], [1048576], [-1048576], [12], [-13], [2147483647])
    parameters = TensorParameters(general_profile_idc=0)
    choices = TensorChoices(shift_indices=shift_indices(levels, parameters, PLAIN))
    payload, _ = encoded(levels, parameters, choices)
    assert payload.hex() == "8d003c980000b3ff8a70000029ffc7ba2580c7000001a497fffff3cb"
    assert_decodes(payload, levels, parameters)


def test_dependent_quantization_with_entry_points_decodes_as_expected() -> None:
    payload = bytes.fromhex(
        "eb7c4a6313633ee81c77d792cc0597ddea2657b30002afc8cc8c9ddbf73f039f8b2c162f9e6b10dae87c3ffacda57e1800a23274f0d66d"
        "0f0aab1284a4bcd7a8dfd3c43fe9f636ed6b3c6e81bd80"
    )
    coded = [((31 * t * t + 7 * t) % 23 - 11) * (t % 3 == 0) for t in range(17 * 9)]
    indices = np.zeros((17, 9), np.int32)
    places = [(segment.row, column) for segment in segments(17, 9, 1) for column in segment.columns]
    for place, index in zip(places, coded, strict=True):
        indices[place] = index
    levels = expand(indices, scan_order=1)
    parameters = replace(EXTENDED, dq_flag=True, scan_order=1)

    decoder = Decoder(payload)
    assert decoder.iae(8) == -20
    decoded = decoder.tensor(17, 9, parameters)
    assert decoder.finish() == len(payload)
    np.testing.assert_array_equal(decoded.levels, levels)
    assert decoded.levels[0].tolist() == [-22, 0, 0, -19, 0, 0, -5, 0, 0]
    assert decoded.entry_points == [EntryPoint(205, 24, 2), EntryPoint(207, 42, 1)]
    assert encoded(levels, parameters, decoded.choices, qp=-20) == (payload, decoded.entry_points)


def test_a_codebook_with_a_skipped_row_has_the_expected_payload() -> None:
    levels = matrix([0, 1, -1, 2], [0, 0, 0, 0], [2, 0, -1, 0])
    parameters = replace(EXTENDED, codebook_size=4, codebook_zero_offset=1)
    choices = TensorChoices(row_skip_enabled_flag=True)
    choices = replace(choices, shift_indices=shift_indices(levels, parameters, choices))
    payload, _ = encoded(levels, parameters, choices, qp=3)
    assert payload.hex() == "03f733e73e38"
    assert_decodes(payload, levels, parameters, qp=3)


def test_an_update_with_base_and_history_has_the_expected_payload() -> None:
    levels = matrix([0, 4, 0, -2], [0, 0, 0, 0], [2, -1, 0, 0])
    parameters = TensorParameters(
        cabac_unary_length_minus1=2,
        dq_flag=True,
        parent_node_id_present_flag=True,
        base=matrix([0, 2, 0, -1], [1, 0, 0, 0], [0, -3, 0, 1]),
        history=matrix([0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1]).astype(np.uint8),
    )
    payload, _ = encoded(levels, parameters, TensorChoices(True, True), qp=-5)
    assert payload.hex() == "fb0190002a16b960"
    assert_decodes(payload, levels, parameters, qp=-5)


@pytest.mark.parametrize(("largest", "transmitted"), [(3, 0), (4, 1), (5, 1), (6, 2), (9, 2), (10, 3)])
def test_a_codebook_limits_how_many_prefix_contexts_have_a_shift_index(largest: int, transmitted: int) -> None:
    layout = Layout(3)
    book = replace(EXTENDED, cabac_unary_length_minus1=2, codebook_size=largest + 2, codebook_zero_offset=1)
    found = [context for context in signalled(book, hist_flag=False) if context >= layout.x2]
    assert found == list(range(layout.x2, layout.x2 + transmitted))


def test_the_example_in_the_documentation_works() -> None:
    result = doctest.testmod(reference)
    assert result.attempted > 0
    assert result.failed == 0


def test_the_decoders_registers_follow_the_worked_example() -> None:
    engine = ArithmeticDecoder(bytes.fromhex("d96c80203f99e0"))

    def registers() -> tuple[int, int, int]:
        return engine._doublings, engine._interval, engine._offset

    assert registers() == (0, 510, 434)
    assert engine.bypass(0, 8) == -38 & 255
    assert registers() == (8, 510, 141)
    assert engine.bypass(0, 1) == 0
    assert registers() == (9, 510, 282)
    engine.start_contexts([0])
    assert [engine.bin(0, False) for _ in range(3)] == [False] * 3
    assert registers() == (11, 314, 0)
    assert not any(engine.bin(0, False) for _ in range(56))
    assert registers() == (26, 269, 257)


def test_rates_match_the_published_table() -> None:
    table = rates()
    assert len(table) == 512
    assert (table[0], table[1], table[75]) == ((32968, 32568), (33369, 32174), (63028, 14466))
    assert (table[255], table[511]) == ((135172, 2790), (237777, 310))


# --- what goes in comes out ------------------------------------------------------------------------------------------


@st.composite
def tensors(draw: st.DrawFn) -> tuple[NDArray[np.int32], TensorParameters, TensorChoices]:
    rows, width = draw(st.integers(1, 20)), draw(st.integers(1, 20))
    parameters = draw(tensor_parameters(rows, width))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(random_levels(random, rows, width, parameters))
    size = Layout(parameters.cabac_unary_length_minus1 + 1).size
    indices = st.none() | st.just(tuple(random.integers(0, 9, size).tolist()))
    return levels, parameters, TensorChoices(draw(st.booleans()), draw(st.booleans()), draw(indices))


@st.composite
def tensor_parameters(draw: st.DrawFn, rows: int, width: int) -> TensorParameters:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    codebook_size = draw(st.sampled_from([0, 0, 0, 1, 2, 3, 7, 40]))
    return TensorParameters(
        general_profile_idc=draw(st.integers(0, 1)),
        cabac_unary_length_minus1=draw(st.sampled_from([0, 1, 2, 10, 255])),
        dq_flag=draw(st.booleans()),
        scan_order=draw(st.integers(0, 4)),
        parent_node_id_present_flag=draw(st.booleans()),
        codebook_size=codebook_size,
        codebook_zero_offset=draw(st.integers(0, max(0, codebook_size - 1))),
        base=draw(st.none() | st.just(random.integers(-3, 4, (rows, width), np.int32))),
        history=draw(st.none() | st.just(random.integers(0, 2, (rows, width), np.uint8))),
    )


@st.composite
def random_levels(
    draw: st.DrawFn, random: np.random.Generator, rows: int, width: int, parameters: TensorParameters
) -> NDArray[np.int32]:
    largest = draw(st.sampled_from([0, 1, 3, 20, 2**29, 2**30 - 1]))
    low, high = -largest, largest
    if parameters.codebook_size:
        low, high = -parameters.codebook_zero_offset, parameters.codebook_size - 1 - parameters.codebook_zero_offset
    indices = random.integers(low, high, (rows, width), np.int32, endpoint=True)
    indices[random.random((rows, width)) < draw(st.sampled_from([0, 0.5, 0.95]))] = 0
    indices[random.random(rows) < draw(st.sampled_from([0, 0.5]))] = 0
    return expand(indices, parameters.scan_order) if parameters.dq_flag else indices


@settings(max_examples=150, deadline=None)
@given(tensors())
def test_any_tensor_survives(case: tuple[NDArray[np.int32], TensorParameters, TensorChoices]) -> None:
    levels, parameters, choices = case
    payload, entry_points = encoded(levels, parameters, choices, qp=-7)
    decoder = Decoder(payload)
    assert decoder.iae(8) == -7
    decoded = decoder.tensor(*levels.shape, parameters)  # type: ignore[call-arg]
    assert decoder.finish() == len(payload)
    np.testing.assert_array_equal(decoded.levels, levels)
    assert decoded.entry_points == entry_points
    assert encoded(levels, parameters, decoded.choices, qp=-7)[0] == payload


@settings(max_examples=40, deadline=None)
@given(tensors())
def test_only_transmitted_shift_indices_are_chosen(
    case: tuple[NDArray[np.int32], TensorParameters, TensorChoices],
) -> None:
    levels, parameters, choices = case
    choices = replace(choices, shift_indices=shift_indices(levels, parameters, choices))
    payload, _ = encoded(levels, parameters, choices)
    assert Decoder(payload).tensor(*levels.shape, parameters).choices.shift_indices == choices.shift_indices  # type: ignore[call-arg]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 32), st.integers(0, 2**32 - 1))))
def test_signed_numbers_of_any_length_survive(numbers: list[tuple[int, int]]) -> None:
    values = [(bits, (number % (1 << bits)) - (1 << bits) // 2) for bits, number in numbers]
    encoder = Encoder()
    for bits, value in values:
        encoder.iae(value, bits)
    decoder = Decoder(encoder.finish())
    assert [(bits, decoder.iae(bits)) for bits, _ in values] == values


def test_a_tensor_without_elements_survives() -> None:
    levels = np.zeros((0, 5), np.int32)
    payload, entry_points = encoded(levels, replace(EXTENDED, scan_order=1))
    assert_decodes(payload, levels, replace(EXTENDED, scan_order=1))
    assert entry_points == []


def test_several_tensors_share_one_codeword() -> None:
    first, second = matrix([5, 0], [0, -1]), matrix([7])
    encoder = Encoder()
    encoder.tensor(first, EXTENDED, PLAIN)
    encoder.iae(-1, 6)
    encoder.tensor(second, EXTENDED, PLAIN)
    decoder = Decoder(encoder.finish())
    np.testing.assert_array_equal(decoder.tensor(2, 2, EXTENDED).levels, first)
    assert decoder.iae(6) == -1
    np.testing.assert_array_equal(decoder.tensor(1, 1, EXTENDED).levels, second)
    decoder.finish()


def test_exactly_the_zero_rows_are_skipped_in_every_scan() -> None:
    levels = np.ones((20, 11), np.int32)
    levels[3:19] = 0
    levels[9, 10] = 2
    for scan_order in range(5):
        parameters = replace(EXTENDED, scan_order=scan_order)
        payload, _ = encoded(levels, parameters, TensorChoices(row_skip_enabled_flag=True))
        assert_decodes(payload, levels, parameters)
        assert len(payload) < len(encoded(levels, parameters)[0])


def test_the_state_advances_once_for_each_skipped_element() -> None:
    indices = np.random.default_rng(0).integers(0, 2, (16, 11), np.int32)
    indices[[1, 3, 4, 10, 11]] = 0  # skipped in segments of 8 and of 3 elements
    levels = expand(indices, scan_order=1)
    parameters = replace(EXTENDED, dq_flag=True, scan_order=1)
    payload, _ = encoded(levels, parameters, TensorChoices(row_skip_enabled_flag=True))
    assert_decodes(payload, levels, parameters)


def test_optimised_shift_indices_make_a_lopsided_tensor_smaller() -> None:
    levels = np.random.default_rng(1).integers(0, 40, (40, 40), np.int32)
    choices = TensorChoices(shift_indices=shift_indices(levels, EXTENDED, PLAIN))
    payload, _ = encoded(levels, EXTENDED, choices)
    assert len(payload) < len(encoded(levels, EXTENDED)[0])
    assert_decodes(payload, levels, EXTENDED)


def test_shift_indices_do_not_depend_on_those_already_chosen() -> None:
    levels = np.random.default_rng(2).integers(0, 40, (20, 20), np.int32)
    chosen = shift_indices(levels, EXTENDED, PLAIN)
    assert any(chosen)
    assert shift_indices(levels, EXTENDED, TensorChoices(shift_indices=chosen)) == chosen


# --- what an encoder refuses -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("levels", "parameters", "message"),
    [
        (matrix([1, 3]), replace(EXTENDED, dq_flag=True), "not a level of dependent quantization in state 0"),
        (matrix([2, 0, 2]), replace(EXTENDED, dq_flag=True), "not a level of dependent quantization in state 1"),
        (matrix([3]), replace(EXTENDED, codebook_size=4, codebook_zero_offset=1), "outside the codebook"),
        (matrix([-2]), replace(EXTENDED, codebook_size=4, codebook_zero_offset=1), "outside the codebook"),
        (matrix([1]), replace(EXTENDED, codebook_size=1), "outside the codebook"),
        (matrix([-(2**31)]), EXTENDED, "cannot be coded"),
        (matrix([1]).astype(np.int64), EXTENDED, "expected int32"),
        (np.array([1], np.int32), EXTENDED, "1 dimensions"),
        (matrix([1]), replace(EXTENDED, base=matrix([1, 2])), "base has shape"),
    ],
)
def test_levels_that_cannot_be_coded_are_refused(
    levels: NDArray[np.int32], parameters: TensorParameters, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encoded(levels, parameters)
    with pytest.raises(ValueError, match=message):
        shift_indices(levels, parameters, PLAIN)


def test_the_base_tool_set_does_not_limit_levels_to_the_codebook() -> None:
    parameters = TensorParameters(general_profile_idc=0, codebook_size=4, codebook_zero_offset=1)
    assert_decodes(encoded(matrix([9, -9]), parameters)[0], matrix([9, -9]), parameters)


@pytest.mark.parametrize(("value", "bits"), [(128, 8), (-129, 8), (1, 1), (1, 0), (0, 33), (0, -1)])
def test_a_number_that_does_not_fit_is_refused(value: int, bits: int) -> None:
    with pytest.raises(ValueError, match="bits"):
        Encoder().iae(value, bits)


@pytest.mark.parametrize("indices", [(0,), (9,) + (0,) * 127, (-1,) + (0,) * 127])
def test_shift_indices_out_of_range_are_refused(indices: tuple[int, ...]) -> None:
    assert Layout(11).size == 128
    with pytest.raises(ValueError, match="shift indices"):
        encoded(matrix([1]), EXTENDED, TensorChoices(shift_indices=indices))


@pytest.mark.parametrize(
    "wrong", [{"scan_order": 5}, {"cabac_unary_length_minus1": 256}, {"codebook_size": 3, "codebook_zero_offset": 3}]
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"expected|no entry"):
        TensorParameters(**wrong)


# --- what a decoder refuses ------------------------------------------------------------------------------------------

LEVELS = np.random.default_rng(3).integers(-9, 10, (12, 12), np.int32)


@pytest.mark.parametrize("kept", [0, 1, 2, 20, -1])
def test_a_truncated_payload_is_refused(kept: int) -> None:
    payload, _ = encoded(LEVELS, EXTENDED)
    with pytest.raises(TruncatedError):
        assert_decodes(payload[:kept], LEVELS, EXTENDED)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("payload", [b"", b"\x00\x00\x00", b"\xfe\xff\xff"])
def test_a_short_payload_for_a_huge_tensor_is_refused_early(payload: bytes) -> None:
    with pytest.raises(TruncatedError):
        Decoder(payload).tensor(1 << 12, 1 << 12, EXTENDED)


def test_bytes_behind_the_codeword_are_left_to_the_caller() -> None:
    payload, _ = encoded(LEVELS, EXTENDED)
    decoder = Decoder(payload + b"\xab")
    decoder.tensor(12, 12, EXTENDED)
    assert decoder.finish() == len(payload)


def test_a_codeword_that_continues_is_refused() -> None:
    encoder = Encoder()
    encoder.tensor(LEVELS, EXTENDED, PLAIN)
    encoder.tensor(LEVELS, EXTENDED, PLAIN)
    decoder = Decoder(encoder.finish())
    decoder.tensor(12, 12, EXTENDED)
    with pytest.raises(PayloadError, match="continues"):
        decoder.finish()


def test_a_wrong_stop_pattern_is_refused() -> None:
    payload = bytes.fromhex("d96c80203f99e0")  # its last byte holds the stop bit in bit 2, then five zeros
    for last in (0xC0, 0xE1, 0xF0):
        decoder = Decoder(payload[:-1] + bytes([last]))
        assert decoder.iae(8) == -38
        decoder.tensor(2, 3, EXTENDED)
        with pytest.raises(PayloadError, match="wrong end"):
            decoder.finish()


def test_a_level_of_more_than_31_bits_is_refused() -> None:
    parameters = TensorParameters(general_profile_idc=0, cabac_unary_length_minus1=0)
    layout = Layout(1)
    engine = ArithmeticEncoder()
    engine.start_contexts([0] * (layout.size + 2))
    for _ in signalled(parameters, hist_flag=False):
        engine.bin(layout.shift, False)
    engine.bin(layout.sig_flag(0, 0, 0, False), True)
    engine.bin(layout.sign_flag(0, 0), False)
    engine.bin(layout.greater_x(0, False, 0), True)
    for j in range(31):
        engine.bin(layout.greater_x2(j), True)
    engine.bypass(0, 31)
    with pytest.raises(PayloadError, match="31 bits"):
        Decoder(engine.payload()).tensor(1, 1, parameters)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.data())
def test_random_bytes_decode_or_are_refused(payload: bytes, data: st.DataObject) -> None:
    rows, width = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 20))
    parameters = data.draw(tensor_parameters(rows, width))
    decoder = Decoder(payload)
    try:
        decoded = decoder.tensor(rows, width, parameters)
        consumed = decoder.finish()
    except BitstreamError:
        return
    assert decoded.levels.shape == (rows, width)
    assert consumed <= len(payload)
