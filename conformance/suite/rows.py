"""The rows of the suite, as ``suite.toml`` describes them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SUITE = Path(__file__).with_name("suite.toml")
PLATFORMS = {"full": None, "8bit": 8, "4bit": 4}
"""The classes of platforms of Part 18, 4.5.1, and the bit depth of the rows that those of limited precision decode."""
_SMALL = 40_000


@dataclass(frozen=True)
class Row:
    """A row of a conformance table: one bitstream, or four that build on each other."""

    table: int
    number: int
    id: str
    model: str
    clause: str
    feature: str
    configuration: Mapping[str, Any]
    run: str = ""
    party: str = ""
    bits: int | None = None
    bytes: tuple[int, ...] = ()
    sha256: tuple[str, ...] = ()
    expected: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the row is called for short."""
        return f"{self.table}.{self.number}"

    @property
    def key(self) -> str:
        """What a row beyond the tables is called in the code that makes it."""
        return self.id.removeprefix("supplement_").removesuffix(".nctm").removesuffix("_#")

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the bitstreams, in the order in which they are decoded."""
        if "#" not in self.id:
            return (self.id,)
        return tuple(self.id.replace("#", str(number)) for number in range(4))

    @property
    def small(self) -> bool:
        """Whether all decoders get through the row within seconds."""
        return sum(self.bytes) <= _SMALL

    @property
    def out_of_band(self) -> bool:
        """Whether parameters come beside the bitstream, in a JSON file."""
        return bool(self.configuration.get("oob_signaling"))

    @property
    def profile(self) -> int:
        """The ``general_profile_idc`` of the bitstreams."""
        return int(self.configuration["general_profile_idc"])

    def described(self) -> dict[str, Any]:
        """The row for programs."""
        fields = ("table", "number", "id", "model", "clause", "feature", "bits", "bytes", "sha256", "expected")
        return {**{name: getattr(self, name) for name in fields}, "configuration": dict(self.configuration)}


def all_rows(path: Path = SUITE) -> list[Row]:
    """Every row in the order of the tables."""
    described = tomllib.loads(path.read_text("utf-8"))
    configurations = described["configurations"]
    return [_row(dict(entry), configurations) for entry in described["row"]]


def _row(entry: dict[str, Any], configurations: Mapping[str, Mapping[str, Any]]) -> Row:
    options = _inherited(entry.pop("configuration"), configurations) | entry.pop("options", {})
    lists = {name: tuple(entry.pop(name)) for name in ("bytes", "sha256", "expected")}
    return Row(**entry, **lists, configuration=options)


def _inherited(name: str, configurations: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    own = dict(configurations[name])
    base = own.pop("base", None)
    return {**(_inherited(base, configurations) if base else {}), **own}


def selected(
    rows: Iterable[Row],
    patterns: Sequence[str] = (),
    *,
    small: bool = False,
    platform: str = "full",
    table: int | None = None,
) -> list[Row]:
    """The rows that are meant: by number or id, by size, by what a class of platforms can decode."""
    found = [row for row in rows if not patterns or any(matches(row, pattern) for pattern in patterns)]
    bits = PLATFORMS[platform]
    found = [row for row in found if bits is None or row.bits == bits]
    return [row for row in found if (row.small or not small) and table in (None, row.table)]


def matches(row: Row, pattern: str) -> bool:
    """Whether a row is meant by a number or a part of its id."""
    return pattern == row.name or fnmatch(row.id, f"*{pattern}*")


def updated(text: str, made: Mapping[str, tuple[Sequence[int], Sequence[str], Sequence[str]]]) -> str:
    """The description with the sizes and digests of the rows ``made``, by id."""
    return "".join(_updated(entry, made) for entry in re.split(r"(?=^\[\[row\]\]$)", text, flags=re.MULTILINE))


def _updated(entry: str, made: Mapping[str, tuple[Sequence[int], Sequence[str], Sequence[str]]]) -> str:
    found = re.search(r'^id = "(.+)"$', entry, re.MULTILINE)
    if not found or found[1] not in made:
        return entry
    for key, values in zip(("bytes", "sha256", "expected"), made[found[1]], strict=True):
        entry = re.sub(rf"^{key} = \[[^\]]*\]$", f"{key} = {_list(values)}", entry, flags=re.MULTILINE)
    return entry


def _list(values: Sequence[int] | Sequence[str]) -> str:
    listed = [f'"{value}"' if isinstance(value, str) else str(value) for value in values]
    return "[" + ", ".join(listed) + "]" if len(values) < 2 else "[\n  " + ",\n  ".join(listed) + ",\n]"


def runs(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in groups that are made together: the parties of one training, or a row on its own."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.run or row.id, []).append(row)
    yield from groups.values()
