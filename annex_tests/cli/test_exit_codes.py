"""Exit codes are stable, errors are one clear line, and nothing is overwritten unasked."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from click.testing import Result

from annex_tests.support.program import Nnc
from nnc_core.bitstream import BitstreamWriter
from nnc_core.nnr_model import Topology
from nnc_core.syntax import ModelParameterSet
from nnc_core.tables.code_points import TopologyStorageFormat


def assert_fails(result: Result, code: int, *words: str) -> None:
    """The program ended with ``code`` and one line that has ``words``."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in words), result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["compress"],
        ["compress", "in.onnx", "--no-such-option"],
        ["compress", "in.onnx", "--rule", "no rule"],
        ["compress", "in.onnx", "--rule", "w=qp=100000"],
        ["compress", "in.onnx", "--nonweight-qp", "200"],
        ["compress", ""],
        ["compress", "-"],
        ["convert", "in.onnx", "-", "--into", "in.onnx"],
        ["verify", "-", "in.nnr"],
        ["embed", "in.nnr", "-o", "-"],
        ["embed", "in.nnr", "-o", "x", "--container", "no-such"],
        ["extract", "in.zip", "-o", "-", "--json"],
        ["compress", "in.onnx", "--profile", "1999"],
        ["compress", "in.onnx", "--qp-density", "99"],
        ["compress", "in.onnx", "--threads", "0"],
        ["compress", "in.onnx", "-o", "-", "--json"],
        ["decompress", "-"],
        ["inspect", "in.nnr", "--limit", "no_such_limit=1"],
        ["inspect", "in.nnr", "--limit", "units=many"],
        ["no-such-command"],
    ],
)
def test_wrong_usage_is_2(nnc: Nnc, arguments: list[str]) -> None:
    result = nnc(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Usage: nnc")


def test_a_usage_error_names_the_option(nnc: Nnc) -> None:
    assert "nonweight_qp is 200, expected -128..127" in nnc("compress", "in.onnx", "--nonweight-qp", "200").stderr
    assert "rule 'w': qp is 200" in nnc("compress", "in.onnx", "--rule", "w=qp=200").stderr


def test_whether_a_file_can_be_read_is_not_a_question_of_usage(
    nnc: Nnc, bitstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    assert nnc("inspect", bitstream).exit_code == 0


def test_a_truncated_bitstream_is_3(nnc: Nnc, model: Path, bitstream: Path) -> None:
    bitstream.write_bytes(bitstream.read_bytes()[:-1])
    for arguments in (["verify", model, bitstream], ["decompress", bitstream, "-o", "x"]):
        assert_fails(nnc(*arguments), 3, f"{bitstream}: unit")
    shown = nnc("inspect", bitstream)
    assert shown.exit_code == 3
    assert f"{bitstream}: unit" in shown.stderr


def test_an_empty_file_is_3(nnc: Nnc, tmp_path: Path) -> None:
    (tmp_path / "empty.nnr").touch()
    assert_fails(nnc("inspect", tmp_path / "empty.nnr"), 3)


def test_a_damaged_payload_is_3_and_leaves_no_output(nnc: Nnc, bitstream: Path) -> None:
    data = bytearray(bitstream.read_bytes())
    data[-3:] = b"\xff\xff\xff"
    bitstream.write_bytes(data)
    assert_fails(nnc("decompress", bitstream), 3)
    assert list(bitstream.parent.iterdir()) == [bitstream]


def test_a_topology_that_no_adapter_knows_is_4(nnc: Nnc, tmp_path: Path) -> None:
    path = tmp_path / "strange.nnr"
    with path.open("wb") as stream:
        BitstreamWriter(stream, ModelParameterSet()).topology(Topology(TopologyStorageFormat.NNR_TPL_UNREC, b"?"))
    assert_fails(nnc("decompress", path), 4, "topology_storage_format 0")


@pytest.mark.parametrize("command", ["compress", "decompress", "inspect"])
def test_a_missing_file_is_5(nnc: Nnc, command: str, tmp_path: Path) -> None:
    assert_fails(nnc(command, tmp_path / "absent.onnx", *(["-o", tmp_path / "o"] if command != "inspect" else [])), 5)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_no_known_format_is_5(nnc: Nnc, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("no model")
    assert_fails(nnc("compress", path), 5, str(path))


def test_a_bitstream_in_place_of_a_model_is_5(nnc: Nnc, bitstream: Path) -> None:
    assert_fails(nnc("compress", bitstream, "-o", "x"), 5, str(bitstream), "is an NNR bitstream")


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_the_input_is_not_overwritten_even_by_force(nnc: Nnc, command: str, model: Path, bitstream: Path) -> None:
    source = model if command == "compress" else bitstream
    before = source.read_bytes()
    assert_fails(nnc(command, source, "-o", source, "--force"), 5, str(source), "input and output")
    assert source.read_bytes() == before


def test_a_damaged_model_is_5(nnc: Nnc, model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-1000])
    assert_fails(nnc("compress", model), 5, str(model))


def test_a_bitstream_without_topology_needs_a_model_and_is_5(nnc: Nnc, tmp_path: Path) -> None:
    path = tmp_path / "bare.nnr"
    with path.open("wb") as stream:
        BitstreamWriter(stream, ModelParameterSet())
    assert_fails(nnc("decompress", path), 5, "topology")


@pytest.mark.parametrize("limit", ["units=3", "tensor_elements=100", "topology_bytes=10"])
def test_an_exceeded_limit_is_6(nnc: Nnc, bitstream: Path, limit: str) -> None:
    name = limit.split("=")[0]
    assert_fails(nnc("decompress", bitstream, "--limit", limit), 6, f"{bitstream}: ", f"--limit {name}=N raises it")


def test_a_model_that_could_not_be_decompressed_is_6(nnc: Nnc, model: Path) -> None:
    assert_fails(nnc("compress", model, "--limit", "tensor_elements=100"), 6, str(model), "tensor_elements")


def test_a_missing_package_is_7(nnc: Nnc, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert_fails(nnc("compress", model), 7, "nnc-suite[onnx]")


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_an_existing_file_is_replaced_only_by_force(nnc: Nnc, command: str, model: Path, bitstream: Path) -> None:
    source = model if command == "compress" else bitstream
    target = source.with_name("target")
    target.write_text("mine")
    assert_fails(nnc(command, source, "-o", target), 5, str(target), "exists")
    assert target.read_text() == "mine"
    assert nnc(command, source, "-o", target, "--force").exit_code == 0
    assert target.read_bytes() != b"mine"


def test_control_characters_of_a_name_do_not_reach_the_terminal(nnc: Nnc, tmp_path: Path) -> None:
    assert_fails(nnc("compress", tmp_path / "a\x1b[2Jb.onnx"), 5, r"a\x1b[2Jb")
