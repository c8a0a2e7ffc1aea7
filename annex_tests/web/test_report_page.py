"""The page of ``nnc report`` in a real browser, in which nobody needs a mouse."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import nnc_adapters
import nnc_core
from annex_tests.support.browser import Browser
from conformance.bench import minilm
from nnc_adapters import report as reports

DIGITS = Path(__file__).parents[2] / "examples" / "digits.onnx"
HOSTILE = (
    "</script><script>window.hurt = 1</script>",
    '<b>"><img src=x onerror="window.hurt = 1">',
    "<svg/onload=window.hurt=1>",
)
RULES = (nnc_core.Rule.parse("out=exact=1"),)
WIDE, NARROW = (1280, 900), (360, 800)


def written(path: Path, report: reports.Report) -> Path:
    path.write_text(reports.page(report), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    paths = [folder / name for name in ("digits.nnr", "coarse.nnr", "fine.nnr")]
    for path, sqnr in zip(paths, (None, 25.0, 50.0), strict=True):
        parameters = nnc_core.CodingParameters(sqnr=sqnr, rules=RULES)
        nnc_adapters.compress(DIGITS, path, parameters=parameters)
    beside = {path.name: path for path in paths[1:]}
    return written(folder / "report.html", reports.report(paths[0], DIGITS, beside=beside, rules=RULES))


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 3,000 tensors."""
    folder = tmp_path_factory.mktemp("many")
    values = np.random.default_rng(2).normal(0, 1, (3, 4)).astype(np.float32)
    nnc_core.write(folder / "many.nnr", {f"layers.{i // 6}.part.{i % 6}.weight": values for i in range(3000)}, qp=-20)
    return written(folder / "many.html", reports.report(folder / "many.nnr"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_it_draws_without_errors_and_loads_nothing(
    page: Browser, digits: Path, size: tuple[int, int], scheme: str
) -> None:
    page.show(*size, scheme)
    page.visit(digits)
    assert page.errors == []
    assert {url for url in page.requests if not url.startswith("data:")} == {digits.as_uri()}
    assert page.run("document.documentElement.scrollWidth") <= size[0]
    assert page.ask("count", "main > section") == 8
    assert (page.run("luminance(getComputedStyle(document.body).backgroundColor)") < 0.1) == (scheme == "dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(page: Browser, digits: Path, scheme: str) -> None:
    """A contrast of 4.5 to 1, as accessibility guidelines ask for."""
    page.show(*WIDE, scheme)
    page.visit(digits)
    assert page.ask("faint") == []


def test_it_answers_by_itself(page: Browser, digits: Path) -> None:
    page.visit(digits)
    stream = reports.report(digits.with_name("digits.nnr"), DIGITS, rules=RULES).stream
    assert page.ask("texts", "#largest a") == [tensor.name for tensor in stream.largest]
    assert page.ask("texts", "#worst a") == [tensor.name for tensor in stream.worst]
    exact = page.ask("text", "#exact")
    assert stream.exact
    assert all(why in exact and t.name in exact for why, tensors in stream.exact.items() for t in tensors)
    assert f"{stream.bytes.total:,} bytes" in page.ask("text", "#summary")


def test_everything_that_can_be_pressed_has_a_name(page: Browser, digits: Path) -> None:
    page.visit(digits)
    assert page.ask("nameless") == []
    assert page.ask("unlabelled") == 0


def test_the_first_tab_skips_to_the_content(page: Browser, digits: Path) -> None:
    page.visit(digits)
    page.press("Tab")
    assert page.run("document.activeElement.textContent") == "Skip to the content"


def test_the_treemap_opens_and_closes_with_keys(page: Browser, digits: Path) -> None:
    page.show(*WIDE)
    page.visit(digits)
    trail = "nav[aria-label='Place in the treemap'] button"
    before = page.ask("count", ".tile")
    page.ask("focus", ".tile", "conv2")
    page.press("Enter")
    assert page.ask("texts", trail)[1].startswith("conv2")
    assert page.run("document.activeElement.className").startswith("tile")
    page.press("Escape")
    assert (page.ask("count", trail), page.ask("count", ".tile")) == (1, before)


def test_the_treemap_fills_its_place_with_all_bytes(page: Browser, digits: Path) -> None:
    page.visit(digits)
    assert page.ask("covered", 1000, 400) == pytest.approx([400_000, 1000, 400])
    assert page.run("byModule(first).bytes") == page.run("byKind(first).bytes") == page.run("sum(first.bytes)")


def test_the_treemap_draws_no_slivers_of_many_equal_tensors(page: Browser, many: Path) -> None:
    page.show(*WIDE)
    page.visit(many)
    assert len(page.ask("slivers", 4)) <= 1  # all but the tensors
    assert page.ask("count", ".tile") > 200


def test_a_unit_shows_its_elements_bits_and_bytes(page: Browser, digits: Path) -> None:
    page.visit(digits)
    page.ask("focus", "#bitstream [role=listbox]")
    page.press("ArrowDown", 3)
    path = digits.with_name("digits.nnr")
    with nnc_core.open(path) as file:
        unit = file.units[3]
        traced = file.bitstream.trace(unit)
    rows = page.ask("rows", "#bitstream")
    assert [row[2] for row in rows] == [element.name for element in traced]
    assert [row[0] for row in rows] == [str(element.bit_offset) for element in traced]
    assert [row[4] for row in rows if len(row[4]) <= 64] == [e.bits for e in traced if len(e.bits) <= 64]
    page.ask("focus", "#bitstream tbody tr")
    page.press("ArrowDown", 2)
    assert page.ask("texts", ".hex mark") == [f"{path.read_bytes()[unit.offset + 2]:02x}"]


def test_units_are_searched_and_filtered(page: Browser, many: Path) -> None:
    page.visit(many)
    assert page.ask("text", "#bitstream output") == "3,002 of 3,002 units"
    for words in ("layers.7.part.3", "mps_qp_density"):
        page.ask("type", "#bitstream input", words)
        assert page.ask("text", "#bitstream output") == "1 of 3,002 units"


def test_charts_are_walked_through_with_keys(page: Browser, digits: Path) -> None:
    page.visit(digits)
    page.ask("focus", "#rate svg")
    page.press("Home")
    told = page.ask("text", "#rate output")
    assert " bits per weight" in told
    page.press("Enter")
    assert told.startswith(page.run("document.querySelector('#levels input').value"))


def test_tensors_are_sorted_and_shown(page: Browser, digits: Path) -> None:
    page.visit(digits)
    page.ask("click", "#tensors th button", "bytes")
    assert page.ask("texts", "#tensors tbody a")[0] == "hidden.weight"
    assert page.ask("texts", "#tensors th[aria-sort=descending]") == ["bytes"]
    page.ask("click", "#tensors tbody a", "hidden.weight")
    assert page.run("document.querySelector('#levels input').value") == "hidden.weight"
    page.ask("click", "#levels button", "Unit")
    assert "hidden.weight" in page.ask("text", "#bitstream h3")


def test_streams_lie_on_a_curve(page: Browser, digits: Path) -> None:
    page.visit(digits)
    assert page.ask("count", "#compare circle.dot") == 3
    points = page.run("document.querySelector('#compare polyline').getAttribute('points')").split()
    places = [tuple(map(float, point.split(","))) for point in points]
    assert len(places) == 3
    assert all(before[0] < after[0] and before[1] > after[1] for before, after in pairwise(places))


def test_the_colours_can_be_changed(page: Browser, digits: Path) -> None:
    page.show(*WIDE)
    page.visit(digits)
    page.ask("click", "#theme", "Dark")
    assert page.run("document.documentElement.dataset.theme") == "dark"


def test_names_run_no_script(page: Browser, tmp_path: Path) -> None:
    path = tmp_path / "hostile.nnr"
    nnc_core.write(path, dict.fromkeys(HOSTILE, np.eye(4, dtype=np.float32)))
    page.visit(written(tmp_path / "hostile.html", reports.report(path)))
    for link in ("#largest a", "#tensors tbody a"):
        page.ask("click", link, "<")
    assert page.errors == []
    assert page.run("typeof window.hurt") == "undefined"
    assert set(page.ask("texts", "#tensors tbody a")) == set(HOSTILE)


def test_three_thousand_tensors_open_in_two_seconds(page: Browser, many: Path) -> None:
    assert opened(page, many) < 2
    assert page.errors == []
    assert "3,000 tensors" in page.ask("text", "#summary")


def test_the_report_of_minilm_opens_in_two_seconds_and_is_small(page: Browser, tmp_path: Path) -> None:
    weights = minilm.weights_file()
    if weights is None:
        pytest.skip("the weights of MiniLM are not installed (make bench does that)")
    path = tmp_path / "minilm.nnr"
    nnc_adapters.compress(weights, path, parameters=nnc_core.CodingParameters(level=1))
    html = written(path.with_suffix(".html"), reports.report(path, weights))
    assert html.stat().st_size < 3_000_000
    assert opened(page, html) < 2
    assert page.ask("texts", "#largest a")[0] == "embeddings.word_embeddings.weight"
    assert page.ask("count", "#worst li") == 5
    assert "embeddings.position_ids" in page.ask("text", "#exact")


def opened(page: Browser, path: Path) -> float:
    """How many seconds it takes a browser to show a page, at best: the machine may be busy."""

    def once() -> float:
        started = time.perf_counter()
        page.visit(path)
        return time.perf_counter() - started

    return min(once() for _ in range(3))
