"""``nnc validate`` and ``nnc inspect``: what they say of valid and of damaged bitstreams."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nnc_core
from annex_tests.support.program import Nnc
from conformance.support import every_unit
from conformance.support.every_unit import PAYLOAD, QUANTIZED, made, tensor
from nnc_core.coder.bins import traced_bins
from nnc_core.tables.rules import RULES

LAYERS = made(every_unit.layers)
TWICE = LAYERS + LAYERS[12:31]
WRONG_END = made(lambda w: w.data_unit(tensor(), PAYLOAD + b"\0"))


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[bytes], Path]:
    def save(data: bytes) -> Path:
        path = tmp_path / "file.nnr"
        path.write_bytes(data)
        return path

    return save


Saved = Callable[[bytes], Path]


def test_a_valid_bitstream_has_no_violations(nnc: Nnc, bitstream: Path) -> None:
    result = nnc("validate", bitstream)
    assert (result.exit_code, result.stdout) == (0, "no violations\n")


@pytest.mark.parametrize(
    ("data", "unit", "rule"),
    [(LAYERS[:-4], 6, "truncated"), (TWICE, 7, "tensor-once"), (WRONG_END, 2, "codeword")],
)
def test_a_violation_is_shown_with_rule_place_clause_and_explanation(
    nnc: Nnc, saved: Saved, data: bytes, unit: int, rule: str
) -> None:
    result = nnc("validate", saved(data))
    assert result.exit_code == 1
    assert result.stdout.startswith(f"unit {unit}, bit ")
    assert f"[{rule}, clause {RULES[rule].clause}]" in " ".join(result.stdout.split())
    assert " ".join(RULES[rule].sentence.split()) in " ".join(result.stdout.split())
    assert "1 violation\n" in result.stdout
    assert f"--unit {unit} " in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_violations_in_json(nnc: Nnc, saved: Saved) -> None:
    result = nnc("validate", saved(TWICE), "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["valid"] is False
    (violation,) = report["violations"]
    assert {key: violation[key] for key in ("rule", "unit", "element", "tensor")} == {
        "rule": "tensor-once",
        "unit": 7,
        "element": "topology_elem_id",
        "tensor": "u",
    }
    assert violation["bit_offset"] == 32


def test_payloads_are_decoded_unless_headers_are_enough(nnc: Nnc, saved: Saved) -> None:
    assert nnc("validate", saved(WRONG_END), "--headers-only").exit_code == 0


@pytest.mark.parametrize(("profile", "code"), [("2022", 1), ("2024", 0), ("3gpp", 1)])
def test_a_bitstream_is_held_against_a_profile(nnc: Nnc, saved: Saved, profile: str, code: int) -> None:
    assert nnc("validate", saved(LAYERS), "--profile", profile).exit_code == code


def test_an_update_that_needs_its_base_is_not_called_wrong(nnc: Nnc, saved: Saved) -> None:
    from dataclasses import replace

    header = tensor(parent_node_id_present_flag=True, parent_node_id_type=0, parent_device_id=0)
    header.parameter_id, header.put_node_depth, header.temporal_context_modeling_flag = 0, 2, True
    mps = replace(QUANTIZED, mps_parent_signalling_enabled_flag=True)
    result = nnc("validate", saved(made(lambda w: w.data_unit(header, PAYLOAD), mps)))
    assert result.exit_code == 0
    assert "not checked: unit 2" in result.stdout


@pytest.mark.parametrize("cut", [1, 9, len(LAYERS) - 30, len(LAYERS) - 6])
def test_a_truncated_file_is_shown_up_to_where_it_breaks(nnc: Nnc, saved: Saved, cut: int) -> None:
    path = saved(LAYERS[: len(LAYERS) - cut])
    for options in ([], ["--trace"], ["--json"]):
        result = nnc("inspect", path, *options)
        assert result.exit_code == 3
        assert "file.nnr" in result.stderr
        assert "STR" in result.stdout
    units = json.loads(nnc("inspect", path, "--json").stdout)["units"]
    assert sum(unit["size"] for unit in units) == len(LAYERS) - cut


def test_a_trace_can_be_narrowed_to_a_unit_a_tensor_or_a_byte(nnc: Nnc, saved: Saved) -> None:
    path = saved(LAYERS)
    whole = nnc("inspect", path, "--trace").stdout
    by_unit = nnc("inspect", path, "--trace", "--unit", "4").stdout
    assert by_unit.startswith("unit 4, byte 148, 20 bytes: NNR_NDU, v\n")
    assert by_unit in whole
    assert nnc("inspect", path, "--trace", "--tensor", "v").stdout == by_unit
    assert nnc("inspect", path, "--trace", "--offset", "148").stdout == by_unit
    assert nnc("inspect", path, "--trace", "--offset", "167").stdout == by_unit
    assert nnc("inspect", path, "--tensor", "nowhere").exit_code == 2


def test_units_can_be_sorted_by_size(nnc: Nnc, saved: Saved) -> None:
    sizes = [int(line.split()[1]) for line in nnc("inspect", saved(LAYERS), "--sort", "size").stdout.splitlines()[2:]]
    assert sizes == sorted(sizes, reverse=True)
    assert len(sizes) == 7


def test_the_bins_of_a_payload_are_shown_with_contexts_and_costs(nnc: Nnc, saved: Saved) -> None:
    (unit,) = nnc_core.NnrFile(made(lambda w: w.data_unit(tensor(), PAYLOAD))).bitstream.data_units
    ((name, bins),) = traced_bins(unit)
    spent = sum(each.bits for each in bins)
    assert name == "w"
    assert 8 * len(PAYLOAD) - 16 <= spent <= 8 * len(PAYLOAD)
    output = nnc("inspect", saved(LAYERS), "--trace", "--bins", "--tensor", "u").stdout
    assert f"bins of u: {len(bins)} for {spent:.2f} bits" in output
    assert output.count("sig_flag[") == sum(each.context.startswith("sig_flag[") for each in bins) == 6
    assert max(map(len, output.splitlines())) <= 80


@pytest.mark.parametrize("options", [[], ["--trace"]])
def test_what_is_shown_fits_into_80_columns(nnc: Nnc, bitstream: Path, options: list[str]) -> None:
    lines = nnc("inspect", bitstream, *options).stdout.splitlines()
    assert max(map(len, lines)) <= 80


def test_thousands_of_units_are_shown_within_a_second(nnc: Nnc, saved: Saved) -> None:
    tensors = {f"encoder.layer.{i}.weight": np.full((4, 4), i, np.int32) for i in range(3000)}
    path = saved(nnc_core.encode(tensors))
    start = time.process_time()
    assert len(nnc("inspect", path).stdout.splitlines()) == 3004
    assert time.process_time() - start < 1
