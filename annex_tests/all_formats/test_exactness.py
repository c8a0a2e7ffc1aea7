"""Names that say that a tensor must not change, and names that only look so."""

from __future__ import annotations

import pytest

from nnc_adapters.shared.exactness import OPTIMIZER, Declared, reasons

INTEGER, PACKED, FLOAT, HALF = "int32", "uint8", "float32", "float16"


def told(**tensors):
    """The names of exact tensors; ``name=dtype`` is a matrix, ``name=(dtype, *shape)`` another tensor."""
    declared = {
        name.replace("__", "."): Declared(kind, (64, 64)) if isinstance(kind, str) else Declared(kind[0], kind[1:])
        for name, kind in tensors.items()
    }
    return {name.replace(".", "__"): reason for name, reason in reasons(declared).items()}


@pytest.mark.parametrize(
    ("scheme", "exact"),
    [
        ({"l__qweight": INTEGER, "l__qzeros": INTEGER, "l__g_idx": (INTEGER, 64), "l__scales": HALF}, {"l__scales"}),
        ({"l__qweight": INTEGER, "l__scales": HALF, "l__bias": (HALF, 64)}, {"l__scales"}),
        ({"l__weight": "float8_e4m3fn", "l__weight_scale_inv": FLOAT}, {"l__weight_scale_inv"}),
        (
            {"l__weight": "float8_e4m3fn", "l__weight_scale": (FLOAT, 64), "l__input_scale": (FLOAT, 64)},
            {"l__weight_scale", "l__input_scale"},
        ),
        (
            {"l__weight": PACKED, "l__weight__absmax": (FLOAT, 64), "l__weight__quant_map": (FLOAT, 16)},
            {"l__weight__absmax", "l__weight__quant_map"},
        ),
        (
            {"l__weight": PACKED, "l__weight__nested_absmax": (FLOAT, 64), "l__weight__nested_quant_map": (FLOAT, 256)},
            {"l__weight__nested_absmax", "l__weight__nested_quant_map"},
        ),
        ({"l__weight": "int8", "l__SCB": (FLOAT, 64), "l__weight_format": (PACKED,)}, {"l__SCB"}),
        (
            {"l__weight_packed": INTEGER, "l__weight_scale": HALF, "l__weight_zero_point": "int8"},
            {"l__weight_scale"},
        ),
        ({"l__weight_packed": PACKED, "l__weight_global_scale": (FLOAT, 16)}, {"l__weight_global_scale"}),
        ({"l___weight_qdata": "int8", "l___weight_scale": HALF, "l__bias": (HALF, 64)}, {"l___weight_scale"}),
        ({"l__W_q": PACKED, "l__scale": HALF, "l__zero": HALF}, {"l__scale", "l__zero"}),
        ({"l__weight___data": "int8", "l__weight___scale": HALF, "l__weight": FLOAT}, {"l__weight___scale"}),
        (
            {"q__scale": (FLOAT, 64), "q__zero_point": (INTEGER, 64), "q__min_val": (FLOAT, 64)},
            {"q__scale", "q__min_val"},
        ),
        ({"l__codes": "int16", "l__codebooks": HALF, "l__scales": HALF}, {"l__codebooks", "l__scales"}),
        ({"a__k_scale": (FLOAT, 16), "a__v_scale": (FLOAT, 16)}, {"a__k_scale", "a__v_scale"}),
        ({"vars__0": "int8", "vars__1": (FLOAT, 64), "vars__2": (FLOAT, 64)}, {"vars__1", "vars__2"}),
    ],
)
def test_what_turns_integers_into_weights_is_exact(scheme, exact):
    assert told(**scheme) == dict.fromkeys(exact, "parameter of a quantization")


def test_scales_that_meet_no_integers_are_weights():
    assert told(norm__scale=(FLOAT, 64), norm__bias=(FLOAT, 64), layer_scale_1__gamma=(FLOAT, 64)) == {}
    assert told(bn__scale=(FLOAT, 64), bn__num_batches_tracked=("int64",), mask=("bool", 64), scale=(FLOAT, 64)) == {}


def test_integers_are_exact_without_a_reason():
    assert told(l__qweight=INTEGER, l__qzeros=INTEGER, exp_avg="int8") == {}


@pytest.mark.parametrize("name", ["inv_freq", "rotary__freqs", "rotary__freqs_cos", "cos_cached", "pe__div_term"])
def test_frequencies_are_exact(name):
    assert set(told(**{name: FLOAT, "weight": FLOAT})) == {name}


@pytest.mark.parametrize("name", ["eps", "scaler__std", "pixel_std", "temperature", "sigmas", "norm__variance_epsilon"])
def test_vectors_that_something_is_divided_by_are_exact(name):
    assert told(**{name: (FLOAT, 64, 1, 1)}) == {name: told(**{name: (FLOAT, 64)})[name]}
    assert told(**{name: FLOAT}) == {}


@pytest.mark.parametrize(
    "name",
    ["betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_recip_alphas_cumprod", "log_one_minus_alphas_cumprod",
     "posterior_log_variance_clipped", "posterior_mean_coef1"],
)  # fmt: skip
def test_the_tables_of_a_diffusion_are_exact(name):
    assert set(told(**{name: (FLOAT, 1000), "model__weight": FLOAT})) == {name}


@pytest.mark.parametrize(
    "name",
    ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_avg_sq_row", "exp_avg_sq_col", "exp_inf", "square_avg", "grad_avg",
     "momentum_buffer", "exp_avg_slow", "exp_avg_diff", "exp_avg_var", "acc_delta", "row_momentum"],
)  # fmt: skip
def test_what_optimizers_keep_is_known_by_its_name_wherever_this_stands(name):
    for where in (name, f"state__0__{name}", f"l__weight__{name}", f"{name}__l__weight", f"l__weight_{name}"):
        assert told(**{where: FLOAT, "l__weight": FLOAT}) == {where: OPTIMIZER}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("p0__m", "p0__v"),
        ("m__l__weight", "v__l__weight"),
        ("opt__mu__l", "opt__nu__l"),
        ("l__kernel__m", "l__kernel__v"),
        ("s__0__state1", "s__0__state2"),
    ],
)
def test_moments_are_known_where_both_are_there(first, second):
    assert told(**{first: FLOAT, second: FLOAT}) == dict.fromkeys((first, second), OPTIMIZER)
    assert told(**{first: FLOAT}) == told(**{second: FLOAT}) == {}


def test_the_factors_of_a_second_moment_have_other_shapes():
    assert set(told(w__vr=(FLOAT, 64), w__vc=(FLOAT, 32))) == {"w__vr", "w__vc"}
    assert set(told(kernel=FLOAT, kernel_slot_vr=(FLOAT, 64), kernel_slot_vc=(FLOAT, 64))) == {
        "kernel_slot_vr",
        "kernel_slot_vc",
    }


def test_attention_and_weights_are_not_taken_for_moments():
    assert told(attention__q=FLOAT, attention__k=FLOAT, attention__v=FLOAT, attention__m=FLOAT) == {}
    assert told(l__m=FLOAT, l__v=(FLOAT, 64), momentum=FLOAT, ema__l__weight=FLOAT, l__weight_ema=FLOAT) == {}


def test_a_slot_is_told_by_the_weight_before_it():
    found = told(l__weight=FLOAT, l__weight__momentum=FLOAT, l__weight_velocity=FLOAT, l__momentum=FLOAT)
    assert set(found) == {"l__weight__momentum", "l__weight_velocity"}
