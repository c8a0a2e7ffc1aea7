"""Writes the bitstreams of the suite, and what decoders must make of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from conformance.suite import incremental, whole
from conformance.suite.files import Folder, digest, save
from conformance.suite.rows import SUITE, Row, runs, updated
from conformance.suite.supplement import SUPPLEMENT
from conformance.suite.whole import Made

_MEANT = "if the encoder was meant to change, run 'python -m conformance generate --update'"


class Generated(NamedTuple):
    """The row as it has been written; ``problems`` says what is not as the description has it."""

    row: Row
    bytes: tuple[int, ...]
    sha256: tuple[str, ...]
    expected: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        pairs = zip(self.row.files, self.sha256, self.row.sha256 or [""] * 4, strict=False)
        found = [f"{name} has other bytes than in suite.toml; {_MEANT}" for name, is_, was in pairs if is_ != was]
        return found or [f"{self.row.id} has other expected values than in suite.toml; {_MEANT}"] * (
            self.expected != self.row.expected
        )


def generate(rows: Sequence[Row], folder: Folder, *, full_size: bool = False) -> Iterator[Generated]:
    """Write the files of the rows, one group after another."""
    folder.make()
    for group in runs(rows):
        made = _made(group, full_size)
        for row in group:
            yield _written(row, made[row.id], folder)


def _made(group: Sequence[Row], full_size: bool) -> Mapping[str, Sequence[Made]]:
    if group[0].table == 2:
        return incremental.encoded_sets(group)
    if group[0].table == 3:
        return {row.id: SUPPLEMENT[row.key]() for row in group}
    return {row.id: [whole.encoded(row, full_size=full_size)] for row in group}


def _written(row: Row, made: Sequence[Made], folder: Folder) -> Generated:
    for name, each in zip(row.files, made, strict=True):
        folder.stream(name).write_bytes(each.bitstream)
        save(folder.expected(name), each.expected)
        if row.out_of_band:
            folder.out_of_band(name).write_text(each.out_of_band + "\n")
    return Generated(
        row,
        tuple(len(each.bitstream) for each in made),
        tuple(hashlib.sha256(each.bitstream).hexdigest() for each in made),
        tuple(digest(each.expected) for each in made),
    )


def update_description(made: Sequence[Generated], path: Path = SUITE) -> None:
    """Let ``suite.toml`` say what the rows are now."""
    values = {each.row.id: (each.bytes, each.sha256, each.expected) for each in made}
    path.write_text(updated(path.read_text("utf-8"), values), "utf-8")
