"""What the commands of ``nnc`` do and print."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

import nnc_core
from annex_tests.support.program import Nnc


def test_the_version_is_that_of_the_codec(nnc: Nnc) -> None:
    assert nnc("--version").output.split()[-1] == nnc_core.__version__


def test_compress_derives_the_name_of_its_output_and_reports_to_stderr_only(nnc: Nnc, model: Path) -> None:
    result = nnc("compress", model)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert f"{model.stat().st_size} to {model.with_suffix('.nnr').stat().st_size} bytes" in result.stderr


def test_compress_reports_in_json(nnc: Nnc, model: Path, tmp_path: Path) -> None:
    report = json.loads(nnc("compress", model, "-o", tmp_path / "out.nnr", "--json").stdout)
    size = (tmp_path / "out.nnr").stat().st_size
    assert report["bytes_after"] == size
    assert report["percent"] == pytest.approx(100 * size / report["bytes_before"])
    assert report["payload_bytes"] < size
    assert report["bits_per_weight"] == pytest.approx(8 * report["payload_bytes"] / report["weights"])
    assert report["tensors"] == len(nnc_core.decode((tmp_path / "out.nnr").read_bytes()))


def test_a_coarser_qp_makes_a_smaller_file(nnc: Nnc, model: Path, bitstream: Path) -> None:
    assert nnc("compress", model, "--qp", "-20").exit_code == 0
    assert model.with_suffix(".nnr").stat().st_size < bitstream.stat().st_size


def units(nnc: Nnc, path: Path) -> dict[str, dict[str, object]]:
    described = json.loads(nnc("inspect", "--json", path).stdout)["units"]
    return {unit["names"][0]: unit["header"] for unit in described if unit["names"]}


def test_coding_options_reach_the_headers(nnc: Nnc, model: Path) -> None:
    options = ["--no-dq", "--scan-order", "1", "--unary", "5", "--profile", "2022"]
    assert nnc("compress", model, *options).exit_code == 0
    path = model.with_suffix(".nnr")
    header = units(nnc, path)["hidden.weight"]
    assert header["dq_flag"] is False
    assert (header["scan_order"], header["cabac_unary_length_minus1"]) == (1, 5)
    assert json.loads(nnc("inspect", "--json", path).stdout)["units"][0]["header"] == {"general_profile_idc": 0}


def test_a_rule_changes_only_the_tensors_that_it_names(nnc: Nnc, model: Path) -> None:
    assert nnc("compress", model, "--rule", "hidden=qp=-20,dq=0").exit_code == 0
    headers = units(nnc, model.with_suffix(".nnr"))
    assert headers["hidden.weight"]["dq_flag"] is False
    assert headers["conv2.weight"]["dq_flag"] is True


def test_a_rule_that_matches_nothing_is_mentioned(nnc: Nnc, model: Path) -> None:
    result = nnc("compress", model, "--rule", "hiden=qp=-20", "--rule", "conv=qp=-30", "--json")
    assert result.exit_code == 0
    assert result.stderr == "warning: the rule 'hiden' matches no tensor\n"
    assert "the rule 'hiden' matches no tensor" in json.loads(result.stdout)["warnings"]


@pytest.mark.parametrize("switch", ["--no-param-opt", "--no-row-skip"])
def test_switches_change_the_bitstream_but_not_the_weights(nnc: Nnc, model: Path, tmp_path: Path, switch: str) -> None:
    coded = []
    for options in ([], [switch]):
        target = tmp_path / f"{len(options)}.nnr"
        nnc("compress", model, "-o", target, "--qp", "-8", *options)  # coarse, so that there are rows of zeros
        coded.append(target.read_bytes())
    assert len(coded[0]) < len(coded[1])
    before, after = map(nnc_core.decode, coded)
    for name in before:  # a vector that coding does not make smaller is sent as it is
        np.testing.assert_allclose(after[name], before[name], rtol=0, atol=0 if before[name].ndim > 1 else 1e-5)


def test_decompress_derives_the_suffix_from_the_topology(nnc: Nnc, bitstream: Path, model: Path) -> None:
    result = nnc("decompress", bitstream)
    assert result.exit_code == 0
    restored = onnx.load(bitstream.with_suffix(".onnx"))
    assert restored.graph.node == onnx.load(model).graph.node


def test_decompress_reports_in_json(nnc: Nnc, bitstream: Path) -> None:
    report = json.loads(nnc("decompress", bitstream, "--json").stdout)
    assert report["target"] == str(bitstream.with_suffix(".onnx"))
    assert report["tensors"] > 0


def test_decompress_into_a_model_keeps_everything_else_of_it(nnc: Nnc, bitstream: Path, model: Path) -> None:
    base = onnx.load(model)
    base.doc_string = "mine"
    onnx.save(base, model)
    target = bitstream.with_name("merged.onnx")
    assert nnc("decompress", bitstream, "-o", target, "--into", model).exit_code == 0
    merged = onnx.load(target)
    assert merged.doc_string == "mine"
    assert merged.graph.initializer != base.graph.initializer


def test_inspect_accounts_for_every_byte_and_names_every_tensor(nnc: Nnc, bitstream: Path) -> None:
    described = json.loads(nnc("inspect", "--json", bitstream).stdout)
    assert described["bytes"] == bitstream.stat().st_size == sum(unit["size"] for unit in described["units"])
    assert described["units"][0]["type"] == "NNR_STR"
    tensors = nnc_core.decode(bitstream.read_bytes())
    assert described["tensors"].keys() == tensors.keys()
    assert all(described["tensors"][name]["shape"] == list(tensors[name].shape) for name in tensors)


def test_inspect_prints_a_line_for_each_unit(nnc: Nnc, bitstream: Path) -> None:
    with nnc_core.open(bitstream) as file:
        count, qp = len(file.units), file.tensors["hidden.weight"].qp
    output = nnc("inspect", bitstream).stdout
    assert len(output.splitlines()) == 2 + count
    (line,) = (line for line in output.splitlines() if "hidden.weight" in line)
    assert {"FLOAT", "dq", str(qp), "64x512"} <= set(line.split())


def test_the_trace_shows_elements_with_their_bits(nnc: Nnc, bitstream: Path) -> None:
    assert re.search(r" 24 +u\(8\) +general_profile_idc = 1  00000001\n", nnc("inspect", "--trace", bitstream).stdout)


def test_the_trace_in_json_has_the_same_elements(nnc: Nnc, bitstream: Path) -> None:
    described = json.loads(nnc("inspect", "--trace", "--json", bitstream).stdout)["units"]
    elements = sum(len(unit["elements"]) for unit in described)
    assert elements == len(re.findall(r"^ +\d+  [a-z]+\(", nnc("inspect", "--trace", bitstream).stdout, re.MULTILINE))


@pytest.mark.parametrize("suffix", [".zip", ".cat", ".safetensors"])
@pytest.mark.parametrize("carriage", [[], ["--per-tensor"]], ids=["whole", "per tensor"])
def test_bitstreams_in_containers_are_taken_like_plain_ones(
    nnc: Nnc, model: Path, bitstream: Path, suffix: str, carriage: list[str]
) -> None:
    container = bitstream.with_suffix(suffix)
    assert nnc("embed", bitstream, "-o", container, *carriage).exit_code == 0
    assert nnc("inspect", container).stdout == nnc("inspect", bitstream).stdout
    assert nnc("verify", model, container).exit_code == 0
    assert nnc("decompress", container).exit_code == 0
    restored = bitstream.with_suffix(".onnx").read_bytes()
    assert nnc("decompress", bitstream, "--force").exit_code == 0
    assert bitstream.with_suffix(".onnx").read_bytes() == restored


def test_an_optimizer_can_be_dropped(nnc: Nnc, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    network = torch.nn.Linear(64, 64)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(8, 64)).square().sum().backward()
    optimizer.step()
    checkpoint, target = tmp_path / "c.pt", tmp_path / "c.nnr"
    torch.save({"model": network.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint)
    assert nnc("compress", checkpoint).exit_code == 0
    kept = target.stat().st_size
    assert nnc("compress", checkpoint, "--drop-optimizer", "--force").exit_code == 0
    assert target.stat().st_size < kept / 2
    assert nnc("verify", checkpoint, target, "--drop-optimizer").exit_code == 0
    assert nnc("verify", checkpoint, target).exit_code == 1


def test_verify_accepts_what_compress_made(nnc: Nnc, model: Path, bitstream: Path) -> None:
    result = nnc("verify", model, bitstream, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert (found["accepted"], found["topology"]) == (True, "equal")
    assert all(math.isfinite(tensor["max_abs_error"]) for tensor in found["tensors"])
    assert all(tensor["sqnr_db"] > 20 for tensor in found["tensors"] if not tensor["exact"])


def test_verify_refuses_noise_that_is_more_than_allowed(nnc: Nnc, model: Path, bitstream: Path) -> None:
    result = nnc("verify", model, bitstream, "--min-sqnr", "200")
    assert result.exit_code == 1
    assert "less than 200 dB" in result.stdout


def test_verify_refuses_another_topology(nnc: Nnc, model: Path, bitstream: Path) -> None:
    other = onnx.load(model)
    other.graph.node[2].op_type = "Sigmoid"
    onnx.save(other, model)
    result = nnc("verify", model, bitstream)
    assert result.exit_code == 1
    assert "topology different" in result.stderr
