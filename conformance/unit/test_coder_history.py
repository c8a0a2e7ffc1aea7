"""Updates that build on each other: coded, decoded, kept in a file, and refused where they do not follow."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nnc_core
from nnc_core import MissingLinkError, ModelError, NncError, NnrFile, ReplayError, WrongBaseError
from nnc_core.approximator.approximation import Approximation, quantized, reconstructed
from nnc_core.bitstream import BitstreamWriter
from nnc_core.coder.encoder import CodedUnit, Coding, CodingBlock, Node, encode_block
from nnc_core.coder.history import Histories, History
from nnc_core.coder.payload import Effort
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.tables.blocks import Member
from nnc_core.tables.code_points import ParentNodeIdType
from nnc_core.updates import histories as state

QP = -20
ROWS, WIDTH = 40, 30
EVERYTHING = Coding(temporal_context_modeling_flag=True, effort=Effort(hist_dep_sig_prob_enabled_flag=True))
NAMES = {Member.WEIGHT: "w", Member.BIAS: "b"}


def update(seed: int, dq: bool = True, scan: int = 0, silent: bool = False) -> dict[Member, Approximation]:
    """A sparse update of a weight and its bias."""
    random = np.random.default_rng(seed)
    weight = random.normal(0, 0.1, (ROWS, WIDTH)) * (random.random((ROWS, WIDTH)) < 0.4)
    bias = random.normal(0, 0.1, ROWS) * (0 if silent else 1)
    values = {Member.WEIGHT: weight, Member.BIAS: bias}
    return {m: quantized(v.astype(np.float32), QP, 2, dq, scan if v.ndim > 1 else 0) for m, v in values.items()}


def coded(
    members: dict[Member, Approximation], histories: Histories, coding: Coding = EVERYTHING, **node: Any
) -> list[CodedUnit]:
    place = Node(
        **{"device_id": 3, "parameter_id": 5, "parent_node_id_present_flag": True, "parent_device_id": 3} | node
    )
    return encode_block(CodingBlock(members, NAMES, (ROWS, WIDTH), place, histories), coding)


def bitstream(units: Sequence[CodedUnit]) -> bytes:
    stream = io.BytesIO()
    mps = ModelParameterSet(
        mps_quantization_method_flags=1,
        mps_qp_density=2,
        mps_quantization_parameter=0,
        mps_parent_signalling_enabled_flag=True,
    )
    writer = BitstreamWriter(stream, mps)
    for unit in units:
        writer.data_unit(unit.header, unit.payload.data)
    return stream.getvalue()


def after(units: Sequence[CodedUnit], before: Histories) -> dict[str, History]:
    return dict(before) | {name: left for unit in units for name, left in unit.histories(before).items()}


def assert_same(one: Histories, other: Histories) -> None:
    assert one.keys() == other.keys()
    for name, history in one.items():
        for field in ("device_id", "parameter_id", "depth", "base", "marks", "sha256", "sha512"):
            np.testing.assert_array_equal(getattr(history, field), getattr(other[name], field), err_msg=field)


def chain(length: int = 4, **options: Any) -> list[bytes]:
    histories: Histories = {}
    data = []
    for step in range(length):
        units = coded(update(step), histories, **options)
        data.append(bitstream(units))
        histories = after(units, histories)
    return data


updates = st.lists(st.tuples(st.integers(0, 1 << 16), st.booleans()), min_size=1, max_size=5)


@settings(deadline=None, max_examples=60)
@given(updates, st.booleans(), st.integers(0, 2), st.booleans(), st.sampled_from(list(ParentNodeIdType)))
def test_a_chain_of_updates_decodes_to_what_was_coded(
    steps: list[tuple[int, bool]], dq: bool, scan: int, blocks: bool, parent: ParentNodeIdType
) -> None:
    sent: Histories = {}
    received: Histories = {}
    for number, (seed, silent) in enumerate(steps):
        members = update(seed, dq, scan, silent)
        kind = parent if number else ParentNodeIdType.ICNN_NDU_ID  # there is no payload before the first
        units = coded(members, sent, replace(EVERYTHING, blocks=blocks), parent_node_id_type=kind)
        file = NnrFile(bitstream(units), history=received)
        expected = {NAMES[m]: reconstructed(tensor, 2).values for m, tensor in members.items()}
        for name, array in file.items():
            np.testing.assert_array_equal(array, expected[name])
        assert all(not expected[name].any() for name in expected.keys() - set(file))
        sent, received = after(units, sent), file.history_after()
        assert_same(sent, received)
        kept = io.BytesIO()
        state.write(kept, received)
        received = state.read(kept)
        assert_same(sent, received)


def test_contexts_of_the_history_are_used_where_they_help() -> None:
    same = [coded(update(1), {}), coded(update(1), after(coded(update(1), {}), {}))]
    assert len(bitstream(same[1])) < len(bitstream(same[0]))
    assert same[1][0].header.temporal_context_modeling_flag


def test_what_changes_nothing_has_no_unit_and_keeps_its_history() -> None:
    first = coded(update(1), {}, replace(EVERYTHING, blocks=False))
    histories = after(first, {})
    second = coded(update(2, silent=True), histories, replace(EVERYTHING, blocks=False))
    assert [list(unit.levels or ()) for unit in second] == [["w"]]
    left = after(second, histories)
    assert (left["w"].depth, left["b"].depth) == (2, 1)
    third = coded(update(3), left)  # depths differ, so that the members cannot share a unit
    assert [unit.header.put_node_depth for unit in third] == [2, 3]


def decode(data: bytes, histories: Histories | None) -> dict[str, History]:
    return dict(NnrFile(data, history=histories).history_after())


def test_a_missing_update_is_named() -> None:
    data = chain()
    state_ = decode(data[0], {})
    with pytest.raises(MissingLinkError, match="builds on update 2 of the tensor, at hand is update 1") as caught:
        decode(data[2], state_)
    assert (caught.value.tensor, caught.value.have, caught.value.need) == ("b", 1, 2)


def test_a_repeated_update_is_named() -> None:
    data = chain()
    state_ = decode(data[1], decode(data[0], {}))
    for old in data[:2]:
        with pytest.raises(ReplayError, match="comes after update 2"):
            decode(old, state_)


@pytest.mark.parametrize("element", ["device_id", "parameter_id"])
def test_an_update_of_somebody_else_is_named(element: str) -> None:
    data = chain(2)
    with pytest.raises(WrongBaseError, match=element):
        decode(chain(2, **{element: 9})[1], decode(data[0], {}))


@pytest.mark.parametrize("kind", [ParentNodeIdType.ICNN_NDU_PL_SHA256, ParentNodeIdType.ICNN_NDU_PL_SHA512])
def test_a_parent_with_another_payload_is_named(kind: ParentNodeIdType) -> None:
    histories = after(coded(update(1), {}), {})
    second = bitstream(coded(update(2), histories, parent_node_id_type=kind))
    assert decode(second, histories)["w"].depth == 2
    with pytest.raises(WrongBaseError, match="another payload"):
        decode(second, after(coded(update(3), {}), {}))
    with pytest.raises(MissingLinkError):
        decode(second, {})


def test_an_update_that_needs_a_history_is_refused_without_one() -> None:
    first = coded(update(1), {})
    nnc_core.decode(bitstream(first))
    with pytest.raises(MissingLinkError, match="history of the updates before"):
        nnc_core.decode(bitstream(coded(update(1), after(first, {}))))


def test_another_shape_than_before_is_refused() -> None:
    histories = after(coded(update(1), {}), {})
    data = bitstream(coded(update(1), histories))
    other = {name: replace(h, base=np.zeros((3, 3), np.int32)) for name, h in histories.items()}
    with pytest.raises(NncError, match="after an update with 3 x 3"):
        decode(data, other)


def test_a_file_that_was_opened_without_a_history_leaves_none() -> None:
    with pytest.raises(ValueError, match="without a history"):
        NnrFile(chain(1)[0]).history_after()


# --- state files -----------------------------------------------------------------------------------------------------


def test_a_state_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    histories = after(coded(update(1), {}), {})
    state.save(path, histories)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(state, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        state.save(path, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    assert_same(state.load(path), histories)


def test_the_bytes_of_a_state_file_depend_on_the_state_alone(tmp_path: Path) -> None:
    histories = after(coded(update(1), {}), {})
    for name in ("one", "two"):
        state.save(tmp_path / name, histories)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_damaged_state_files_are_refused_by_an_error_of_ours() -> None:
    kept = io.BytesIO()
    state.write(kept, after(coded(update(1), {}), {}))
    data = kept.getvalue()
    random = np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(data[: random.integers(len(data))] if random.random() < 0.3 else data)
        for place in random.integers(0, max(1, len(damaged)), 3):
            damaged[place : place + 1] = random.bytes(1)
        try:
            state.read(io.BytesIO(damaged))
        except NncError:
            continue


@pytest.mark.parametrize(
    "head", ["{}", "[]", '{"nnc_history": 2, "tensors": {}}', '{"nnc_history": 1, "tensors": {"w": {}}}', "[" * 100000]
)
def test_other_heads_are_refused(head: str) -> None:
    kept = io.BytesIO()
    state.write(kept, {})
    other = io.BytesIO()
    with zipfile.ZipFile(kept) as source, zipfile.ZipFile(other, "w") as target:
        for name in source.namelist():
            target.writestr(name, head if name == "state.json" else source.read(name))
    with pytest.raises(ModelError):
        state.read(other)
