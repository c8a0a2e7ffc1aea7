"""What happens to tensors between a model and its coder: each tool alone, then the functions of Part 18."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import nnc_core.approximator as part18
from conformance.support.corpus import ModelStep, for_each, model_names, model_steps
from nnc_core import ModelError
from nnc_core.approximator import ApproxData, ApproxInfo, batch_norm, decomposition, local_scaling, sbt
from nnc_core.approximator.approximation import Approximation, quantized, reconstructed, with_codebook
from nnc_core.approximator.codebook import codebook_of
from nnc_core.approximator.data import joined, split
from nnc_core.approximator.step import bit_depth_qp, bit_depth_range, qp_against_overflow, real_qp, step_size
from nnc_core.nnr_model import ModelInfo
from nnc_core.syntax.codebook import IntegerCodebook
from nnc_core.tables.blocks import BATCH_NORM, Member

Floats = NDArray[np.float32]
seeds = st.integers(0, 1 << 32)


def normal(shape: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> Floats:
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


def block_of(seed: int, *members: Member, rows: int = 6, width: int = 5) -> dict[Member, Approximation]:
    """Values of a block; variances are positive."""
    made = {Member.WEIGHT: normal((rows, width), seed)}
    made |= {member: normal((rows,), seed + n + 1) for n, member in enumerate(members)}
    if Member.VAR in made:
        made[Member.VAR] = np.abs(made[Member.VAR]) + np.float32(0.1)
    return {member: Approximation(values) for member, values in made.items()}


# --- steps -----------------------------------------------------------------------------------------------------------


@given(st.integers(-120, 100), st.integers(0, 4))
def test_the_step_of_a_quantization_parameter_leads_back_to_it(qp: int, density: int) -> None:
    assert real_qp(step_size(qp, density), density) == pytest.approx(qp, abs=1e-9)


@for_each("case", [case for case in model_names() if case.startswith("qp_raised")])
def test_a_step_that_is_too_small_for_the_values_is_raised_as_in_the_corpus(case: str) -> None:
    for step, tensor in tensors_of(case):
        values = step.expected[f"{tensor['name']}.orig"]
        if step.config["encoder"]["quantizer"]["qp"] != tensor["qp"]:
            assert qp_against_overflow(values, step.config["encoder"]["qp_density"]) == tensor["qp"]


def tensors_of(case: str) -> list[tuple[ModelStep, dict[str, Any]]]:
    return [
        (step, tensor)
        for step in model_steps(case)
        for tensor in step.config["tensors"]
        if tensor["method"] == "uniform" and f"{tensor['name']}.orig" in step.expected_names
    ]


BITS = {"bitdepth4_dq0": 4, "bitdepth8_dq0": 8, "nn_bitdepth4": 4}


@for_each("case", [case for case in model_names() if case in BITS])
def test_levels_of_a_bit_depth_are_those_of_the_corpus(case: str) -> None:
    for step, tensor in tensors_of(case):
        bits = BITS[case]
        density = step.config["encoder"]["qp_density"]
        values = step.expected[f"{tensor['name']}.orig"]
        bits = bits if bits > 7 or values.ndim > 1 else 8
        qp = bit_depth_qp(values, bits, density)
        assert qp == tensor["qp"]
        levels = np.clip(quantized(values, qp, density).values, *bit_depth_range(values, bits))
        np.testing.assert_array_equal(levels, step.expected[f"{tensor['name']}.int"])


# --- batch-norm, scaling, factors ------------------------------------------------------------------------------------


def output(block: dict[Member, Approximation], inputs: Floats, epsilon: float = batch_norm.EPSILON) -> NDArray[Any]:
    """What a layer with these members makes of ``inputs``."""
    values = {member: tensor.values.astype(np.float64) for member, tensor in block.items()}
    out = values[Member.WEIGHT] @ inputs
    out = out * values.get(Member.SCALING, np.ones(len(out)))[:, None]
    out = out + values.get(Member.BIAS, np.zeros(len(out)))[:, None]
    if Member.GAMMA in values:
        beta, gamma, mean, var = (values[member][:, None] for member in BATCH_NORM)
        out = gamma * (out - mean) / np.sqrt(var + epsilon) + beta
    return out


@given(seeds, st.booleans())
def test_folding_a_batch_norm_keeps_what_a_layer_does(seed: int, has_bias: bool) -> None:
    block = block_of(seed, *BATCH_NORM, *([Member.BIAS] if has_bias else []))
    inputs = normal((5, 7), seed + 99)
    folded = batch_norm.fold_bn(block)
    assert set(folded) == {Member.WEIGHT, Member.SCALING, Member.BIAS}
    np.testing.assert_allclose(output(folded, inputs), output(block, inputs), rtol=1e-4, atol=1e-4)
    unfolded = batch_norm.unfold_bn(folded, own_bias=has_bias)
    assert (Member.BIAS in unfolded) == has_bias
    np.testing.assert_allclose(output(unfolded, inputs), output(block, inputs), rtol=1e-3, atol=1e-3)
    applied = local_scaling.apply_scaling(unfolded)
    assert Member.SCALING not in applied
    np.testing.assert_allclose(output(applied, inputs), output(block, inputs), rtol=1e-3, atol=1e-3)


@for_each("case", [case for case in model_names() if case.startswith("bn_fold")])
def test_folding_and_unfolding_give_the_values_of_the_corpus(case: str) -> None:
    for step in model_steps(case):
        epsilon = batch_norm.EPSILON_TENSORFLOW if "tef" in case else batch_norm.EPSILON
        for block in step.config["blocks"]:
            check_folding(step, block, epsilon)


def check_folding(step: ModelStep, block: dict[str, Any], epsilon: float) -> None:
    weight, expected = block["weight"], step.expected
    beta = next(name for name in expected if name.endswith("bn.bias.orig")).removesuffix("bias.orig")
    norm = [f"{beta}{kind}.orig" for kind in ("bias", "weight", "running_mean", "running_var")]
    bias = next(name for name in block["coding_order"] if name.endswith(".bias"))
    own = not bias.startswith(weight)
    scaling = f"{weight}_scaling"
    given = {Member.WEIGHT: f"{weight}.orig"}
    given |= dict(zip(BATCH_NORM, norm, strict=True)) | ({Member.BIAS: f"{bias}.orig"} if own else {})
    folded = batch_norm.fold_bn({m: Approximation(expected[n]) for m, n in given.items() if n in expected}, epsilon)
    if f"{scaling}.orig" not in expected:  # a scaling that was there is not known from before folding
        np.testing.assert_allclose(folded[Member.SCALING].values, expected[f"{scaling}.folded"], rtol=1e-6)
    np.testing.assert_allclose(folded[Member.BIAS].values, expected[f"{bias}.folded"], rtol=1e-5, atol=1e-6)
    decoded = {Member.WEIGHT: f"{weight}.rec", Member.SCALING: f"{scaling}.rec", Member.BIAS: f"{bias}.rec"}
    unfolded = batch_norm.unfold_bn({m: Approximation(expected[n]) for m, n in decoded.items()}, own)
    unfolded = local_scaling.apply_scaling(unfolded)
    names = {Member.WEIGHT: weight, **dict(zip(BATCH_NORM, (n.removesuffix(".orig") for n in norm), strict=True))}
    for member, name in names.items():
        np.testing.assert_array_equal(unfolded[member].values, expected[f"{name}.unfolded"])


@given(seeds)
def test_scaling_a_factor_scales_the_weight(seed: int) -> None:
    g, h, s = normal((6, 2), seed), normal((2, 5), seed + 1), normal((6,), seed + 2)
    block = {Member.G: Approximation(g), Member.H: Approximation(h)}
    scaled = local_scaling.apply_scaling(local_scaling.with_scaling(block, s))
    whole = decomposition.recompose(scaled, (6, 5))[Member.WEIGHT].values
    np.testing.assert_allclose(whole, s[:, None] * (g.astype(np.float64) @ h), rtol=1e-4, atol=1e-5)


def test_a_scaling_needs_one_value_for_each_row() -> None:
    with pytest.raises(ValueError, match="each row"):
        local_scaling.with_scaling(block_of(1), normal((5,)))


@given(seeds, st.integers(1, 4))
def test_factors_of_a_low_rank_weight_are_found_and_multiply_to_it(seed: int, rank: int) -> None:
    weight = (normal((12, rank), seed) @ normal((rank, 30), seed + 1)).reshape(12, 5, 6)
    found = decomposition.decompose(weight, error=1e-9)
    assert found is not None
    g, h = found
    assert (g.shape, h.shape) == ((12, rank), (rank, 30))
    block = {Member.G: Approximation(g), Member.H: Approximation(h)}
    whole = decomposition.recompose(block, weight.shape)[Member.WEIGHT].values
    np.testing.assert_allclose(whole, weight, rtol=1e-3, atol=1e-4)


@settings(deadline=None)
@given(seeds, st.floats(0.05, 0.9), st.floats(1e-4, 0.9))
def test_the_rank_keeps_to_ratio_and_error(seed: int, ratio: float, error: float) -> None:
    weight = normal((20, 30), seed)
    small = decomposition.decompose(weight, ratio=ratio)
    assert small is None or small[0].size + small[1].size <= ratio * weight.size
    close = decomposition.decompose(weight, error=error)
    if close is not None:
        left = np.square(weight - close[0].astype(np.float64) @ close[1]).sum()
        assert left <= (error + 1e-6) * np.square(weight.astype(np.float64)).sum()


def test_a_weight_of_full_rank_has_no_smaller_factors() -> None:
    assert decomposition.decompose(normal((8, 8)), error=1e-9) is None
    assert decomposition.decompose(normal((8, 8)), rank=4) is None
    assert decomposition.decompose(normal((8, 8)), rank=3) is not None


# --- codebooks and stochastic quantization ---------------------------------------------------------------------------


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60))
def test_a_codebook_has_all_levels_once_and_leads_back_to_them(levels: list[int]) -> None:
    matrix = np.array([levels], np.int32)
    book = codebook_of(matrix)
    assert book.values.tolist() == sorted(set(levels))
    assert book.egk == IntegerCodebook.from_values(book.values, book.zero_offset).codebook_egk
    tensor = with_codebook(Approximation(matrix, qp=0), book)
    np.testing.assert_array_equal(reconstructed(tensor, 2).values, matrix)


def test_the_zero_of_a_codebook_is_a_frequent_level() -> None:
    levels = np.where(normal((50, 50)) > -1.5, 7, np.arange(2500).reshape(50, 50) % 5).astype(np.int32)
    book = codebook_of(levels)
    assert book.values[book.zero_offset] == 7


@pytest.mark.parametrize("approach", ["binary", "ternary", "combined"])
def test_stochastic_quantization_leaves_two_or_three_values(approach: Any) -> None:
    signs = set()
    for number in range(20):
        few = sbt.binary_or_ternary(f"t{number}", normal((30, 30), number), {"sbt_quantization_approach": approach})
        found = np.unique(few)
        assert len(found) <= (2 if approach == "binary" else 3)
        assert len(np.unique(np.abs(found[found != 0]))) == 1
        signs.add(len(found))
    assert signs == {"binary": {2}, "ternary": {3}, "combined": {2, 3}}[approach]


def test_later_rounds_are_ternary_more_often() -> None:
    def ternaries(epoch: int) -> int:
        arguments: Any = {"sbt_subquantization_approach": "random_round", "epoch": epoch, "n_epoch": 9}
        tensors = (sbt.binary_or_ternary(f"t{n}", normal((9, 9), n), arguments) for n in range(60))
        return sum(len(np.unique(few)) == 3 for few in tensors)

    assert ternaries(0) < ternaries(5) < ternaries(9) == 60


# --- Part 18 ---------------------------------------------------------------------------------------------------------

INFO = ModelInfo(
    parameter_type={
        "c.w": "conv.weight",
        "c.b": "conv.bias",
        "bn.b": "bn.beta",
        "bn.g": "bn.gamma",
        "bn.m": "bn.mean",
        "bn.v": "bn.var",
        "f.w": "fc.weight",
        "n": "unspecified",
    },
    block_identifier={"c.w": "c", "bn.b": "c", "bn.g": "c", "bn.m": "c", "bn.v": "c"},
    parameter_index={"c.w": 0, "bn.b": 1, "bn.g": 2, "bn.m": 3, "bn.v": 4, "c.b": 5, "f.w": 6, "n": 7},
)


def data(**more: Any) -> ApproxData:
    parameters = {
        "c.w": normal((6, 4, 3, 3), 1, 0.1),
        "bn.b": normal((6,), 2),
        "bn.g": normal((6,), 3),
        "bn.m": normal((6,), 4),
        "bn.v": np.abs(normal((6,), 5)) + np.float32(0.1),
        "c.b": normal((6,), 6),
        "f.w": normal((10, 12), 7),
        "n": np.arange(5, dtype=np.int32),
    }
    made = ApproxData(parameters=parameters, qp_density=2)
    made.update(**more)  # type: ignore[call-arg, typeddict-item]
    return made


def info(**more: Any) -> ApproxInfo:
    qp = dict.fromkeys(data()["parameters"], -30)
    made = ApproxInfo(approx_method="uniform", qp=qp, dq_flag=dict.fromkeys(qp, 1))
    made.update(**more)  # type: ignore[call-arg, typeddict-item]
    return made


def test_approx_quantizes_floats_and_leaves_integers_and_its_input_alone() -> None:
    before = data()
    done = part18.approx(info(), INFO, before)
    assert done["approx_method"] == dict.fromkeys(["c.w", "bn.b", "bn.g", "bn.m", "bn.v", "c.b", "f.w"], "uniform")
    assert {array.dtype.name for array in done["parameters"].values()} == {"int32"}
    assert {array.dtype.name for array in before["parameters"].values()} == {"float32", "int32"}
    assert done["compressed_parameter_types"] == {"c": 4}
    rec = part18.rec(done, INFO)
    assert rec["approx_method"] == {}
    assert rec["qp"] == {}
    for name, array in before["parameters"].items():
        np.testing.assert_allclose(rec["parameters"][name], array, atol=2 * step_size(-30, 2))


def test_only_the_types_that_are_named_are_quantized() -> None:
    done = part18.approx(info(to_approximate=["fc.weight", "bn.var"]), INFO, data())
    assert set(done["approx_method"]) == {"f.w", "bn.v"}


def test_a_tensor_without_a_qp_is_named() -> None:
    with pytest.raises(ModelError, match=r"'c\.b': has no qp"):
        part18.approx(info(qp={name: 1 for name in data()["parameters"] if name != "c.b"}), INFO, data())


@pytest.mark.parametrize("dq", [0, 1])
def test_with_a_rate_term_fewer_levels_are_other_than_zero(dq: int) -> None:
    plain, cheap = (
        part18.approx(info(lambda_scale=scale, dq_flag={"f.w": dq}, qp=dict.fromkeys(info()["qp"], 0)), INFO, data())
        for scale in (0.0, 2.0)
    )
    assert np.count_nonzero(cheap["parameters"]["f.w"]) < np.count_nonzero(plain["parameters"]["f.w"])


def test_folding_hands_its_settings_down() -> None:
    settings_, folded = info(), data()
    settings_["qp"]["bn.g"], settings_["qp"]["bn.b"] = -20, -21
    assert part18.fold_bn(INFO, folded, settings_) is folded
    assert {"c.w", "c.w_scaling", "c.w.bias"} < set(folded["parameters"])
    assert not any(name.startswith("bn") for name in folded["parameters"])
    assert folded["compressed_parameter_types"] == {"c": 2 + 8}
    assert (settings_["qp"]["c.w_scaling"], settings_["qp"]["c.w.bias"]) == (-20, -21)
    quantized_ = part18.approx(settings_, INFO, folded)
    assert quantized_["qp"]["c.w_scaling"] == -20


def test_unfolding_and_scaling_give_the_tensors_of_the_model_back() -> None:
    changed = data()
    part18.fold_bn(INFO, changed)
    part18.unfold_bn(INFO, changed)
    assert set(changed["parameters"]) == {*data()["parameters"], "c.w_scaling"}
    part18.apply_lsa(INFO, changed)
    assert set(changed["parameters"]) == set(data()["parameters"])
    factor = data()["parameters"]["bn.g"] / np.sqrt(data()["parameters"]["bn.v"] + 1e-5)
    expected = data()["parameters"]["c.w"] * factor[:, None, None, None]
    np.testing.assert_allclose(changed["parameters"]["c.w"], expected, rtol=1e-5)


def test_local_scaling_is_set_and_applied() -> None:
    scaling = normal((10,), 50)
    changed = part18.set_lsa(INFO, data(), {"f.w": scaling})
    assert changed["compressed_parameter_types"]["f.w"] == 2
    part18.apply_lsa(INFO, changed)
    np.testing.assert_allclose(changed["parameters"]["f.w"], data()["parameters"]["f.w"] * scaling[:, None], rtol=1e-6)
    with pytest.raises(ModelError, match="each row"):
        part18.set_lsa(INFO, data(), {"f.w": normal((3,))})


def test_weights_are_decomposed_and_recomposed() -> None:
    known = ModelInfo(**INFO)
    changed = part18.decompose(known, data(), rank=2)
    assert {"c.w_G", "c.w_H", "f.w_G", "f.w_H"} < set(changed["parameters"])
    assert changed["compressed_parameter_types"] == {"c": 4 + 1, "f.w": 1}
    assert changed["decomposition_rank"] == {"c": 2, "f.w": 2}
    assert changed["g_number_of_rows"] == {"c": 6, "f.w": 10}
    part18.recompose(known, changed)
    assert {name: array.shape for name, array in changed["parameters"].items()} == {
        name: array.shape for name, array in data()["parameters"].items()
    }


def test_codebooks_keep_to_their_rules() -> None:
    few = data()
    few["parameters"]["f.w"] = np.round(normal((100, 120), 7)).astype(np.float32)
    done = part18.approx(info(approx_method="codebook", qMse=1e-3, cb_size_ratio=50.0), INFO, few)
    assert done["approx_method"]["f.w"] == "codebook"
    assert "c.w" not in done["approx_method"]  # 216 elements, of which too many differ
    rec = part18.rec(done, INFO)["parameters"]["f.w"]
    assert np.square(rec - few["parameters"]["f.w"]).mean() <= 1e-3


@pytest.mark.parametrize("bits", [4, 8, 12])
def test_levels_fit_the_bit_depth(bits: int) -> None:
    done = part18.approx(info(integer_aligned_bitdepth=bits), INFO, data())
    for name in done["approx_method"]:
        levels = done["parameters"][name]
        lowest, highest = bit_depth_range(data()["parameters"][name], bits)
        assert levels.min() >= lowest
        assert levels.max() <= highest
    assert set(done["dq_flag"].values()) == {0}


def test_stochastic_levels_are_single_steps_where_their_mean_is_quantized() -> None:
    arguments = {"sbt_quantization_approach": "ternary", "sbt_mean_quant": True}
    done = part18.approx(info(approx_method="uniform_sbt", sbt_args=arguments), INFO, data())
    assert set(np.unique(done["parameters"]["f.w"])) == {-1, 0, 1}
    assert len(np.unique(done["parameters"]["bn.g"])) > 3


def test_dictionaries_are_blocks_and_blocks_are_dictionaries() -> None:
    done = part18.approx(info(), INFO, part18.decompose(ModelInfo(**INFO), data(), rank=2) | {"qp_density": 2})
    again = joined(split(INFO, done), 2)
    assert again.keys() == done.keys()
    assert {k: v for k, v in again.items() if k != "parameters"} == {k: v for k, v in done.items() if k != "parameters"}
    for name, array in done["parameters"].items():
        np.testing.assert_array_equal(again["parameters"][name], array, strict=True)
