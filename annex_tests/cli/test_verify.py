"""``nnc verify`` as a judge: what a model must not lose."""

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
from annex_tests.support.program import Nnc
from nnc_adapters import registry
from nnc_core import CodingParameters, SourceModel, Topology

Arrays = dict[str, NDArray[Any]]

_RANDOM = np.random.default_rng(7)
WEIGHT = _RANDOM.normal(0, 0.05, (32, 16)).astype(np.float32)


@pytest.fixture
def safetensors(tmp_path: Path) -> Callable[[Arrays], Path]:
    """Writes arrays as a file of safetensors."""

    def write(arrays: Arrays) -> Path:
        header, data = {}, b""
        for name, array in arrays.items():
            end = len(data) + array.nbytes
            header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(data), end]}
            data += array.tobytes()
        text = json.dumps(header).encode()
        path = tmp_path / "model.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + data)
        return path

    return write


def coded(model: Path, change: Callable[[Arrays], Arrays], topology: Topology | None = None) -> Path:
    """A bitstream of the model with changed values, which are sent as they are, or nearly so."""
    source = registry.find(model).read(model)
    tensors = change({name: source.tensors[name] for name in source.tensors})
    path = model.with_suffix(".nnr")
    with path.open("wb") as stream:
        changed = SourceModel(tensors, topology or source.topology, exact=dict.fromkeys(tensors, "to be changed"))
        nnc_core.write(stream, changed, parameters=CodingParameters())
    return path


def found(result: Result) -> Any:
    return json.loads(result.stdout)


def test_a_faithful_bitstream_is_accepted_in_full(safetensors: Any, nnc: Nnc) -> None:
    model = safetensors({"w": WEIGHT})
    result = nnc("verify", model, coded(model, lambda arrays: arrays), "--json")
    assert result.exit_code == 0
    report = found(result)
    assert (report["accepted"], report["topology"], report["topology_problem"]) == (True, "equal", None)
    (tensor,) = report["tensors"]
    assert (tensor["exact"], tensor["problem"], tensor["lost"], tensor["lost_zeros"]) == (True, None, 0, 0)


def test_a_destroyed_tensor_is_a_negative_finding(safetensors: Any, nnc: Nnc) -> None:
    model = safetensors({"w": WEIGHT, "small": WEIGHT * 1e-4})
    bitstream = coded(model, lambda arrays: {**arrays, "small": arrays["small"] * 0})
    result = nnc("verify", model, bitstream)
    assert result.exit_code == 1
    assert "destroyed: 0.0 dB" in result.stdout
    assert "1 of 2 tensors not acceptable" in result.stderr
    report = found(nnc("verify", model, bitstream, "--json"))
    assert report["worst"] == "small"
    assert report["tensors"][1]["lost"] == 1
    assert nnc("verify", model, bitstream, "--min-sqnr", "-1").exit_code == 0


def test_zeros_that_became_something_else_are_a_negative_finding(safetensors: Any, nnc: Nnc) -> None:
    pruned = WEIGHT * (np.abs(WEIGHT) > 0.05)
    model = safetensors({"w": pruned})
    bitstream = coded(model, lambda arrays: {"w": arrays["w"] + np.float32(1e-5)})
    result = nnc("verify", model, bitstream)
    assert result.exit_code == 1
    assert f"{np.count_nonzero(pruned == 0)} zeros became non-zero" in result.stdout


def test_the_error_of_the_model_is_that_of_all_its_weights_together(safetensors: Any, nnc: Nnc) -> None:
    model = safetensors({"a": WEIGHT, "b": WEIGHT[::-1].copy(), "scales": 1000 * WEIGHT[0]})
    factors = {"a": np.float32(1.01), "b": np.float32(1.02), "scales": np.float32(1.0001)}
    bitstream = coded(model, lambda arrays: {name: array * factors[name] for name, array in arrays.items()})
    report = found(nnc("verify", model, bitstream, "--json"))
    assert report["sqnr_db"] == pytest.approx(10 * np.log10(2 / (1e-4 + 4e-4)), abs=0.01)
    assert report["worst"] == "b"


def test_a_topology_from_which_no_model_can_be_made_is_a_negative_finding(safetensors: Any, nnc: Nnc) -> None:
    model = safetensors({"w": WEIGHT})
    good = registry.find(model).read(model).topology
    bitstream = coded(model, lambda arrays: arrays, Topology(good.storage_format, b"no parts at all"))
    result = nnc("verify", model, bitstream)
    assert result.exit_code == 1
    assert "topology cannot be restored" in result.stderr
    bitstream = coded(model, lambda arrays: arrays, Topology(255, b"of a format that nobody knows"))
    assert nnc("verify", model, bitstream).exit_code == 1


def test_a_bitstream_without_topology_is_judged_by_its_tensors(safetensors: Any, nnc: Nnc) -> None:
    model = safetensors({"w": WEIGHT})
    bitstream = model.with_suffix(".nnr")
    bitstream.write_bytes(nnc_core.encode({"w": WEIGHT}))
    report = nnc("verify", model, bitstream)
    assert report.exit_code == 0
    assert "topology not carried" in report.stderr


def test_verify_leaves_nothing_behind(
    safetensors: Any, nnc: Nnc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = safetensors({"w": WEIGHT})
    bitstream = coded(model, lambda arrays: arrays)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = sorted(tmp_path.iterdir())
    assert nnc("verify", model, bitstream).exit_code == 0
    assert sorted(tmp_path.iterdir()) == before


def test_values_that_are_exact_by_themselves_must_not_change_unless_a_rule_says_so(safetensors: Any, nnc: Nnc) -> None:
    mask = (_RANDOM.random((32, 16)) < 0.5).astype(np.float32)
    model = safetensors({"mask": mask, "w": WEIGHT})
    assert nnc("compress", model).exit_code == 0
    exact = found(nnc("verify", model, model.with_suffix(".nnr"), "--json"))["tensors"][0]
    assert (exact["exact"], exact["exact_because"], exact["problem"]) == (True, "few different values", None)
    rule = "--rule", "mask=exact=0,qp=-37"
    assert nnc("compress", model, "-f", *rule).exit_code == 0
    changed = nnc("verify", model, model.with_suffix(".nnr"))
    assert changed.exit_code == 1
    assert "changed, and must not: few different values" in changed.stdout
    assert nnc("verify", model, model.with_suffix(".nnr"), *rule).exit_code == 0
    kept = "--rule", "w=exact=1"
    assert nnc("verify", model, model.with_suffix(".nnr"), *rule, *kept).exit_code == 1
