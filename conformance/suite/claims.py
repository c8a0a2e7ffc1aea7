"""What a decoder claims to support, and whether that is everything mandatory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.suite.procedures import PASSED, Outcome
from conformance.suite.rows import PLATFORMS, Row, matches, selected, tomllib

_EDITIONS = {2022: (1,), 2024: (1, 2)}
"""The tables whose rows a decoder of an edition must pass."""


class ClaimError(Exception):
    """A claim file that cannot be understood."""


@dataclass(frozen=True)
class Claim:
    """A decoder's name, the edition and class of platforms that it is for, and what it does not support, with why.

    A decoder of the 2022 edition must pass the rows of whole models, one of the 2024 edition those of updates as well;
    on a platform of limited precision only the rows of its bit depth count (Part 18, 4.5.1).
    """

    decoder: str = ""
    edition: int = 2024
    platform: str = "full"
    unsupported: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Claim:
        """Read a claim file (TOML); `ClaimError` for anything else."""
        try:
            claim = cls(**tomllib.loads(path.read_text("utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise ClaimError(f"{path}: {error}") from None
        if claim.edition not in _EDITIONS or claim.platform not in PLATFORMS:
            raise ClaimError(f"{path}: edition is one of {list(_EDITIONS)}, platform one of {list(PLATFORMS)}")
        if not isinstance(claim.unsupported, Mapping):
            raise ClaimError(f"{path}: unsupported is a table of rows and reasons")
        return claim

    def mandatory(self, rows: Sequence[Row]) -> list[Row]:
        """The rows that a decoder with this claim must pass."""
        return [row for row in selected(rows, platform=self.platform) if row.table in _EDITIONS[self.edition]]

    def reason_against(self, row: Row) -> str | None:
        """Why a row is not supported, where the claim says so."""
        return next((why for pattern, why in self.unsupported.items() if matches(row, pattern)), None)


def missing(claim: Claim, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> list[Row]:
    """The mandatory rows that have not passed, or have not been run."""
    passed = {outcome.row.id for outcome in outcomes if outcome.status == PASSED}
    return [row for row in claim.mandatory(rows) if row.id not in passed]


def verdict(claim: Claim, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> str:
    """Whether everything mandatory is there, in words."""
    what, count = f"edition {claim.edition}, platform {claim.platform}", len(claim.mandatory(rows))
    absent, run = missing(claim, rows, outcomes), {outcome.row.id for outcome in outcomes}
    if not absent:
        return f"conforms ({what}): all {count} mandatory rows passed"
    failed = [row.name for row in absent if row.id in run]
    if failed:
        return f"does not conform ({what}): of {count} mandatory rows not passed: {', '.join(failed)}"
    return f"not shown to conform ({what}): of {count} mandatory rows {len(absent)} have not been run"


def described(claim: Claim, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The verdict for programs."""
    absent = [row.name for row in missing(claim, rows, outcomes)]
    fields = {name: getattr(claim, name) for name in ("decoder", "edition", "platform")}
    return {**fields, "unsupported": dict(claim.unsupported), "conforms": not absent, "missing": absent}
