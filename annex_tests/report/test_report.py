"""What ``nnc report`` says of a bitstream."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnc_adapters
import nnc_core
from annex_tests.support.program import Nnc
from conformance.support import every_unit
from nnc_adapters import report as reports
from nnc_adapters.report.levels import histogram
from nnc_adapters.report.units import shared_out

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"
HOSTILE = (
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{script}}{{data}}",
    "a|b`c`[d](javascript:alert(1))",
    "\u202eevil\x1b[31m\n# heading",
    "\u2028line",
    "<!--<script>",
)


@pytest.fixture(scope="module")
def compressed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("compressed") / "digits.nnr"
    nnc_adapters.compress(DIGITS, target)
    return target


@pytest.fixture
def bitstream(tmp_path: Path, compressed: Path) -> Path:
    return Path(shutil.copy(compressed, tmp_path / "digits.nnr"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hostile") / "hostile.nnr"
    values = np.random.default_rng(1).normal(0, 1, (4, 4)).astype(np.float32)
    nnc_core.write(path, dict.fromkeys(HOSTILE, values))
    return path


def data_of(page: str) -> dict[str, Any]:
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert len(found) == 1
    data: dict[str, Any] = json.loads(found[0])
    return data


def test_every_byte_is_of_a_kind(compressed: Path) -> None:
    stream = reports.report(compressed).stream
    assert stream.bytes.total == compressed.stat().st_size
    assert min(stream.bytes) > 0
    assert stream.bytes.weights == sum(t.bytes.weights for t in stream.tensors)


EVERY_UNIT = dict(every_unit.bitstreams())


@pytest.mark.parametrize("name", EVERY_UNIT)
def test_bytes_add_up_whatever_units_there_are(name: str, tmp_path: Path) -> None:
    data = EVERY_UNIT[name]
    path = tmp_path / "each.nnr"
    path.write_bytes(data)
    stream = reports.report(path).stream
    assert stream.bytes.total == len(data)
    assert [unit.index for unit in stream.units] == list(range(len(stream.units)))
    assert len(data_of(reports.page(reports.report(path)))["units"]) == len(stream.units)


def test_names_are_counted_in_bytes_of_text_with_their_ends(tmp_path: Path) -> None:
    names = ("weight", "größer")
    path = tmp_path / "named.nnr"
    nnc_core.write(path, dict.fromkeys(names, np.eye(5, dtype=np.float32)))
    assert reports.report(path).stream.bytes.names == sum(len(name.encode()) + 1 for name in names)


def test_largest_worst_and_exact_are_those_of_verify(bitstream: Path) -> None:
    nnc_adapters.compress(
        DIGITS, bitstream, parameters=nnc_core.CodingParameters(rules=(nnc_core.Rule.parse("out=exact=1"),)), force=True
    )
    rules = (nnc_core.Rule.parse("out=exact=1"),)
    found = nnc_adapters.verify(DIGITS, bitstream, rules=rules)
    stream = reports.report(bitstream, DIGITS, rules=rules).stream
    assert stream.worst[0].name == found.worst
    assert (stream.sqnr_db, stream.topology) == (found.sqnr_db, "equal")
    assert [t.sqnr_db for t in stream.worst] == sorted(t.sqnr_db for t in found.tensors if not t.exact)[:5]
    assert {t.name for t in stream.exact["a rule"]} == {"out.weight"}
    with nnc_core.open(bitstream) as file:
        sizes = {name: info.size for name, info in file.tensors.items()}
    assert [t.name for t in stream.largest] == sorted(sizes, key=lambda name: -sizes[name])[:5]
    assert [t.bytes.total for t in stream.largest] == sorted(sizes.values(), reverse=True)[:5]


def test_what_is_exact_for_the_planner_alone_has_the_planners_reason(tmp_path: Path) -> None:
    scales = np.concatenate([np.geomspace(1e-30, 1e30, 40), -np.geomspace(1e-30, 1e30, 40)]).astype(np.float32)
    model, target = tmp_path / "model.safetensors", tmp_path / "model.nnr"
    save_safetensors(model, {"scales": scales})
    nnc_adapters.compress(model, target)
    plan = nnc_core.plan(nnc_core.SourceModel({"scales": scales}))
    assert plan.tensors["scales"].exact
    assert list(reports.report(target, model).stream.exact) == [plan.tensors["scales"].reason]


def save_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    header, data = {}, b""
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [len(data), len(data) + array.nbytes]}
        data += array.tobytes()
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_levels_are_counted_completely(compressed: Path) -> None:
    for tensor in reports.report(compressed).stream.tensors:
        levels = tensor.levels
        assert levels is not None
        assert sum(levels.counts) + levels.below + levels.above == tensor.elements
        assert len(levels.counts) <= 64


@given(st.lists(st.integers(-(1 << 30), 1 << 30) | st.integers(-3, 3), min_size=1, max_size=200))
def test_histograms_count_each_level_once(values: list[int]) -> None:
    found = histogram(np.array(values, np.int32))
    assert sum(found.counts) + found.below + found.above == len(values)
    assert found.zeros == values.count(0)
    inside = [value for value in values if 0 <= value - found.first < found.width * len(found.counts)]
    assert len(inside) == sum(found.counts)


def test_entropy_is_that_of_the_integers_that_are_coded() -> None:
    assert histogram(np.array([0, 1, 2, 3], np.int32)).entropy == 2
    assert histogram(np.array([0, 0, 1, 2], np.int32), dependent=True).entropy == 1
    assert histogram(np.zeros(9, np.int32)).entropy == 0


@given(st.tuples(*[st.integers(0, 1000)] * 4), st.lists(st.integers(1, 1000), min_size=1, max_size=9))
def test_bytes_of_a_block_are_shared_out_completely(whole: tuple[int, ...], elements: list[int]) -> None:
    shares = shared_out(reports.Bytes(*whole), elements)
    assert tuple(map(sum, zip(*shares, strict=True))) == whole
    assert min(min(share) for share in shares) >= 0


def test_the_units_have_their_elements_and_first_bytes(compressed: Path) -> None:
    page = data_of(reports.page(reports.report(compressed)))
    with nnc_core.open(compressed) as file:
        unit = next(unit for unit in file.units if "hidden.weight" in unit.names)
        traced = file.bitstream.trace(unit)
    *_, shape, values = page["units"][unit.index]
    flat = page["shapes"][shape]
    assert [page["words"][name] for name in flat[::4]] == [element.name for element in traced]
    assert list(zip(flat[2::4], flat[3::4], strict=True)) == [(e.bit_offset, len(e.bits)) for e in traced]
    assert values[1] == unit.size


def test_hostile_names_are_data_and_never_markup(hostile: Path) -> None:
    page = reports.page(reports.report(hostile))
    assert page.count("</script>") == 2
    assert not any(name in page for name in HOSTILE if "<" in name)
    shown = {tensor["name"] for tensor in data_of(page)["streams"][0]["tensors"]}
    assert HOSTILE[0] in shown
    assert HOSTILE[2] in shown
    assert all(name.isprintable() for name in shown)


def test_hostile_names_are_text_in_markdown(hostile: Path) -> None:
    text = reports.markdown(reports.report(hostile))
    assert "<" not in text
    assert not re.search(r"(?<!\\)[`\[\]]", text)
    assert "\n# heading" not in text
    assert "\x1b" not in text


def test_the_page_needs_nothing_else(compressed: Path) -> None:
    page = reports.page(reports.report(compressed, DIGITS))
    assert set(re.findall(r"https?://[^\"']*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"\b(?:src|href)=(?!\"(?:#|data:))", page)
    assert "default-src 'none'" in page
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", page)


def test_the_files_of_the_page_are_in_the_package() -> None:
    names = {file.name for file in files("nnc_adapters.report").joinpath("assets").iterdir()}
    assert {"page.html", "page.css", "main.js"} <= names


def test_a_page_is_written_beside_the_bitstream_once(nnc: Nnc, bitstream: Path) -> None:
    result = nnc("report", bitstream, DIGITS)
    assert result.exit_code == 0, result.stderr
    page = bitstream.with_suffix(".html").read_text(encoding="utf-8")
    assert data_of(page)["streams"][0]["label"] == "digits.nnr"
    assert nnc("report", bitstream).exit_code == 5
    assert nnc("report", bitstream, "-f").exit_code == 0


def test_the_suffix_of_the_output_says_the_form(nnc: Nnc, bitstream: Path, tmp_path: Path) -> None:
    for name, begins in (("r.html", "<!DOCTYPE html>"), ("r.md", "## digits.nnr"), ("r.json", "{")):
        assert nnc("report", bitstream, "-o", tmp_path / name).exit_code == 0
        assert (tmp_path / name).read_text(encoding="utf-8").startswith(begins)


def test_json_and_markdown_go_to_stdout_and_write_no_page(nnc: Nnc, bitstream: Path) -> None:
    found = json.loads(nnc("report", bitstream, DIGITS, "--json").stdout)
    stream = found["streams"][0]
    assert stream["largest"][0] == "hidden.weight"
    assert stream["lowest_sqnr"][0] == nnc_adapters.verify(DIGITS, bitstream).worst
    assert all(prod(t["shape"]) >= sum(t["levels"]["counts"]) > 0 for t in stream["tensors"])
    assert "| hidden.weight | 64x512 |" in nnc("report", bitstream, DIGITS, "--markdown").stdout
    assert not bitstream.with_suffix(".html").exists()
    assert nnc("report", bitstream, "--json", "--markdown").exit_code == 2


def test_a_page_goes_to_stdout_from_stdin() -> None:
    data = nnc_core.encode({"w": np.eye(3, dtype=np.float32)})
    command = [sys.executable, "-m", "nnc_adapters.cli", "report", "-", "-o", "-"]
    page = subprocess.run(command, input=data, capture_output=True, check=True).stdout
    assert data_of(page.decode())["streams"][0]["bytes"]


def test_streams_and_settings_are_put_side_by_side(nnc: Nnc, bitstream: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(bitstream, tmp_path / "other.nnr"))
    result = nnc(
        "report",
        bitstream,
        DIGITS,
        "--compare",
        other,
        "--compare",
        "level=1",
        "--compare",
        "bits-per-weight=3",
        "--json",
    )
    assert result.exit_code == 0, result.stderr
    streams = json.loads(result.stdout)["streams"]
    assert [stream["label"] for stream in streams] == ["digits.nnr", "other.nnr", "level=1", "bits-per-weight=3"]
    assert streams[0]["bytes"] == streams[1]["bytes"]
    assert streams[3]["bytes"]["total"] < streams[0]["bytes"]["total"]
    assert streams[3]["sqnr_db"] < streams[0]["sqnr_db"]
    assert all(not stream["units"] for stream in streams[1:])


@pytest.mark.parametrize(("setting", "told"), [("level=12", "1..9"), ("lavel=1", "lavel"), ("level=1", "ORIGINAL")])
def test_settings_that_cannot_be_used_are_usage_errors(nnc: Nnc, bitstream: Path, setting: str, told: str) -> None:
    result = nnc("report", bitstream, "--compare", setting)
    assert result.exit_code == 2
    assert told in result.stderr


def test_a_model_in_place_of_a_bitstream_is_named(nnc: Nnc, tmp_path: Path) -> None:
    result = nnc("report", DIGITS, "-o", tmp_path / "r.html")
    assert result.exit_code in (3, 5)
    assert "digits.onnx" in result.stderr
    assert not (tmp_path / "r.html").exists()


def test_three_thousand_tensors_make_a_small_page(tmp_path: Path) -> None:
    values = np.random.default_rng(2).normal(0, 1, (3, 4)).astype(np.float32)
    path = tmp_path / "many.nnr"
    nnc_core.write(path, {f"layers.{i // 6}.block.{i % 6}.weight": values for i in range(3000)}, qp=-20)
    page = reports.page(reports.report(path))
    assert len(page) < 3_000_000
    assert len(data_of(page)["streams"][0]["tensors"]) == 3000
