"""Packs a generated suite into one archive for people who write decoders; the same bytes for the same files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from conformance.negative.index import listed
from conformance.suite.files import Folder
from conformance.suite.rows import SUITE, Row

_HERE = Path(__file__).parent
_ROOT = _HERE.parents[1]


def pack(rows: list[Row], folder: Folder, target: Path) -> int:
    """Write the archive and return its size: bitstreams, expected values, refusals, a decoder, documents."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in _contents(rows, folder):
            entry = zipfile.ZipInfo(f"{target.stem}/{name}")  # without the time
            entry.compress_type = zipfile.ZIP_STORED if name.endswith((".nctm", ".npz")) else zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)
    return target.stat().st_size


def _contents(rows: list[Row], folder: Folder) -> Iterator[tuple[str, bytes]]:
    yield "README.md", (_HERE / "README.md").read_bytes()
    yield "suite.toml", SUITE.read_bytes()
    yield "bitstream.md", (_ROOT / "docs" / "bitstream.md").read_bytes()
    for path in sorted((_HERE.parent / "decoder").glob("*.py")):
        yield f"decoder/{path.name}", path.read_bytes()
    for row in rows:
        for name in row.files:
            yield f"streams/{name}", folder.stream(name).read_bytes()
            yield f"expected/{folder.expected(name).name}", folder.expected(name).read_bytes()
            if row.out_of_band:
                yield f"streams/{folder.out_of_band(name).name}", folder.out_of_band(name).read_bytes()
    for negative in listed():
        yield f"negative/{negative.rule}.nctm", negative.data
    rules = [{key: value for key, value in asdict(each).items() if key != "hex"} for each in listed()]
    yield "negative/index.json", (json.dumps(rules, indent=1) + "\n").encode()
