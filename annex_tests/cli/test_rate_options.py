"""Options of size and quality: targets are met, plans are kept and reused, contradictions are named."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import nnc_core
from annex_tests.support.program import Nnc
from nnc_adapters.cli.errors import ExitCode
from nnc_core import ModelPlan


def sizes(path: Path) -> int:
    return path.stat().st_size


def weights(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    tensors = {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    return {name: array for name, array in tensors.items() if array.ndim > 1 and array.dtype.kind == "f"}


def pooled(model: Path, bitstream: Path) -> float:
    """The SQNR in dB of all weights together."""
    decoded, given = nnc_core.decode(bitstream), weights(model)
    power = sum(float(np.square(array, dtype=float).sum()) for array in given.values())
    return 10 * np.log10(power / sum(float(np.square(given[n] - decoded[n], dtype=float).sum()) for n in given))


@pytest.mark.parametrize("target", ["20kB", "15000", "25%"])
@pytest.mark.parametrize("names", [(), ("--index-names",)])
def test_a_target_size_is_met_from_below(nnc: Nnc, model: Path, target: str, names: tuple[str, ...]) -> None:
    assert nnc("compress", model, "--target-size", target, *names).exit_code == 0
    most = {"20kB": 20_000, "15000": 15_000, "25%": sizes(model) // 4}[target]
    assert 0.995 * most <= sizes(model.with_suffix(".nnr")) <= most


def test_a_target_size_out_of_reach_says_what_is_possible(nnc: Nnc, model: Path) -> None:
    result = nnc("compress", model, "--target-size", "300")
    assert result.exit_code == ExitCode.FILE
    assert "does not fit into 300 bytes" in result.stderr
    least = re.findall(r"the least it can take is (\d+), of which \d+ are not weights", result.stderr)
    assert nnc("compress", model, "--target-size", least[0]).exit_code == 0


@pytest.mark.parametrize("sqnr", [35.0, 22.5])
def test_an_sqnr_is_reached(nnc: Nnc, model: Path, sqnr: float) -> None:
    assert nnc("compress", model, "--sqnr", sqnr).exit_code == 0
    assert sqnr - 1e-3 <= pooled(model, model.with_suffix(".nnr")) < sqnr + 0.1


@pytest.mark.parametrize("bits", [5, 2.5])
def test_weights_take_so_many_bits_at_most(nnc: Nnc, model: Path, bits: float) -> None:
    assert nnc("compress", model, "--bits-per-weight", bits).exit_code == 0
    infos, given = nnc_core.NnrFile(model.with_suffix(".nnr").read_bytes()).tensors, weights(model)
    taken = 8 * sum(infos[name].size for name in given) / sum(array.size for array in given.values())
    assert 0.99 * bits <= taken <= bits


def test_higher_levels_take_fewer_bytes(nnc: Nnc, model: Path) -> None:
    found = []
    for level in (1, 3, 5, 7):
        assert nnc("compress", model, "--level", level, "--force").exit_code == 0
        found.append(sizes(model.with_suffix(".nnr")))
    assert found == sorted(found, reverse=True)


def test_lossless_loses_nothing(nnc: Nnc, model: Path) -> None:
    assert nnc("compress", model, "--lossless").exit_code == 0
    decoded = nnc_core.decode(model.with_suffix(".nnr"))
    for name, array in weights(model).items():
        assert decoded[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("options", [("--sqnr", "25"), ("--target-size", "20kB", "--index-names"), ("--lossless",), ()])
def test_a_plan_that_was_saved_gives_the_same_bitstream(nnc: Nnc, model: Path, options: tuple[str, ...]) -> None:
    plan, first, second = (model.with_name(name) for name in ("plan.json", "first.nnr", "second.nnr"))
    assert nnc("compress", model, "-o", first, *options, "--save-plan", plan).exit_code == 0
    assert nnc("compress", model, "-o", second, "--plan", plan).exit_code == 0
    assert first.read_bytes() == second.read_bytes()


def test_a_dry_run_can_save_a_plan_to_be_changed(nnc: Nnc, model: Path) -> None:
    path = model.with_name("plan.json")
    assert nnc("compress", model, "--dry-run", "--save-plan", path).exit_code == 0
    assert not model.with_suffix(".nnr").exists()
    name = next(iter(weights(model)))
    plan = ModelPlan.from_json(path.read_text())
    path.write_text(plan.changed(name, qp=plan.tensors[name].qp - 16).to_json())
    assert nnc("compress", model, "--plan", path).exit_code == 0
    finer = nnc_core.NnrFile(model.with_suffix(".nnr").read_bytes()).tensors[name]
    assert finer.qp == plan.tensors[name].qp - 16
    shown = json.loads(nnc("compress", model, "--plan", path, "--dry-run", "--json").stdout)
    assert shown["tensors"][name]["qp"] == finer.qp


def test_a_saved_plan_is_replaced_only_by_force(nnc: Nnc, model: Path) -> None:
    path = model.with_name("plan.json")
    path.write_text("mine")
    assert nnc("compress", model, "--save-plan", path).exit_code != 0
    assert path.read_text() == "mine"
    assert not model.with_suffix(".nnr").exists()
    assert nnc("compress", model, "--save-plan", path, "--force").exit_code == 0
    assert path.read_text() != "mine"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("nothing", "is not a plan of nnc_core"),
        ("[" * 100_000, "is not a plan of nnc_core"),
        ({"nnc_plan": 99}, "is a plan of version 99"),
        ({"qp_density": 9}, "has qp_density 9"),
        ({"tensors": {}}, "is not in the plan"),
        ({"qp": "coarse"}, "qp is 'coarse'"),
        ({"qp": 1.5}, "qp is 1.5"),
        ({"qp": True}, "qp is True"),
        ({"qp": 100_000}, "has qp 100000 in its plan"),
        ({"scan_order": 7}, "has scan_order 7"),
        ({"lambda_scale": -1}, "has lambda_scale -1"),
        ({"lambda_scale": float("nan")}, "has lambda_scale nan"),
        ({"method": "magic"}, "'magic' is not a valid Method"),
        ({"method": "integers"}, "is planned as integers"),
        ({"quality": 3}, "unexpected keyword argument 'quality'"),
    ],
)
def test_plans_that_make_no_sense_are_refused(nnc: Nnc, model: Path, changes: Any, message: str) -> None:
    path, name = model.with_name("plan.json"), next(iter(weights(model)))
    assert nnc("compress", model, "--dry-run", "--save-plan", path).exit_code == 0
    data = json.loads(path.read_text())
    if isinstance(changes, dict):
        at = data if changes.keys() <= data.keys() else data["tensors"][name]
        path.write_text(json.dumps({**data, **({} if at is not data else changes)}))
        if at is not data:
            data["tensors"][name] = {**at, **changes}
            path.write_text(json.dumps(data))
    else:
        path.write_text(changes)
    result = nnc("compress", model, "--plan", path)
    assert result.exit_code == ExitCode.FILE
    assert message in result.stderr
    assert not model.with_suffix(".nnr").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--sqnr", "30", "--qp", "-30"), "qp and sqnr are mutually exclusive"),
        (("--sqnr", "30", "--target-size", "1MB"), "sqnr and target_size are mutually exclusive"),
        (("--bits-per-weight", "3", "--lossless"), "bits_per_weight and lossless are mutually exclusive"),
        (("--lossless", "--nonweight-qp", "-50"), "lossless and qp are mutually exclusive"),
        (("--plan", "p.json", "--sqnr", "30"), "--plan and --sqnr are mutually exclusive"),
        (("--plan", "p.json", "--rule", "x=qp=3"), "--plan and --rule are mutually exclusive"),
        (("--plan", "p.json", "--level", "9"), "--plan and --level are mutually exclusive"),
        (("--plan", "p.json", "--no-dq"), "--plan and --no-dq are mutually exclusive"),
        (("--sqnr", "-3"), "sqnr is -3.0, expected a number above 0"),
        (("--bits-per-weight", "nan"), "bits_per_weight is nan"),
        (("--target-size", "much"), "target_size is 'much'"),
        (("--target-size", "0"), "target_size is 0"),
        (("--level", "0"), "0 is not in the range 1<=x<=9"),
        (("--qp-density", "8"), "qp_density is 8"),
        (("other.onnx", "--plan", "p.json"), "--plan takes one model"),
        (("other.onnx", "--save-plan", "p.json"), "--save-plan takes one model"),
    ],
)
def test_contradictions_are_usage_errors(nnc: Nnc, model: Path, options: tuple[str, ...], message: str) -> None:
    result = nnc("compress", model, *options)
    assert result.exit_code == 2
    assert message in result.stderr
