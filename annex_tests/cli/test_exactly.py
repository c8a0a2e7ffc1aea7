"""``nnc inspect`` says which tensors come back as they were, and how they travel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from numpy.typing import NDArray

import nnc_core
from nnc_core import Rule

_RANDOM = np.random.default_rng(2)
WEIGHT = _RANDOM.normal(0, 0.05, (32, 16)).astype(np.float32)
FORMS: dict[str, tuple[NDArray[Any], tuple[Rule, ...], str]] = {
    "quantized": (WEIGHT, (), ""),
    "quantized uniformly": (WEIGHT, (Rule.parse("w=dq=0,qp=-37"),), ""),
    "integers": (np.arange(512, dtype=np.int32).reshape(32, 16), (), "integers"),
    "whole numbers": (_RANDOM.integers(0, 900, (32, 16)).astype(np.float32), (), "multiples of 1"),
    "halves": (_RANDOM.integers(0, 90, (32, 16)).astype(np.float32) / 2, (), "multiples of 0.5"),
    "exact by a rule": (WEIGHT, (Rule.parse("w=exact=1"),), "exponents of float32"),
}


@pytest.mark.parametrize("kind", FORMS)
def test_the_form_of_exact_values_is_shown(nnc: Callable[..., Result], tmp_path: Path, kind: str) -> None:
    array, rules, expected = FORMS[kind]
    path = tmp_path / "w.nnr"
    nnc_core.write(path, {"w": array}, rules=rules)
    result = nnc("inspect", path)
    assert result.exit_code == 0
    assert "exact as" in result.stdout
    (unit, *_) = (u for u in json.loads(nnc("inspect", path, "--json").stdout)["units"] if u["type"] == "NNR_NDU")
    assert unit["exact_as"] == expected
    assert expected in result.stdout
    if expected:
        np.testing.assert_array_equal(nnc_core.decode(path)["w"], array)
