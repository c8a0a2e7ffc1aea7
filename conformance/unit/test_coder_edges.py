"""Where encoding and decoding meet an edge: of a type, of what other decoders understand, of what a header says."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest

import nnc_core
from conformance.support import handmade
from conformance.support.handmade import payload_of
from nnc_core import CodingParameters, LimitError, Limits, ModelError, NnrFile
from nnc_core.approximator.reference import expand
from nnc_core.bitstream import BitstreamWriter
from nnc_core.bitstream.parts import join, split
from nnc_core.entropy.native import Decoder, Encoder
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.errors import PayloadError
from nnc_core.syntax import CompressedDataUnitHeader, ModelParameterSet
from nnc_core.tables.code_points import PayloadType
from nnc_core.tables.entry_point import EntryPoint

# --- rows that are left out ---------------------------------------------------------------------------------------


def skips_rows(data: bytes) -> bool:
    file = NnrFile(data)
    unit = file.bitstream.tensors["w"]
    header = unit.header
    decoder = Decoder(unit.payload)
    decoder.iae(8)
    p = TensorParameters(dq_flag=header.dq_flag, scan_order=header.scan_order)
    return decoder.tensor(*header.tensor_dimensions, p).choices.row_skip_enabled_flag  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("width", "dq_flag", "scan_order", "skipped"),
    [
        (30, True, 0, True),
        (30, False, 1, True),
        (30, True, 1, False),
        (33, True, 2, False),
        (16, True, 2, True),
        (15, True, 2, True),
        (28, True, 1, True),
    ],
)
def test_rows_are_skipped_where_all_decoders_step_the_state_of_dependent_quantization_alike(
    width: int, dq_flag: bool, scan_order: int, skipped: bool
) -> None:
    array = np.random.default_rng(1).normal(0, 0.1, (60, width)).astype(np.float32)
    array[::2] = 0
    data = nnc_core.encode({"w": array}, parameters=CodingParameters(-38, dq_flag=dq_flag, scan_order=scan_order))
    assert skips_rows(data) == skipped


# --- the largest half ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dq_flag", [False, True])
def test_a_half_near_the_largest_one_does_not_become_infinite(dq_flag: bool) -> None:
    array = np.full((3, 4), 65504, np.float16) * np.array([1, -1, 1, -1], np.float16)
    p = CodingParameters(qp=64, dq_flag=dq_flag)  # in steps of 2**16
    as_float = nnc_core.decode(nnc_core.encode({"w": array.astype(np.float32)}, parameters=p))["w"]
    assert np.abs(as_float).max() >= 65536
    decoded = nnc_core.decode(nnc_core.encode({"w": array}, parameters=p))["w"]
    assert decoded.dtype == np.float16
    assert (decoded.max(), decoded.min()) == (65504, -65504)


def test_an_infinite_half_stays_infinite() -> None:
    array = np.array([[np.inf, -np.inf, 65504]], np.float16)
    np.testing.assert_array_equal(nnc_core.decode(nnc_core.encode({"w": array}))["w"], array)


# --- entry points -------------------------------------------------------------------------------------------------


def banded(
    levels: np.ndarray[Any, Any], points: tuple[EntryPoint, ...] | None = None, *, coded_dq: bool = True, **header: Any
) -> bytes:
    """A tensor in rows of blocks, with these entry points in its header instead of its own."""
    encoder = Encoder()
    integers = header.get("nnr_compressed_data_unit_payload_type") == PayloadType.NNR_PT_INT
    if not integers:
        encoder.iae(0, 8)
    encoder.tensor(
        levels, TensorParameters(cabac_unary_length_minus1=9, dq_flag=coded_dq, scan_order=1), TensorChoices()
    )
    payload = encoder.finish()
    own = tuple(encoder.entry_points[0])
    return handmade.one_unit(
        payload, levels.shape, dq_flag=True, scan_order=1, entry_points=own if points is None else points, **header
    )


LEVELS = expand(np.random.default_rng(5).integers(-3, 4, (20, 3), np.int32), 1)
POINTS = NnrFile(banded(LEVELS)).bitstream.tensors["w"].header.entry_points


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("field", EntryPoint._fields)
def test_an_entry_point_that_is_not_where_it_is_said_to_be_is_refused(number: int, field: str) -> None:
    np.testing.assert_array_equal(nnc_core.decode(banded(LEVELS))["w"], LEVELS)
    wrong = list(POINTS)
    wrong[number] = wrong[number]._replace(**{field: getattr(wrong[number], field) ^ 1})
    with pytest.raises(PayloadError, match="is wrong") as caught:
        nnc_core.decode(banded(LEVELS, tuple(wrong)))
    assert caught.value.element == f"cabac_offset[{number}]"
    assert (caught.value.unit, caught.value.tensor) == (2, "w")


def test_states_in_the_entry_points_of_integers_do_not_count() -> None:
    integers = {"nnr_compressed_data_unit_payload_type": PayloadType.NNR_PT_INT}
    points = NnrFile(banded(LEVELS, coded_dq=False, **integers)).bitstream.tensors["w"].header.entry_points
    data = banded(LEVELS, tuple(p._replace(dq_state=5) for p in points), coded_dq=False, **integers)
    np.testing.assert_array_equal(nnc_core.decode(data)["w"], LEVELS)


@pytest.mark.parametrize("shape", [(20, 1), (1, 20)])
def test_entry_points_of_a_single_row_or_column_are_read_and_ignored(shape: tuple[int, int]) -> None:
    levels = np.arange(20, dtype=np.int32).reshape(shape)
    points = (EntryPoint(3, 4, 0),) * 2 if shape[0] == 20 else ()
    data = handmade.one_unit(payload_of(levels), shape, scan_order=1, entry_points=points)
    np.testing.assert_array_equal(nnc_core.decode(data)["w"], levels)


# --- what an encoder is told --------------------------------------------------------------------------------------


def test_the_limits_of_an_encoder_can_be_set_like_those_of_a_decoder() -> None:
    tensors = {5000 * "x": np.ones((4, 5), np.float32)}
    for limits, limit in ((None, "name_length"), (Limits(name_length=5000, tensor_elements=19), "tensor_elements")):
        with pytest.raises(LimitError, match=limit):
            nnc_core.encode(tensors, limits=limits)
    limits = Limits(name_length=5000, tensor_elements=20)
    assert list(nnc_core.decode(nnc_core.encode(tensors, limits=limits), limits=limits)) == list(tensors)


# --- parts of a bitstream ---------------------------------------------------------------------------------------------


def test_parts_are_joined_again_although_their_performance_is_not_a_number() -> None:
    stream = io.BytesIO()
    mps = ModelParameterSet(
        validation_set_performance_present_flag=True,
        performance_metric_type="top-1",
        validation_set_performance=math.nan,
    )
    writer = BitstreamWriter(stream, mps)
    for name in "ab":
        header = CompressedDataUnitHeader(PayloadType.NNR_PT_RAW_FLOAT, topology_elem_id=name, tensor_dimensions=(1,))
        writer.data_unit(header, bytes(4))
    assert join(split(stream.getvalue())) == stream.getvalue()


def test_a_part_has_all_units_of_its_tensor() -> None:
    rng = np.random.default_rng(4)
    tensors = {
        "w": rng.normal(size=(20, 30)).astype(np.float32),
        "exact": rng.normal(size=(20, 30)).astype(np.float32),
        "half": rng.normal(size=400).astype(np.float16),
        "exceptional": np.where(rng.random(4000) < 0.002, np.inf, rng.normal(size=4000)).astype(np.float32),
        "unsigned": rng.integers(120, 136, 500).astype(np.uint8),
        "w@plain": np.ones(30, np.float32),
    }
    rules = (nnc_core.Rule.parse("^(exact|half)$=exact=1"),)
    data = nnc_core.encode(tensors, parameters=CodingParameters(rules=rules))
    parts, whole = split(data), nnc_core.decode(data)
    assert list(parts) == list(whole) == list(tensors)
    for name, array in whole.items():
        alone = nnc_core.decode(parts[name])
        assert list(alone) == [name]
        np.testing.assert_array_equal(alone[name], array, strict=True)
    assert join(parts) == data


@pytest.mark.parametrize("name", [3, None, b"w", ("w",)])
def test_a_name_that_is_not_text_is_refused(name: object) -> None:
    with pytest.raises(ModelError, match="expected text"):
        nnc_core.encode({name: np.zeros(3, np.float32)})  # type: ignore[dict-item]
