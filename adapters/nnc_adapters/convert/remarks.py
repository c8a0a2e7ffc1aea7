"""What else differs between two models, and what happens to values that a data type cannot hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnc_adapters.convert.matching import Matched
from nnc_adapters.convert.trace import Reach

__all__ = ["differences", "losses"]

_ACTIVATIONS = frozenset({"relu", "sigmoid", "tanh", "gelu", "silu", "elu", "selu", "leaky_relu", "softmax", "relu6"})
_MANTISSA = {"float16": (65504.0, 2.0**-25), "bfloat16": (3.39e38, 2.0**-134)}


def differences(matched: Matched, *, checked: bool = False) -> list[str]:
    """Settings of layers that are not the same on both sides; activations, too, unless a run was ``checked``."""
    return list(dict.fromkeys((*_settings(matched), *(() if checked else _steps(matched)))))


def _settings(matched: Matched) -> Iterator[str]:
    ours, theirs = matched.source.trace, matched.target.trace
    if ours is None or theirs is None:
        return
    seen: dict[tuple[str, str, str], list[str]] = {}
    for wanted, given in matched.pairs.items():
        one, other = ours.settings.get(given, {}), theirs.settings.get(wanted, {})
        for key in one.keys() & other.keys():
            if not np.isclose(float(str(one[key])), float(str(other[key])), rtol=1e-3, atol=0):
                seen.setdefault((key, f"{one[key]:g}", f"{other[key]:g}"), []).append(wanted.name)
    for (key, one_, other_), names in seen.items():
        yield f"{key} is {one_} in the source, {other_} in the target ({names[0]}{_more(names)})"


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _steps(matched: Matched) -> Iterator[str]:
    """Activations on the way to a weight."""
    ours, theirs = matched.source.trace, matched.target.trace
    if ours is None or theirs is None:
        return
    places: list[tuple[Iterable[Reach], Iterable[Reach], str]]
    places = [(ours.before.get(g, ()), theirs.before.get(w, ()), f"before {w.name}") for w, g in matched.pairs.items()]
    places += [(one, other, "at the end") for one, other in zip(ours.results, theirs.results, strict=False)]
    for one, other, where in places:
        steps = [sorted({s for reach in reached for s in reach.path if s in _ACTIVATIONS}) for reached in (one, other)]
        if steps[0] != steps[1]:
            texts = [" and ".join(found) or "nothing" for found in steps]
            yield f"activation {texts[0]} in the source, {texts[1]} in the target {where}"


def losses(tensors: Mapping[str, NDArray[Any]], like: Mapping[str, NDArray[Any]]) -> list[str]:
    """What becomes infinite or zero where the target has numbers of half precision."""
    found = []
    for name in tensors:
        limits = _MANTISSA.get(like[name].dtype.name)
        if limits is None:
            continue
        values = np.abs(np.asarray(tensors[name], np.float64))
        saturated, flushed = int((values > limits[0]).sum()), int(((values < limits[1]) & (values > 0)).sum())
        if saturated or flushed:
            found.append(f"{name}: {saturated} values are too large for {like[name].dtype.name}, {flushed} become zero")
    return found
