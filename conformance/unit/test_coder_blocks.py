"""Data units with several tensors: blocks in both readings, and tensors that are cut up; codebooks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import nnc_core
from conformance.support import handmade
from nnc_core import UnsupportedError
from nnc_core.entropy.native import Encoder
from nnc_core.entropy.parameters import TensorChoices, TensorParameters
from nnc_core.errors import PayloadError
from nnc_core.syntax.codebook import IntegerCodebook
from nnc_core.syntax.data_unit import CompressedDataUnitHeader, TensorDimensionMapping
from nnc_core.syntax.topology import TopologyElementsIdsList
from nnc_core.tables.blocks import HEADER_ORDER, PAYLOAD_ORDER, Member, members, named_members, parameter_types
from nnc_core.tables.code_points import CompressedParameterTypes, PayloadType

STEP = 1.0  # the quantization parameter of everything here is 0
BOTH_READINGS_AGREE = [t for t in range(16) if (t >> 2 & 1) == (t >> 3 & 1)]


def block(types: int, names: tuple[str, ...], payload: bytes, **fields: Any) -> bytes:
    header = CompressedDataUnitHeader(
        nnr_compressed_data_unit_payload_type=PayloadType.NNR_PT_BLOCK,
        nnr_multiple_topology_elements_present_flag=True,
        topology_elements_ids_list=TopologyElementsIdsList(names),
        compressed_parameter_types=CompressedParameterTypes(types),
        tensor_dimensions=(3, 4),
        **fields,
    )
    return handmade.bitstream([(header, payload)])


def payload_of(*tensors: NDArray[Any], **parameters: Any) -> bytes:
    encoder = Encoder()
    for tensor in tensors:
        encoder.iae(0, handmade.QP_BITS)
        levels = np.ascontiguousarray(tensor.reshape(len(tensor), -1), np.int32)
        encoder.tensor(levels, TensorParameters(cabac_unary_length_minus1=9, **parameters), TensorChoices())
    return encoder.finish()


def vector(start: int) -> NDArray[np.int32]:
    return np.arange(start, start + 3, dtype=np.int32)


WEIGHT = np.arange(12, dtype=np.int32).reshape(3, 4) - 5
BIT_4, BIT_8 = CompressedParameterTypes.NNR_CPT_BN, CompressedParameterTypes.NNR_CPT_BI


def test_both_orders_have_every_member_once() -> None:
    assert sorted(HEADER_ORDER, key=str) == sorted(PAYLOAD_ORDER, key=str) == sorted(Member, key=str)


def test_the_types_of_a_block_follow_from_its_members_and_its_members_from_the_types() -> None:
    for types in range(16):
        assert parameter_types(members(types)) == types
        assert named_members(types, len(members(types))) == members(types)


def test_no_number_of_names_fits_types_that_have_another_number_of_members() -> None:
    for types in BOTH_READINGS_AGREE:
        assert named_members(types, len(members(types)) + 1) == ()


def test_the_number_of_names_tells_how_the_types_are_to_be_read() -> None:
    batch_norm = ("w", "beta", "gamma", "mean", "var")
    coded = payload_of(*(vector(10 * place) for place in range(1, 5)), WEIGHT)
    for types in (BIT_4, BIT_8):
        decoded = nnc_core.decode(block(types, batch_norm, coded))
        assert [decoded[name].tolist() for name in batch_norm[1:]] == [vector(10 * n).tolist() for n in range(1, 5)]
    bias = payload_of(vector(7), WEIGHT)
    for types in (BIT_4, BIT_8):
        decoded = nnc_core.decode(block(types, ("w", "b"), bias))
        assert decoded["b"].tolist() == vector(7).tolist()
        assert decoded["w"].tolist() == WEIGHT.tolist()


def test_one_tensor_of_a_block_can_be_decoded_alone() -> None:
    file = nnc_core.NnrFile(block(BIT_8, ("w", "b"), payload_of(vector(7), WEIGHT)))
    assert file["b"].tolist() == vector(7).tolist()
    assert (file.tensors["b"].shape, file.tensors["w"].shape) == ((3,), (3, 4))
    assert (file.tensors["b"].qp, file.tensors["w"].qp) == (0, None)
    assert dict(file.decode_all(2)).keys() == {"w", "b"}


def test_an_error_in_a_block_names_the_tensor_that_it_is_in() -> None:
    book = IntegerCodebook.from_values([0, 1], 0)
    coded = payload_of(vector(7), WEIGHT)
    with pytest.raises(PayloadError) as caught:
        nnc_core.decode(
            block(BIT_8, ("w", "b"), coded[:-1] + b"\x81", codebook_present_flag=True, integer_codebook=book)
        )
    assert caught.value.tensor == "w"


def cut(axis: int, places: tuple[int, ...], shifts: tuple[tuple[tuple[int, int], ...], ...], **fields: Any) -> bytes:
    names = tuple(f"part{number}" for number, _ in enumerate(shifts))
    header = CompressedDataUnitHeader(
        nnr_multiple_topology_elements_present_flag=True,
        topology_elements_ids_list=TopologyElementsIdsList(names),
        tensor_dimensions=(4, 5, 6),
        topology_tensor_dimension_mapping=TensorDimensionMapping(axis, places, shifts),
        **fields,
    )
    return handmade.bitstream([(header, payload_of(CODED))])


CODED = np.arange(120, dtype=np.int32).reshape(4, 5, 6)


def test_a_tensor_is_cut_and_then_the_axes_of_each_part_are_exchanged() -> None:
    data = cut(1, (2, 3), ((), ((0, 2),), ((0, 1), (1, 1))))
    decoded = nnc_core.decode(data)
    assert list(decoded) == ["part0", "part1", "part2"]
    np.testing.assert_array_equal(decoded["part0"], CODED[:, :2])
    np.testing.assert_array_equal(decoded["part1"], CODED[:, 2:3].swapaxes(0, 2))
    np.testing.assert_array_equal(decoded["part2"], CODED[:, 3:].swapaxes(0, 1).swapaxes(1, 2))
    assert all(array.flags.c_contiguous for array in decoded.values())


def test_the_shapes_of_the_parts_are_known_before_they_are_decoded() -> None:
    file = nnc_core.NnrFile(cut(1, (2, 3), ((), ((0, 2),), ((0, 1), (1, 1)))))
    assert {name: info.shape for name, info in file.tensors.items()} == {n: a.shape for n, a in file.items()}


def test_the_first_dimension_moves_before_a_tensor_is_cut() -> None:
    header = {"first_tensor_dimension_shift": 2}
    decoded = nnc_core.decode(cut(0, (1,), ((), ()), **header))
    # as coded: the third dimension first
    whole = np.moveaxis(CODED.reshape(6, 4, 5), 0, 2)
    np.testing.assert_array_equal(decoded["part0"], whole[:1])
    np.testing.assert_array_equal(decoded["part1"], whole[1:])


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, ...], int, int, tuple[int, ...], tuple[tuple[tuple[int, int], ...], ...]]:
    """A shape, the place of its first coded dimension, and how a tensor of that shape is cut up."""
    shape = tuple(draw(st.lists(st.integers(2, 5), min_size=2, max_size=4)))
    axis = draw(st.integers(0, len(shape) - 1))
    places = tuple(sorted(draw(st.sets(st.integers(1, shape[axis] - 1), min_size=1))))
    axes = st.integers(0, len(shape) - 1)
    swap = st.tuples(axes, axes).map(lambda pair: (pair[0], pair[1] - pair[0]))
    shifts = tuple(tuple(draw(st.lists(swap, max_size=3))) for _ in range(len(places) + 1))
    return shape, draw(axes), axis, places, shifts


@settings(deadline=None)
@given(cuts())
def test_what_was_merged_swapped_and_shifted_returns_in_shape_and_order(drawn: Any) -> None:
    shape, shift, axis, places, shifts = drawn
    whole = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    names = tuple(f"part{number}" for number, _ in enumerate(shifts))
    header = CompressedDataUnitHeader(
        nnr_multiple_topology_elements_present_flag=True,
        topology_elements_ids_list=TopologyElementsIdsList(names),
        tensor_dimensions=shape,
        topology_tensor_dimension_mapping=TensorDimensionMapping(axis, places, shifts),
        first_tensor_dimension_shift=shift,
    )
    decoded = nnc_core.decode(handmade.bitstream([(header, payload_of(np.moveaxis(whole, shift, 0)))]))
    restored = []
    for array, swaps in zip(decoded.values(), shifts, strict=True):
        for place, offset in reversed(swaps):
            array = array.swapaxes(place, place + offset)
        restored.append(array)
    np.testing.assert_array_equal(np.concatenate(restored, axis), whole)


def test_several_names_need_a_rule_for_how_the_tensor_is_cut() -> None:
    header = CompressedDataUnitHeader(
        nnr_multiple_topology_elements_present_flag=True,
        topology_elements_ids_list=TopologyElementsIdsList(("a", "b")),
        input_parameters_present_flag=False,
        tensor_dimensions=(4,),
    )
    data = handmade.bitstream([(header, b"\0")])
    known = {"a": nnc_core.InputParameters(tensor_dimensions=(4,))}
    with pytest.raises(UnsupportedError, match="topology_tensor_dimension_mapping"):
        nnc_core.decode(data, input_parameters=known)


def test_codebook_entries_are_chosen_by_what_dependent_quantization_makes_of_the_levels() -> None:
    book = IntegerCodebook.from_values([-40, -10, 0, 10, 50], 2)
    levels = np.array([[0, 2, 0], [0, 0, -2]], np.int32)  # from state 0: indices 1 and -1
    dependent = {"dq_flag": True, "codebook_size": 5, "codebook_zero_offset": 2}
    header = {"dq_flag": True, "codebook_present_flag": True, "integer_codebook": book}
    levels[1, 2] = 0
    decoded = nnc_core.decode(handmade.one_unit(payload_of(levels, **dependent), (2, 3), **header))
    assert decoded["w"].tolist() == [[0, 50, 0], [0, 0, 0]]


def test_a_level_beyond_the_codebook_is_an_error() -> None:
    book = IntegerCodebook.from_values([-10, 0, 10], 1)
    levels = np.array([[2, 0, 0]], np.int32)
    header = {"dq_flag": True, "codebook_present_flag": True, "integer_codebook": book}
    coded = payload_of(levels, dq_flag=True, codebook_size=3, codebook_zero_offset=1)
    with pytest.raises(PayloadError, match="codebook of 3"):
        nnc_core.decode(handmade.one_unit(coded, (1, 3), **header))
