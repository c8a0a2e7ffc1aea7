"""The decoder in WebAssembly in a real browser, and its demo page, which shows what ``nnc report`` shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import nnc_adapters
import nnc_core
from annex_tests.support.browser import Browser
from nnc_adapters import report as reports

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "nnc_core" / "wasm" / "dist" / "demo.html"
FIXTURES = ROOT / "conformance" / "fixtures"

pytestmark = pytest.mark.skipif(not PAGE.is_file(), reason="the page is not built (make wasm)")

DECODE = """(async () => {
    const { decode, decodeStream, Workers } = await import("/nnc_core/wasm/dist/index.js");
    const hex = (bytes) => Array.from(new Uint8Array(bytes), (octet) => octet.toString(16).padStart(2, "0")).join("");
    const digest = async ({ shape, data }) => [shape, hex(await crypto.subtle.digest("SHA-256", data))];
    const workers = new Workers(2);
    const found = {};
    for (const name of NAMES) {
        const path = `/conformance/fixtures/${name}`;
        const [all, streamed] = [await decode(fetch(path), { workers }), {}];
        for await (const tensor of decodeStream(await fetch(path))) streamed[tensor.name] = await digest(tensor);
        found[name] = {};
        for (const tensor of all.values()) found[name][tensor.name] = await digest(tensor);
        if (JSON.stringify(found[name]) !== JSON.stringify(streamed)) throw new Error(name);
    }
    workers.close();
    return found;
})()"""
DATA = "document.getElementById('report').contentDocument?.getElementById('data')?.textContent"
READY = f"""new Promise((done) => {{
    const look = () => (document.getElementById('status').className || {DATA} ? done(true) : setTimeout(look, 20));
    setTimeout(look, 20);
}})"""


def dropped(page: Browser, path: Path) -> None:
    """Give the page a file, and wait until it shows something."""
    page.visit(PAGE)
    found = page.send("Runtime.evaluate", expression="document.getElementById('file')")["result"]["objectId"]
    page.send("DOM.setFileInputFiles", files=[str(path)], objectId=found)
    page.run(READY)


def shown(page: Browser, path: Path) -> Any:
    """The data of the report that the page shows of a file."""
    dropped(page, path)
    assert page.run("document.getElementById('status').className") == "", page.ask("text", "#status")
    return json.loads(page.run(DATA))


def expected(path: Path) -> Any:
    """The data of the report that ``nnc report`` shows of a file."""
    text = reports.page(reports.report(path))
    return json.loads(text.partition('id="data">')[2].partition("</script>")[0])


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing of what is requested."""


@pytest.fixture
def server() -> Iterator[str]:
    """The address of the project's files."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(ROOT))) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def digest(array: NDArray[Any]) -> list[Any]:
    return [list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]


def test_wasm_decodes_downloads_in_workers_and_without(page: Browser, server: str) -> None:
    page.send("Page.navigate", url=f"{server}/conformance/fixtures/")
    page.wait_for("Page.loadEventFired")
    names = sorted(path.name for path in FIXTURES.glob("*.nnr"))
    found = page.run(DECODE.replace("NAMES", json.dumps(names)))
    for name in names:
        decoded = nnc_core.decode((FIXTURES / name).read_bytes())
        assert found[name] == {tensor: digest(array) for tensor, array in decoded.items()}


def bitstreams(folder: Path) -> Iterator[Path]:
    yield from sorted(FIXTURES.glob("*.nnr"))
    digits = folder / "digits.nnr"
    nnc_adapters.compress(ROOT / "examples" / "digits.onnx", digits)
    yield digits
    many = folder / "many.nnr"
    values = np.random.default_rng(2).normal(0, 1, (3, 4)).astype(np.float32)
    nnc_core.write(many, {f"layers.{i}.weight\u200b": values for i in range(300)}, qp=-20)
    yield many


def test_wasm_shows_the_report_of_a_dropped_file(page: Browser, tmp_path: Path) -> None:
    for path in bitstreams(tmp_path):
        assert shown(page, path) == expected(path), path.name
        assert page.errors == []
        assert {url for url in page.requests if url.startswith(("http", "file"))} == {PAGE.as_uri()}
        frame = "document.getElementById('report').contentDocument"
        assert page.run(f"{frame}.title") == f"NNC report: {path.name}"
        assert page.run(f"{frame}.querySelectorAll('main > section').length") > 5


def test_wasm_says_what_is_wrong_with_a_damaged_file(page: Browser, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.nnr"
    damaged.write_bytes((FIXTURES / "types.nnr").read_bytes()[:-5])
    dropped(page, damaged)
    assert "damaged.nnr: unit " in page.ask("text", "#status")
    assert shown(page, FIXTURES / "types.nnr") == expected(FIXTURES / "types.nnr")


def test_wasm_runs_no_script_in_names(page: Browser, tmp_path: Path) -> None:
    path = tmp_path / "hostile.nnr"
    name = "</script><script>parent.hurt = 1</script><img src=x onerror='parent.hurt = 1'>"
    nnc_core.write(path, {name: np.eye(4, dtype=np.float32)})
    assert shown(page, path)["streams"][0]["tensors"][0]["name"] == name
    assert page.run("typeof window.hurt") == "undefined"
    assert page.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_wasm_page_can_be_read(page: Browser, scheme: str) -> None:
    page.show(1280, 900, scheme)
    page.visit(PAGE)
    assert page.ask("faint") == []
    assert page.ask("nameless") == []
