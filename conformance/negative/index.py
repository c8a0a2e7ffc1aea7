"""What a decoder must refuse: the list of negative bitstreams, kept in ``index.json`` as hexadecimal digits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nnc_core
from conformance.negative.streams import BREAKING, CONTEXTS
from nnc_core.bitstream.validate import violations
from nnc_core.errors import BitstreamError
from nnc_core.tables.rules import RULES

INDEX = Path(__file__).with_name("index.json")

_UNREAD = ("deflated-data", "pruning-size", "pruning-type", "pruning-dimensions")
"""Rules of what decoders of tensors need not look at."""


@dataclass(frozen=True)
class Negative:
    """A bitstream that breaks one rule.

    ``kind`` is the kind of error, ``optional`` says that a decoder may go on, ``beside`` is what comes out of band. A
    ``profile`` is held against by validators alone.
    """

    rule: str
    clause: str
    sentence: str
    example: str
    kind: str
    optional: bool
    profile: str
    beside: dict[str, dict[str, int]]
    hex: str

    @property
    def data(self) -> bytes:
        return bytes.fromhex(self.hex)


def made() -> Iterator[Negative]:
    """The list as it is made."""
    for name, data in BREAKING.items():
        rule, context = RULES[name], CONTEXTS.get(name, {})
        known = context["input_parameters"]("w") if "input_parameters" in context else None
        beside = {"w": {k: v for k, v in asdict(known).items() if v is not None}} if known else {}
        optional, kind = rule.lenient or name in _UNREAD, _kind(data, context)
        yield Negative(
            name,
            rule.clause,
            rule.sentence,
            rule.example,
            kind,
            optional,
            context.get("profile", ""),
            beside,
            data.hex(),
        )


def _kind(data: bytes, context: dict[str, Any]) -> str:
    """The kind of error that the rule's violation is, wherever it shows."""
    for violation in violations(data, **context):
        return type(violation).__name__
    try:
        nnc_core.decode(data)
    except BitstreamError as error:
        return type(error).__name__
    raise ValueError("a negative bitstream that breaks no rule")


def listed() -> list[Negative]:
    """The list as it is kept."""
    entries: list[dict[str, Any]] = json.loads(INDEX.read_text())
    return [Negative(**entry) for entry in entries]


def write() -> None:
    """Keep the list."""
    INDEX.write_text(json.dumps([asdict(each) for each in made()], indent=1) + "\n")
