"""What ``nnc compress`` warns of: what a user may not expect of the result."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnc_adapters
from annex_tests.support.program import Nnc
from nnc_core import CodingParameters, Rule

_RANDOM = np.random.default_rng(3)
WEIGHT = _RANDOM.normal(0, 0.05, (64, 32)).astype(np.float32)


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """Writes arrays as a file of safetensors, as type F32 or with another type's name for what is bytes."""

    def write(**arrays: NDArray[Any]) -> Path:
        header, data = {}, b""
        for name, array in arrays.items():
            kind = {"float32": "F32", "uint8": "F8_E4M3"}[array.dtype.name]
            header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
            data += array.tobytes()
        text = json.dumps(header).encode()
        path = tmp_path / "model.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        return path

    return write


def warnings(model: Path, **options: Any) -> str:
    return "\n".join(nnc_adapters.compress(model, force=True, **options).warnings)


def test_an_ordinary_model_causes_no_warning(saved: Any, nnc: Nnc) -> None:
    result = nnc("compress", saved(w=WEIGHT), "-f")
    assert result.exit_code == 0
    assert "warning" not in result.stderr


@pytest.mark.parametrize("dq", [True, False])
def test_a_step_that_destroys_a_tensor_is_named_with_the_tensor(saved: Any, nnc: Nnc, dq: bool) -> None:
    model = saved(good=WEIGHT, tiny=WEIGHT * np.float32(1e-3))
    found = warnings(model, parameters=CodingParameters(qp=-38, dq_flag=dq))
    assert "tiny (0 dB)" in found
    assert "good" not in found
    result = nnc("compress", model, "-f", "--qp", "-38")
    assert result.exit_code == 0
    assert "warning: the step is too large for tiny" in result.stderr
    assert any(
        "tiny" in text for text in json.loads(nnc("compress", model, "-f", "--qp", "-38", "--json").stdout)["warnings"]
    )


@pytest.mark.parametrize("dq", [True, False])
@pytest.mark.parametrize("zeros", [0.0, 0.9])
def test_the_prediction_is_what_verify_measures(saved: Any, dq: bool, zeros: float) -> None:
    weight = WEIGHT * (_RANDOM.random(WEIGHT.shape) >= zeros)
    model = saved(w=weight.astype(np.float32))
    for qp in (-26, -20, -14):
        predicted = warnings(model, parameters=CodingParameters(qp=qp, dq_flag=dq))
        measured = nnc_adapters.verify(model, model.with_suffix(".nnr"), min_sqnr=-1).sqnr_db
        assert measured is not None
        if abs(measured - 20) > 1:
            assert ("w (" in predicted) == (measured < 20)


def test_little_that_is_coded_is_said(saved: Any) -> None:
    model = saved(w=WEIGHT, eights=_RANDOM.integers(0, 100, (256, 256)).astype(np.uint8))
    assert "of the model is tensors; the rest was compressed without loss" in warnings(model)


def test_a_rule_that_matches_nothing_is_said(saved: Any) -> None:
    rules = (Rule.parse("nowhere=qp=-20"),)
    assert "the rule 'nowhere' matches no tensor" in warnings(saved(w=WEIGHT), parameters=CodingParameters(rules=rules))


def test_bits_per_weight_count_the_payload_alone(saved: Any) -> None:
    model = saved(w=WEIGHT, eights=_RANDOM.integers(0, 100, (256, 256)).astype(np.uint8))
    report = nnc_adapters.compress(model)
    assert report.payload_bytes is not None
    assert report.payload_bytes < report.bytes_after / 10
    assert report.bits_per_weight == pytest.approx(8 * report.payload_bytes / WEIGHT.size)
    assert 4 < report.bits_per_weight < 8
