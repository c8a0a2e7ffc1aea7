"""Pipelines: stages run in the order of their sections, can be exchanged, and leave what they are given alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnc_core import approximator
from nnc_core.nnr_model import ModelInfo
from nnc_core.pipeline import Package, Pipeline, Section, Stage, changing, standard

TYPES = {"w": "fc.weight", "g": "bn.gamma", "b": "bn.beta", "m": "bn.mean", "v": "bn.var", "u": "fc.weight"}


def package() -> Package:
    random = np.random.default_rng(2)
    shapes = {"w": (8, 10), "u": (12, 12)}
    tensors: dict[str, NDArray[Any]] = {
        name: np.abs(random.normal(0.4, 0.1, shapes.get(name, (8,)))).astype(np.float32) for name in TYPES
    }
    block = dict.fromkeys(("w", "g", "b", "m", "v"), "layer")
    info = ModelInfo(parameter_type=dict(TYPES), block_identifier=block)  # type: ignore[arg-type]
    return Package(info, {"parameters": tensors, "qp_density": 2})


def pipeline() -> Pipeline:
    qp = dict.fromkeys([*TYPES, "w_scaling", "w.bias"], -40)
    return standard({"approx_method": "uniform", "qp": qp}, {})


def test_a_model_passes_all_interfaces_in_their_order() -> None:
    seen: list[tuple[int, bool, set[str]]] = []

    def look(number: int, what: Package) -> None:
        kinds = {array.dtype.name for array in what.approx_data.get("parameters", {}).values()}
        seen.append((number, bool(what.bitstream), kinds))

    coded = pipeline().encode(package(), look)
    decoded = pipeline().decode(coded, look)
    assert [number for number, _, _ in seen] == [1, 2, 3, 4, 4, 5, 6]
    assert [kinds for _, _, kinds in seen] == [
        {"float32"}, {"float32"}, {"int32"}, set(), set(), {"int32"}, {"float32"},
    ]  # fmt: skip
    for name, array in package().approx_data["parameters"].items():
        np.testing.assert_allclose(decoded.approx_data["parameters"][name], array, atol=1e-3)


def test_a_stage_can_be_added_and_what_it_does_is_undone() -> None:
    fold = Stage("fold_bn", Section.REDUCTION, changing(approximator.fold_bn))
    with_folding = pipeline().with_stage(fold)
    assert str(with_folding).splitlines()[0] == "#1 reduction: fold_bn"
    between: list[Package] = []
    coded = with_folding.encode(package(), lambda number, what: between.append(what) if number == 2 else None)
    assert set(between[0].approx_data["parameters"]) == {"w", "w_scaling", "w.bias", "u"}
    assert len(coded.bitstream) < len(pipeline().encode(package()).bitstream)
    assert with_folding.decode(coded).approx_data["parameters"].keys() == TYPES.keys()


def test_stages_leave_what_they_are_given_as_it_is() -> None:
    given = package()
    before = {name: array.copy() for name, array in given.approx_data["parameters"].items()}
    fold = Stage("fold_bn", Section.REDUCTION, changing(approximator.fold_bn))
    pipeline().with_stage(fold).encode(given)
    assert given.approx_data["parameters"].keys() == before.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(given.approx_data["parameters"][name], array)


def test_a_stage_can_be_replaced_and_left_out() -> None:
    silent = pipeline().replaced("approx", lambda what: what).without("rec")
    decoded = silent.decode(silent.encode(package()))
    for name, array in package().approx_data["parameters"].items():
        np.testing.assert_array_equal(decoded.approx_data["parameters"][name], array)


def test_a_stage_goes_before_another_of_its_section() -> None:
    stage = Stage("nothing", Section.RECONSTRUCTION, lambda what: what)
    names = [each.name for each in pipeline().with_stage(stage, before="rec").of(Section.RECONSTRUCTION)]
    assert names == ["nothing", "rec", "unfold_bn", "apply_lsa", "recompose"]


def test_names_are_unique_and_known() -> None:
    with pytest.raises(ValueError, match="same name"):
        pipeline().with_stage(Stage("rec", Section.REDUCTION, lambda what: what))
    for change in (pipeline().without, lambda name: pipeline().replaced(name, lambda what: what)):
        with pytest.raises(KeyError):
            change("none")
