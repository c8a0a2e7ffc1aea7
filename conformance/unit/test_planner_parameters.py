"""What each tensor is coded with: roles, rules, and parameters that the bitstream cannot carry."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any, get_args

import numpy as np
import pytest

import nnc_core
from nnc_core import CodingParameters, NnrFile, Rule, TensorInfo
from nnc_core.approximator.step import step_size
from nnc_core.nnr_model import ModelInfo, ParameterType

MATRIX = np.random.default_rng(1).normal(0, 1, (20, 10)).astype(np.float32)
VECTOR = MATRIX.reshape(-1)


def info(array: Any, *rules: str, name: str = "layer.weight", qp: int = -38, **parameters: Any) -> TensorInfo:
    p = CodingParameters(qp, rules=tuple(map(Rule.parse, rules)), **parameters)
    return NnrFile(nnc_core.encode({name: array}, parameters=p)).tensors[name]


# --- roles -----------------------------------------------------------------------------------------------------------


def test_without_a_role_the_dimensions_tell_weights_from_other_tensors() -> None:
    assert info(MATRIX).qp == -38
    assert info(VECTOR).qp == -75
    assert info(VECTOR.reshape(-1, 1, 1)).qp == -38
    assert info(np.float32(0.5)).qp in (-75, None)


@pytest.mark.parametrize("role", get_args(ParameterType))
def test_a_role_tells_weights_from_other_tensors(role: ParameterType) -> None:
    roles: ModelInfo = {"parameter_type": {"matrix": role, "vector": role}}
    tensors = {"matrix": MATRIX, "vector": VECTOR, "other": MATRIX}
    data = nnc_core.encode(tensors, parameters=CodingParameters(-38), model_info=roles)
    expected = -38 if role in ("conv.weight", "fc.weight") else -75
    found = {name: tensor.qp for name, tensor in NnrFile(data).tensors.items()}
    assert found == {"matrix": expected, "vector": expected, "other": -38}


# --- rules -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pattern", "changes"),
    [
        ("conv=qp=-30", "conv", {"qp": -30}),
        ("conv.*bias=qp=-60,dq=0", "conv.*bias", {"qp": -60, "dq_flag": False}),
        ("a=b=qp=1", "a=b", {"qp": 1}),
        ("x=dq_flag=1,param_opt=0", "x", {"dq_flag": True, "param_opt_flag": False}),
        ("x=row_skip=0,unary=3", "x", {"row_skip_enabled_flag": False, "cabac_unary_length_minus1": 3}),
        ("x=scan=4,scan_order=2", "x", {"scan_order": 2}),
    ],
)
def test_a_rule_is_read_from_text(text: str, pattern: str, changes: dict[str, int]) -> None:
    rule = Rule.parse(text)
    assert rule.pattern == pattern
    assert dict(rule.changes) == changes
    assert all(isinstance(value, bool) == name.endswith("_flag") for name, value in rule.changes)


@pytest.mark.parametrize(
    "text", ["", "conv", "conv=qp", "=qp=1", "conv=qp=1.5", "conv=qp=", "conv=qp=1,", "conv=qp=1 dq=0", "conv:qp=1"]
)
def test_text_that_is_not_a_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a rule"):
        Rule.parse(text)


def test_a_rule_for_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a rule cannot set 'bits', only qp, dq_flag, "):
        Rule.parse("conv=bits=8")
    with pytest.raises(ValueError, match="a rule cannot set 'qp_density'"):
        Rule("conv", (("qp_density", 3),))


def test_a_pattern_that_is_not_a_regular_expression_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a regular expression"):
        Rule.parse("conv(=qp=1")


def test_a_rule_applies_where_its_pattern_is_found_in_the_name() -> None:
    assert info(MATRIX, "layer=qp=-20").qp == -20
    assert info(MATRIX, "weight$=qp=-20").qp == -20
    assert info(MATRIX, "^weight=qp=-20").qp == -38
    assert info(MATRIX, "l.y.r=qp=-20").qp == -20


def test_the_last_rule_that_sets_a_parameter_wins() -> None:
    found = info(MATRIX, "layer=qp=-20,dq=0", "weight=qp=-25", "bias=qp=-1", "layer=scan=1")
    assert (found.qp, found.dq_flag, found.scan_order) == (-25, False, 1)


def test_every_parameter_of_a_rule_reaches_the_bitstream() -> None:
    def coded(*rules: str) -> bytes:
        p = CodingParameters(-38, rules=tuple(map(Rule.parse, rules)))
        return nnc_core.encode({"w": np.where(np.abs(MATRIX) > 1.5, MATRIX, 0)}, parameters=p)

    rules = ("w=qp=-20", "w=dq=0", "w=param_opt=0", "w=unary=2", "w=scan=1", "w=row_skip=0")
    results = [coded()] + [coded(rule) for rule in rules]
    sparse = np.zeros((40, 40), np.float32)
    sparse[::7] = 1
    skipping = [
        nnc_core.encode({"w": sparse}, parameters=CodingParameters(-38, row_skip_enabled_flag=on)) for on in (0, 1)
    ]
    assert len(set(results[:-1])) == len(results) - 1
    assert skipping[0] != skipping[1]


@pytest.mark.parametrize("rule", ["w=qp=-999", "w=qp=-20,scan=5", "w=unary=256"])
def test_a_rule_that_asks_for_the_impossible_is_refused_before_anything_is_coded(rule: str) -> None:
    with pytest.raises(ValueError, match=r"rule 'w': \w+ is \S+, expected"):
        CodingParameters(rules=(Rule.parse("w=qp=1"), Rule.parse(rule)))


def test_a_flag_of_a_rule_is_set_or_not() -> None:
    with pytest.raises(ValueError, match=r"dq_flag is 7, expected 0\.\.1"):
        Rule.parse("w=dq=7")
    assert Rule("w", (("dq_flag", 1), ("qp", np.int64(-3)))) == Rule.parse("w=dq=1,qp=-3")  # type: ignore[arg-type]


# --- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"qp": 128}, r"qp is 128, expected -128\.\.127"),
        ({"qp": -129}, "qp is -129"),
        ({"nonweight_qp": -129}, "nonweight_qp is -129"),
        ({"qp": -20, "nonweight_qp": 40, "qp_density": 0}, r"qp is 40, expected -32\.\.31 with qp_density 0"),
        ({"dq_flag": 2}, r"dq_flag is 2, expected 0\.\.1"),
        ({"qp_density": 8}, r"qp_density is 8, expected 0\.\.7"),
        ({"qp_density": -1}, "qp_density is -1"),
        ({"scan_order": 5}, r"scan_order is 5, expected 0\.\.4"),
        ({"scan_order": -1}, "scan_order is -1"),
        ({"cabac_unary_length_minus1": 256}, "cabac_unary_length_minus1 is 256"),
        ({"cabac_unary_length_minus1": -1}, "cabac_unary_length_minus1 is -1"),
        ({"general_profile_idc": 2}, r"general_profile_idc is 2, expected 0\.\.1"),
    ],
)
def test_a_parameter_that_the_bitstream_cannot_carry_is_refused(parameters: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodingParameters(**parameters)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"qp": -30.5}, "qp is -30.5, expected a whole number"),
        ({"scan_order": "1"}, "scan_order is '1'"),
        ({"dq_flag": None}, "dq_flag is None"),
        ({"rules": ["w=qp=-3"]}, r"'w=qp=-3' is not a Rule; Rule\.parse"),
    ],
)
def test_a_parameter_of_another_type_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        CodingParameters(**parameters)


def test_numbers_of_numpy_are_as_good_as_others() -> None:
    odd: dict[str, Any] = {"qp": np.int64(-30), "dq_flag": np.uint8(1), "rules": [Rule.parse("w=qp=-20")]}
    plain = CodingParameters(qp=-30, dq_flag=True, rules=(Rule.parse("w=qp=-20"),))
    assert CodingParameters(**odd) == plain
    assert nnc_core.encode({"v": MATRIX}, parameters=CodingParameters(**odd)) == nnc_core.encode(
        {"v": MATRIX}, parameters=plain
    )


@pytest.mark.parametrize("qp_density", range(8))
def test_both_ends_of_the_quantization_parameter_can_be_coded(qp_density: int) -> None:
    reach = 1 << (5 + qp_density)
    for qp in (-reach, reach - 1):
        p = CodingParameters(qp=qp, nonweight_qp=qp, qp_density=qp_density)
        array = np.full((30, 30), 2.0**-31 if qp < 0 else 2.0**31, np.float32)
        found = info(array, qp=qp, nonweight_qp=qp, qp_density=qp_density)
        assert found.qp == qp
        decoded = nnc_core.decode(nnc_core.encode({"w": array}, parameters=p))["w"]
        np.testing.assert_allclose(decoded, array, rtol=0, atol=2 * step_size(qp, qp_density))


def test_a_larger_quantization_parameter_makes_the_file_smaller_and_the_error_larger() -> None:
    sizes, errors = [], []
    for qp in range(-60, 0, 10):
        data = nnc_core.encode({"w": MATRIX}, parameters=CodingParameters(qp=qp))
        sizes.append(len(data))
        errors.append(float(np.abs(nnc_core.decode(data)["w"] - MATRIX).mean()))
    assert sizes == sorted(sizes, reverse=True)
    assert errors == sorted(errors)
    assert len(set(sizes)) == len(sizes)


def test_parameters_and_rules_cannot_be_changed_after_they_were_checked() -> None:
    with pytest.raises(FrozenInstanceError):
        CodingParameters().qp = 999  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Rule.parse("a=qp=1").pattern = "("  # type: ignore[misc]
