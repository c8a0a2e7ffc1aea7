"""Weights of Keras in shards: a ``.weights.json`` that lists HDF5 files beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nnc_adapters.shared import strict_json
from nnc_adapters.shared.names import free
from nnc_adapters.tensorflow import contiguous, hdf5
from nnc_adapters.tensorflow.content import of_file
from nnc_adapters.tensorflow.manifest import check_path
from nnc_adapters.tensorflow.model import Opened
from nnc_core.errors import ModelError
from nnc_core.limits import Limits

__all__ = ["KIND", "find", "open_shards"]

KIND = "keras_shards"
_SUFFIX = ".weights.json"


def find(path: Path) -> Path | None:
    """The list of shards at ``path``, or in it, if it is the only one in a folder; None where there is none."""
    found = sorted(path.glob("*" + _SUFFIX)) if path.is_dir() else [path]
    if len(found) != 1 or not found[0].name.endswith(_SUFFIX) or not found[0].is_file():
        return None
    try:
        return found[0] if _names(found[0], Limits()) else None
    except (ModelError, OSError):
        return None


def open_shards(index: Path, limits: Limits) -> Opened:
    """Open the shards that ``index`` lists; `ModelError` where one is missing or damaged."""
    names = _names(index, limits)
    contents = {name: contiguous.contiguous(of_file(index.parent / name), limits) for name in names}
    taken: Counter[str] = Counter()
    variables = [
        replace(variable, name=free(variable.name, taken))
        for name, content in contents.items()
        for variable in hdf5.variables(content, name)
    ]
    return Opened(KIND, {index.name: of_file(index), **contents}, variables)


def _names(index: Path, limits: Limits) -> list[str]:
    limits.check("topology_bytes", index.stat().st_size, index.name)
    try:
        found = set(_listed(strict_json.document(index.read_bytes())["weight_map"]))
        return sorted(map(_beside, found))
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise ModelError(f"is not a list of shards: {error}", file=str(index)) from error


def _listed(weight_map: Any) -> Iterator[str]:
    for names in weight_map.values():
        yield from [names] if isinstance(names, str) else names


def _beside(name: Any) -> str:
    if not isinstance(name, str) or "/" in check_path(name):
        raise ValueError(f"{name!r} is not the name of a file beside it")
    return name
