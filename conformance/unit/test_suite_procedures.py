"""The procedures of the conformance suite: what passes, what fails and where, what is said of it."""

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from conformance.negative.index import INDEX, Negative, listed, made
from conformance.suite import procedures, reports
from conformance.suite.claims import Claim, ClaimError, missing, verdict
from conformance.suite.cli import main
from conformance.suite.decoders import Command, Native, Plain, RefusedError, UnsupportedError
from conformance.suite.files import Folder, load
from conformance.suite.generate import Generated, generate
from conformance.suite.pack import pack
from conformance.suite.procedures import Outcome, first_difference, outcomes_of, refusals
from conformance.suite.rows import all_rows, selected
from conformance.support.peer_codec import ROOT
from nnc_core.tables.rules import RULES

ROWS = {row.name: row for row in all_rows()}
Suite = tuple[Folder, list[Generated]]


class Stub:
    """A decoder that returns what ``answer`` makes of the expected arrays, or raises."""

    name = "stub"

    def __init__(self, folder: Folder, answer: Any) -> None:
        self.folder, self.answer = folder, answer

    @contextmanager
    def session(self, row: Any) -> Iterator[Any]:
        yield self

    def decode(self, stream: Path, out_of_band: Path | None) -> Any:
        return self.answer(load(self.folder.expected(stream.name)))


def outcome(suite: Suite, answer: Any, row: str = "1.23") -> Outcome:
    (found,) = outcomes_of(Stub(suite[0], answer), [ROWS[row]], suite[0])
    return found


def changed(name: str, position: tuple[int, ...], by: float) -> Any:
    def answer(arrays: dict[str, Any]) -> dict[str, Any]:
        arrays[name][position] += by
        return arrays

    return answer


# --- comparing --------------------------------------------------------------------------------------------------------


def test_floats_within_a_millionth_pass(quick_suite: Suite) -> None:
    assert outcome(quick_suite, changed("fc1.weight", (2, 3), 9e-7)).status == "passed"


def test_the_first_float_that_differs_by_more_is_named_with_its_position(quick_suite: Suite) -> None:
    found = outcome(quick_suite, changed("fc1.weight", (2, 3), 1.2e-6))
    assert (found.status, found.tensor, found.position) == ("failed", "fc1.weight", (2, 3))
    assert found.message.startswith("fc1.weight[2, 3] is ")


@pytest.mark.parametrize(
    ("expected", "found", "reason"),
    [
        ({"w": np.array([1, 2])}, {"w": np.array([1, 3])}, "is 3, expected 2"),
        ({"w": np.array([1.0])}, {"w": np.array([1])}, "has int64 values, expected float64"),
        ({"w": np.zeros((2, 3))}, {"w": np.zeros((3, 2))}, r"has shape \(3, 2\), expected \(2, 3\)"),
        ({"w": np.zeros(2)}, {}, "is missing"),
        ({}, {"w": np.zeros(2)}, "is not in the bitstream"),
        ({"w": np.array([np.nan])}, {"w": np.array([0.0])}, "is 0.0, expected nan"),
    ],
)
def test_a_difference_is_told(expected: Any, found: Any, reason: str) -> None:
    difference = first_difference(expected, found)
    assert difference is not None
    assert re.fullmatch(reason, difference.reason)


def test_infinities_and_what_is_not_a_number_are_equal_to_themselves() -> None:
    values = {"w": np.array([np.nan, np.inf, -np.inf], np.float32)}
    assert first_difference(values, dict(values)) is None


def test_what_a_bitstream_says_of_the_model_counts_if_the_decoder_returns_it(quick_suite: Suite) -> None:
    tensors = outcome(quick_suite, lambda a: {n: v for n, v in a.items() if "/" not in n}, "1.2")
    assert (tensors.status, tensors.described) == ("passed", False)
    ratios = "model_info/performance_maps/pruning/pruning_ratio"
    assert outcome(quick_suite, changed(ratios, (1,), 0.5), "1.2").tensor == ratios


def test_what_a_decoder_does_not_support_is_not_failed(quick_suite: Suite) -> None:
    def answer(arrays: Any) -> Any:
        raise UnsupportedError("blocks")

    assert outcome(quick_suite, answer).status == "unsupported"


def test_a_refusal_of_a_good_bitstream_fails(quick_suite: Suite) -> None:
    def answer(arrays: Any) -> Any:
        raise RefusedError("no")

    assert outcome(quick_suite, answer).status == "failed"


# --- commands ---------------------------------------------------------------------------------------------------------


def run(folder: Folder, script: str, tmp_path: Path, row: str = "2.5") -> Outcome:
    (tmp_path / "decoder.py").write_text(script)
    command = Command(f"{shlex.quote(sys.executable)} {tmp_path / 'decoder.py'}", timeout=20)
    (found,) = outcomes_of(command, [ROWS[row]], folder)
    return found


def test_a_command_gets_bitstream_target_and_a_folder_for_its_state(quick_suite: Suite, tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
stream, target, option, state = sys.argv[1:]
assert option == "--state"
(Path(state) / Path(stream).name).touch()
print(len(list(Path(state).iterdir())), file=sys.stderr)
sys.exit(4)
"""
    found = run(quick_suite[0], script, tmp_path)
    assert (found.status, found.reason) == ("unsupported", "1")


def test_a_command_gets_the_parameters_that_are_sent_out_of_band(quick_suite: Suite, tmp_path: Path) -> None:
    script = "import json, sys; print(len(json.load(open(sys.argv[4]))), file=sys.stderr); sys.exit(4)"
    assert int(run(quick_suite[0], script, tmp_path, "1.25").reason) == 162


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; sys.exit('broken')", "broken"),
        ("", "wrote no .npz file"),
        ("import sys; open(sys.argv[2], 'w').write('no')", "wrote no .npz file"),
        ("import os; os.kill(os.getpid(), 11)", "exit code -11"),
    ],
)
def test_a_command_that_fails_or_writes_nothing_fails(
    script: str, reason: str, quick_suite: Suite, tmp_path: Path
) -> None:
    found = run(quick_suite[0], script, tmp_path)
    assert found.status == "failed"
    assert reason in found.reason


def test_a_command_that_does_not_end_fails(quick_suite: Suite) -> None:
    (found,) = outcomes_of(
        Command(f"{shlex.quote(sys.executable)} -c 'import time; time.sleep(30)'", timeout=0.2),
        [ROWS["1.15"]],
        quick_suite[0],
    )
    assert "did not end within 0.2 s" in found.reason


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_the_list_of_negative_bitstreams_is_kept_as_it_is_made() -> None:
    assert listed() == list(made())
    assert {each.rule for each in listed()} == set(RULES)
    assert INDEX.stat().st_size < 100_000


@pytest.mark.parametrize("decoder", [Native(), Plain()], ids=lambda decoder: decoder.name)
def test_our_decoders_refuse_what_breaks_a_rule(decoder: Any, tmp_path: Path) -> None:
    found = list(refusals(decoder, tmp_path))
    assert [each.negative.rule for each in found if each.status != "passed"] == []
    assert len(found) == len(RULES) - 2  # two profiles are for validators


def test_a_decoder_that_takes_everything_is_caught(tmp_path: Path) -> None:
    class Credulous(Stub):
        def decode(self, stream: Path, out_of_band: Path | None) -> Any:
            return {}

    found = list(refusals(Credulous(Folder(tmp_path), None), tmp_path))
    assert all((each.status == "passed") == each.negative.optional for each in found)
    assert sum(not each.negative.optional for each in found) > 40


def test_a_crash_is_not_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procedures, "listed", lambda: listed()[:3])
    found = list(refusals(Command(f"{shlex.quote(sys.executable)} -c 'raise SystemExit(1)'"), tmp_path))
    assert {each.status for each in found} == {"failed"}


def test_a_negative_bitstream_knows_its_kind_of_error() -> None:
    kinds = {each.rule: each.kind for each in listed()}
    assert (kinds["truncated"], kinds["codeword"], kinds["tensor-once"]) == (
        "TruncatedError",
        "PayloadError",
        "UnitOrderError",
    )
    assert isinstance(listed()[0], Negative)


# --- claims -----------------------------------------------------------------------------------------------------------


def passing(*without: str) -> list[Outcome]:
    return [Outcome(row) for row in all_rows() if row.name not in without]


def test_a_decoder_conforms_if_all_mandatory_rows_pass() -> None:
    assert "conforms" in verdict(Claim(), all_rows(), passing())
    assert verdict(Claim(), all_rows(), passing("1.7")).startswith("not shown to conform")
    failed = [*passing("1.7"), Outcome(ROWS["1.7"], "failed", "is missing")]
    assert verdict(Claim(), all_rows(), failed).endswith("rows not passed: 1.7")


def test_a_decoder_of_2022_needs_no_updates_and_one_of_4_bits_only_those_rows() -> None:
    updates = [row.name for row in all_rows() if row.table == 2]
    assert missing(Claim(edition=2022), all_rows(), passing(*updates)) == []
    others = [row.name for row in all_rows() if row.bits != 4]
    assert missing(Claim(platform="4bit"), all_rows(), passing(*others)) == []
    assert [row.name for row in missing(Claim(platform="4bit"), all_rows(), passing("1.28"))] == ["1.28"]


def test_a_claim_is_read_from_a_file(tmp_path: Path, quick_suite: Suite) -> None:
    (path := tmp_path / "claim.toml").write_text(
        'decoder = "mine"\nedition = 2022\n[unsupported]\n"1.5" = "no pruning"\npartial_data_counter = "no parts"\n'
    )
    claim = Claim.load(path)
    rows = [ROWS[name] for name in ("1.5", "1.15", "1.8")]
    found = list(outcomes_of(Native(), rows, quick_suite[0], reason_against=claim.reason_against))
    assert [(each.status, each.reason) for each in found] == [
        ("unsupported", "no pruning"),
        ("unsupported", "no parts"),
        ("passed", ""),
    ]


@pytest.mark.parametrize("text", ["edition = 2023", "platform = '16bit'", "decoders = 'x'", "[", "unsupported = 'all'"])
def test_a_claim_that_cannot_be_understood_is_refused(text: str, tmp_path: Path) -> None:
    (path := tmp_path / "claim.toml").write_text(text)
    with pytest.raises(ClaimError, match=r"claim\.toml"):
        Claim.load(path)


# --- reports ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def three() -> list[Outcome]:
    failed = Outcome(ROWS["2.5"], "failed", "is <1>, expected 2", ROWS["2.5"].files[1], "a&b", (0, 1))
    return [Outcome(ROWS["1.1"]), failed, Outcome(ROWS["1.2"], "unsupported", "no maps\x1b")]


def test_the_json_says_everything(three: list[Outcome]) -> None:
    found = json.loads(json.dumps(reports.as_dictionary(three, "mine", Claim(), all_rows())))
    assert found["summary"] == {"passed": 1, "failed": 1, "unsupported": 1}
    assert found["rows"][1]["tensor"] == "a&b"
    assert found["rows"][1]["position"] == [0, 1]
    assert found["claim"]["conforms"] is False


def test_the_junit_file_is_xml_with_a_case_for_each_row(three: list[Outcome]) -> None:
    suite = ElementTree.fromstring(reports.junit(three, "mine"))
    assert dict(suite.attrib)["failures"] == "1"
    kinds = [[child.tag for child in case] for case in suite]
    assert kinds == [[], ["failure"], ["skipped"]]
    assert "a&b[0, 1] is <1>" in suite[1][0].attrib["message"]


def test_the_page_has_a_row_for_each_row_and_escapes_what_decoders_say(three: list[Outcome]) -> None:
    page = reports.html(three, "<mine>", Claim(), all_rows())
    assert page.count("<tr><td>") == 3
    assert "&lt;mine&gt;" in page
    assert "is &lt;1&gt;, expected 2" in page
    assert "<mine>" not in page


# --- the command line -------------------------------------------------------------------------------------------------


def test_list_has_the_configuration_of_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "1.12", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["configuration"]["max_ndu_nnr_unit_size"] == 32768
    assert main(["list", "--platform", "8bit"]) == 0
    assert "9 rows" in capsys.readouterr().out


def test_run_writes_all_reports(quick_suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, xml = tmp_path / "report.html", tmp_path / "report.xml"
    arguments = ["run", "1.15", "1.5", "--suite", str(quick_suite[0].path), "--json"]
    assert main([*arguments, "--html", str(page), "--junit", str(xml)]) == 0
    assert json.loads(capsys.readouterr().out)["summary"]["passed"] == 2
    assert "passed" in page.read_text()
    assert xml.read_text().startswith("<?xml")


def test_run_says_what_to_do_without_a_suite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "1.1", "--suite", str(tmp_path)]) == 2
    assert "generate" in capsys.readouterr().err


def test_a_claim_that_does_not_hold_is_a_negative_finding(quick_suite: Suite, tmp_path: Path) -> None:
    (claim := tmp_path / "claim.toml").write_text("edition = 2022")
    arguments = ["run", "1.15", "--suite", str(quick_suite[0].path)]
    assert main([*arguments, "--claim", str(claim)]) == 1
    assert main(arguments) == 0


def test_run_negative_reports_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--negative", "--decoder", "plain", "--suite", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["negative"]
    assert len(found) == len(RULES) - 2


def test_verify_tells_conforming_bitstreams_from_others(
    quick_suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = quick_suite[0].stream(ROWS["1.25"].id)
    (bad := tmp_path / "bad.nnr").write_bytes(bytes.fromhex(listed()[0].hex))
    assert main(["verify", str(good)]) == 0
    assert "conforms, 162 tensors" in capsys.readouterr().out
    assert main(["verify", str(good), str(bad), "--json"]) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert (first["conforms"], second["conforms"]) == (True, False)
    assert "truncated" in second["problems"][0]


def test_verify_takes_updates_in_their_order(quick_suite: Suite, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(quick_suite[0].stream(name)) for name in ROWS["2.24"].files]
    assert main(["verify", "--updates", *files]) == 0
    assert main(["verify", "--updates", *files[:1], *files[3:]]) == 1
    assert "does not conform" in capsys.readouterr().out


def test_selected_rows_can_be_named_by_number_or_part_of_an_id() -> None:
    assert [row.name for row in selected(all_rows(), ["1.5", "local_scaling"])] == ["1.5", "1.23"]


def test_a_newcomer_tests_a_decoder_with_the_three_lines_of_the_guide(tmp_path: Path) -> None:
    section = (ROOT / "docs" / "conformance.md").read_text().partition("\n## Test a decoder")[2].partition("\n## ")[0]
    lines = re.findall(r"^python -m conformance .+$", section, re.MULTILINE)
    assert len(lines) == 3
    (tmp_path / "conformance").symlink_to(ROOT / "conformance")
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for line in lines:
        done = subprocess.run(
            line, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    small = [row for row in selected(all_rows(), small=True) if row.table == 1]
    assert f"{len(small)} rows: {len(small)} passed, 0 failed, 0 unsupported" in done.stdout
    assert (tmp_path / "report.html").read_text().count('class="passed"') == len(small)


def test_the_archive_has_what_implementers_need_and_depends_on_nothing_else(tmp_path: Path, quick_suite: Suite) -> None:
    rows = [ROWS["1.25"], ROWS["2.5"]]
    first, second = tmp_path / "suite.zip", tmp_path / "again" / "suite.zip"
    sizes = {pack(rows, quick_suite[0], first), pack(rows, quick_suite[0], second)}
    assert first.read_bytes() == second.read_bytes()
    assert sizes == {first.stat().st_size}
    names = {name.removeprefix("suite/") for name in zipfile.ZipFile(first).namelist()}
    assert {"README.md", "suite.toml", "bitstream.md", "decoder/__main__.py", "negative/index.json"} <= names
    assert {f"streams/{name}" for row in rows for name in row.files} <= names
    assert f"streams/{ROWS['1.25'].id.removesuffix('.nctm')}_oob.json" in names
    assert f"expected/{ROWS['1.25'].id.removesuffix('.nctm')}.npz" in names


def test_a_row_that_is_made_differently_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "1.5", "--suite", str(tmp_path)]) == 0
    (made,) = generate([replace(ROWS["1.5"], sha256=("0" * 64,))], Folder(tmp_path))
    (problem,) = made.problems
    assert problem.startswith(f"{ROWS['1.5'].id} has other bytes than in suite.toml")
    assert "1 rows" in capsys.readouterr().err
