"""Whole models: tensors that share a unit, and codebooks that the encoder finds."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import nnc_core
from nnc_core import CodingParameters, ModelInfo, ModelPlan, NnrFile, SourceModel
from nnc_core.tables.code_points import PayloadType

Tensors = dict[str, NDArray[Any]]
NORM = ("bn.beta", "bn.gamma", "bn.mean", "bn.var")


def network(seed: int, dtype: str = "float32", rows: int = 12) -> tuple[Tensors, ModelInfo]:
    """Two layers with batch-norm, and a tensor of its own in between."""
    random = np.random.default_rng(seed)
    tensors: Tensors = {}
    info = ModelInfo(parameter_type={}, block_identifier={})
    for layer in ("one", "two"):
        kinds = {"weight": "fc.weight", "bias": "fc.bias", **dict(zip(("b", "g", "m", "v"), NORM, strict=True))}
        for name, kind in kinds.items():
            shape = (rows, 20) if name == "weight" else (rows,)
            tensors[f"{layer}.{name}"] = np.abs(random.normal(1, 0.2, shape)).astype(dtype)
            info["parameter_type"][f"{layer}.{name}"] = kind  # type: ignore[assignment]
            info["block_identifier"][f"{layer}.{name}"] = layer
        tensors[f"{layer}.steps"] = np.arange(5)
    return tensors, info


def payload_types(data: bytes) -> list[PayloadType]:
    return [unit.header.nnr_compressed_data_unit_payload_type for unit in NnrFile(data).bitstream.data_units]


def encode(tensors: Tensors, info: ModelInfo, **parameters: Any) -> bytes:
    return nnc_core.encode(tensors, model_info=info, parameters=CodingParameters(**parameters))


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 1 << 32), st.sampled_from(["float32", "float16", "float64"]), st.booleans(), st.integers(0, 1))
def test_blocks_change_neither_values_nor_types_and_take_fewer_bytes(
    seed: int, dtype: str, dq: bool, profile: int
) -> None:
    tensors, info = network(seed, dtype)
    options = {"dq_flag": dq, "general_profile_idc": profile, "qp": -38, "nonweight_qp": -60}
    apart = encode(tensors, info, **options)
    together = encode(tensors, info, blocks_flag=True, **options)
    assert payload_types(together).count(PayloadType.NNR_PT_BLOCK) == 2
    assert len(together) < len(apart)
    expected, decoded = nnc_core.decode(apart), nnc_core.decode(together)
    assert decoded.keys() == tensors.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(decoded[name], array, strict=True)


def test_what_does_not_go_with_a_weight_stays_apart() -> None:
    tensors, info = network(1)
    tensors["one.bias"] = tensors["one.bias"][:5]
    tensors["two.v"] = tensors["two.v"].astype(np.float64)
    data = encode(tensors, info, blocks_flag=True)
    assert PayloadType.NNR_PT_BLOCK not in payload_types(data)
    assert {name: array.shape for name, array in nnc_core.decode(data).items()} == {
        name: array.shape for name, array in tensors.items()
    }


def test_values_without_a_level_are_sent_beside_their_tensor_not_in_a_block() -> None:
    tensors, info = network(1)
    tensors["one.bias"][3] = np.inf
    data = encode(tensors, info, blocks_flag=True)
    assert payload_types(data).count(PayloadType.NNR_PT_BLOCK) == 1
    assert nnc_core.decode(data)["one.bias"][3] == np.inf


def test_a_plan_with_blocks_is_kept_as_text() -> None:
    tensors, info = network(1)
    model = SourceModel(tensors, model_info=info)
    plan = nnc_core.plan(model, CodingParameters(blocks_flag=True))
    assert [block.identifier for block in plan.blocks] == ["one", "two"]
    again = ModelPlan.from_json(plan.to_json())
    assert again == plan
    first, second = io.BytesIO(), io.BytesIO()
    nnc_core.write(first, model, plan=plan)
    nnc_core.write(second, model, plan=again, threads=3)
    assert first.getvalue() == second.getvalue()


def test_progress_counts_tensors_also_in_blocks() -> None:
    tensors, info = network(1)
    seen: list[int] = []
    model = SourceModel(tensors, model_info=info)
    nnc_core.write(
        io.BytesIO(), model, parameters=CodingParameters(blocks_flag=True), progress=lambda done, _: seen.append(done)
    )
    assert seen == [6, 7, 13, 14]


def few_levels(shape: tuple[int, ...], noise: float) -> NDArray[np.float32]:
    """Values around a few that are far apart, in no regular distance."""
    random = np.random.default_rng(3)
    levels = random.choice([-0.9, -0.31, 0.0, 0.17, 0.62], shape, p=[0.1, 0.2, 0.4, 0.2, 0.1])
    return (levels + random.normal(0, noise, shape)).astype(np.float32)


def test_values_that_no_codebook_has_are_sent_without_one() -> None:
    weight = few_levels((20, 30), 0.2)
    weight[3, 4] = np.inf
    parameters = CodingParameters(qp=-26, codebook_flag=True)
    decoded = nnc_core.decode(nnc_core.encode({"w": weight}, parameters=parameters))["w"]
    assert decoded[3, 4] == np.inf
    np.testing.assert_allclose(decoded, weight, atol=0.02)


@pytest.mark.parametrize("dq", [True, False])
def test_a_codebook_is_used_where_it_is_smaller(dq: bool) -> None:
    tensors = {"few": few_levels((60, 80), 0.0002), "many": few_levels((60, 80), 0.3)}
    parameters = CodingParameters(qp=-26, dq_flag=dq, codebook_flag=True)
    with_books = nnc_core.encode(tensors, parameters=parameters)
    without = nnc_core.encode(tensors, parameters=CodingParameters(qp=-26, dq_flag=dq))
    books = [unit.header.codebook_present_flag for unit in NnrFile(with_books).bitstream.data_units]
    assert books[0]
    assert len(with_books) < len(without)
    error = np.square(nnc_core.decode(with_books)["few"] - tensors["few"]).mean()
    assert error <= 1.2 * np.square(nnc_core.decode(without)["few"] - tensors["few"]).mean()
