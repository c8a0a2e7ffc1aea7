"""Bitstreams to put beside one in a report: files, or a model compressed with other settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from nnc_adapters import api
from nnc_adapters.reports import Meter
from nnc_core import CodingParameters

__all__ = ["beside", "settings"]

_SETTING = re.compile(r"[a-z_-]+=[^=,]+(?:,[a-z_-]+=[^=,]+)*")


def settings(text: str) -> CodingParameters | None:
    """Parse ``level=9`` or ``qp=-30,dq=0``; None for what does not look like that. ValueError, TypeError if wrong."""
    if not _SETTING.fullmatch(text):
        return None
    pairs = (pair.split("=") for pair in text.split(","))
    return CodingParameters(**{_NAMES.get(name, name.replace("-", "_")): _value(value) for name, value in pairs})


_NAMES = {"dq": "dq_flag", "unary": "cabac_unary_length_minus1", "scan": "scan_order"}


def _value(text: str) -> Any:
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"-?\d*\.\d+", text) else text


@contextmanager
def beside(
    texts: Iterable[str], original: Path | None, meter: Meter | None = None, **compressing: Any
) -> Iterator[Mapping[str, Path]]:
    """The bitstreams that ``texts`` name, by label: paths, or settings with which ``original`` is compressed.

    The latter lie in a temporary folder while the block runs. ``compressing`` are other arguments of `compress`.
    """
    with TemporaryDirectory() as folder:
        found: dict[str, Path] = {}
        for text in texts:
            parameters = None if Path(text).exists() or original is None else settings(text)
            path = Path(text)
            if parameters is not None and original is not None:
                path = Path(folder, f"{len(found)}.nnr")
                api.compress(original, path, parameters=parameters, meter=meter, **compressing)
            found[_label(text, found, parameters is not None)] = path
        yield found


def _label(text: str, taken: Mapping[str, Path], is_setting: bool) -> str:
    """The name of the file, or with its folder where another has the same."""
    name = text if is_setting else Path(text).name
    return text if name in taken else name
