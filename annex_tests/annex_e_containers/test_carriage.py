"""One bitstream as many, and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import nnc_core
from conformance.support import every_unit
from conformance.support.shared import SHARED
from nnc_core.bitstream import Bitstream, BitstreamWriter
from nnc_core.bitstream.parts import MODEL, begins_bitstream, bitstreams, join, split
from nnc_core.bitstream.validate import violations
from nnc_core.errors import BitstreamError, LimitError, ModelError, NncError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology
from nnc_core.syntax import ModelParameterSet, StartUnitHeader, unit
from nnc_core.syntax.context import SyntaxContext
from nnc_core.syntax.model_parameter_set import nnr_model_parameter_set_payload
from nnc_core.syntax.writer import Writer
from nnc_core.tables.code_points import NnrUnitType, TopologyStorageFormat

W = np.arange(12, dtype=np.float32).reshape(3, 4)
TOPOLOGY = Topology(TopologyStorageFormat.NNR_TPL_ONNX, b"graph")


def one(name: str = "w", **parameters: int) -> bytes:
    return nnc_core.encode({name: W}, parameters=nnc_core.CodingParameters(**parameters))


def test_every_part_decodes_alone_to_the_same_values(coded: bytes) -> None:
    whole = nnc_core.decode(coded)
    parts = split(coded)
    assert [MODEL, *whole] == list(parts)
    for name, array in whole.items():
        (decoded,) = nnc_core.decode(parts[name]).items()
        assert decoded[0] == name
        assert decoded[1].dtype == array.dtype
        np.testing.assert_array_equal(decoded[1], array)


def test_the_model_part_has_the_topology_and_no_tensors(coded: bytes) -> None:
    model = Bitstream(split(coded)[MODEL])
    assert model.topology == Bitstream(coded).topology
    assert not model.data_units


def test_a_tensor_part_does_not_announce_a_topology(coded: bytes) -> None:
    part = Bitstream(split(coded)["conv"])
    assert part.mps is not None
    assert part.mps.topology_carriage_flag is False
    assert part.topology is None


def test_joined_parts_are_the_bitstream_that_was_split(coded: bytes) -> None:
    assert join(dict(split(coded))) == coded


@pytest.mark.parametrize("profile", [0, 1])
def test_without_topology_there_are_only_tensors(profile: int) -> None:
    data = nnc_core.encode({"a": W, "b": -W}, parameters=nnc_core.CodingParameters(general_profile_idc=profile))
    assert list(split(data)) == ["a", "b"]
    assert join(split(data)) == data


def test_a_topology_alone_is_a_part() -> None:
    data = nnc_core.encode({}, topology=TOPOLOGY)
    assert dict(split(data)) == {MODEL: data}
    assert join(split(data)) == data


def test_a_bitstream_of_nothing_is_a_part() -> None:
    data = nnc_core.encode({})
    assert dict(split(data)) == {MODEL: data}


def test_the_model_part_may_stand_anywhere(coded: bytes) -> None:
    parts = dict(split(coded))
    parts[MODEL] = parts.pop(MODEL)
    assert join(parts) == coded


def test_a_single_part_is_taken_as_it_is(coded: bytes) -> None:
    assert join({"whatever": coded}) == coded


def test_some_parts_make_a_smaller_bitstream(coded: bytes) -> None:
    parts = split(coded)
    assert list(nnc_core.decode(join({name: parts[name] for name in ("b", "conv")}))) == ["b", "conv"]


@pytest.mark.parametrize("change", [{"general_profile_idc": 0}, {"qp_density": 3}])
def test_parts_that_are_coded_differently_are_not_joined(change: dict[str, int]) -> None:
    with pytest.raises(ModelError, match=r"'v'.*differs"):
        join({"w": one("w"), "v": one("v", **change)})


def test_parts_with_another_base_quantization_parameter_are_not_joined() -> None:
    writer = Writer()
    mps = ModelParameterSet(mps_quantization_method_flags=1, mps_qp_density=2, mps_quantization_parameter=1)
    nnr_model_parameter_set_payload(writer, mps, SyntaxContext())
    start, _, tensor = Bitstream(other := one("v")).units
    changed = other[: start.size] + unit(NnrUnitType.NNR_MPS, writer.data()) + other[tensor.offset :]
    with pytest.raises(ModelError, match="model parameter set differs"):
        join({"w": one("w"), "v": changed})


def test_a_tensor_in_two_parts_is_refused() -> None:
    with pytest.raises(ModelError, match=r"'w'.*another part"):
        join({"w": one("w"), "v": one("w")})


def test_two_topologies_are_refused() -> None:
    data = nnc_core.encode({"v": W}, topology=TOPOLOGY)
    with pytest.raises(ModelError, match="only the part"):
        join({"w": one("w"), "v": data})


def test_a_tensor_called_like_the_model_is_refused() -> None:
    with pytest.raises(ModelError, match="reserved"):
        split(one(MODEL))


@pytest.mark.parametrize("fill", [every_unit.layers, every_unit.aggregate, every_unit.nested])
def test_tensors_keep_their_layer_parameter_set_and_come_out_of_aggregates(
    fill: Callable[[BitstreamWriter], None],
) -> None:
    data = every_unit.made(fill)
    whole, parts = nnc_core.decode(data), split(data)
    assert set(parts) - {MODEL} == set(whole)
    again = join(parts)
    for name in whole:
        np.testing.assert_array_equal(nnc_core.decode(parts[name])[name], whole[name])
        np.testing.assert_array_equal(nnc_core.decode(again)[name], whole[name])
    assert violations(again) == []


def test_an_aggregate_in_a_part_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="aggregate unit"):
        join({"v": every_unit.made(every_unit.nested), "x": one("x")})


def test_joining_counts_units() -> None:
    with pytest.raises(LimitError):
        join({"w": one("w"), "v": one("v")}, Limits(units=3))


def test_concatenated_bitstreams_are_found_again(coded: bytes) -> None:
    pieces = [coded, one("w"), one("w"), coded]
    assert [bytes(found) for found in bitstreams(b"".join(pieces))] == pieces


@pytest.mark.parametrize("data", [b"", b"\0", one()[4:], one() + b"\0", one()[:-1], b"\0\4\2\1" + b"\0\0\0"])
def test_what_is_not_a_sequence_of_bitstreams_is_refused(data: bytes) -> None:
    with pytest.raises(BitstreamError):
        list(bitstreams(data))


def test_a_start_unit_is_recognized() -> None:
    assert begins_bitstream(one()[:8])
    assert begins_bitstream(unit(NnrUnitType.NNR_STR, bytes([StartUnitHeader().general_profile_idc])))
    assert not begins_bitstream(b"")
    assert not begins_bitstream(b"PK\3\4")
    assert not begins_bitstream(b"\x80\0\0\4\2\1")
    assert not begins_bitstream(b"\0\4\2\2")


CORPUS = sorted(SHARED.glob("corpus/*/*.nnr"))


@pytest.mark.skipif(not CORPUS, reason="the corpus is not there; NNC_SHARED says where it is")
def test_bitstreams_of_other_encoders_survive_splitting() -> None:
    """Blocks, factors, reference lists, fragments; what needs dimensions from outside cannot be taken apart."""
    incomplete = []
    for path in CORPUS:
        data = path.read_bytes()
        try:
            parts = split(data)
        except NncError as error:
            incomplete.append(str(error))
            continue
        assert join(parts) == data, path
    assert len(incomplete) < len(CORPUS) // 10
    assert all("tensor_dimensions" in message for message in incomplete)


@pytest.mark.skipif(not CORPUS, reason="the corpus is not there; NNC_SHARED says where it is")
def test_parts_of_other_encoders_index_alone() -> None:
    for path in CORPUS[::5]:
        try:
            parts = split(path.read_bytes())
        except NncError:
            continue
        for key in parts.keys() - {MODEL}:
            names = [name for record in Bitstream(parts[key]).units for name in record.names]
            assert names[0] == key
