"""Why tensors are exact although nothing says that they must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nnc_core
from nnc_adapters import registry
from nnc_adapters.base import Options
from nnc_adapters.report.data import TensorReport
from nnc_adapters.shared.files import size_of
from nnc_core import Limits

__all__ = ["explained"]

_NOT_READING = ("rules", "min_sqnr", "drop_masked")


def explained(
    tensors: Sequence[TensorReport], original: Path, reading: Mapping[str, Any], limits: Limits | None
) -> Iterator[TensorReport]:
    """The tensors, and with those that are exact for no reason of their own the one that a planner would give."""
    open_ = [t.name for t in tensors if t.error and t.exact and t.error.exact_because is None]
    reasons = _planned(open_, original, reading, limits) if open_ else {}
    for tensor in tensors:
        reason = reasons.get(tensor.name)
        changed = tensor.error and reason and replace(tensor.error, exact_because=reason)
        yield replace(tensor, error=changed) if changed else tensor


def _planned(names: Sequence[str], original: Path, reading: Mapping[str, Any], limits: Limits | None) -> dict[str, str]:
    """The reasons of a plan for these tensors alone, as far as it keeps them exact."""
    bounds = (limits or Limits()).following(size_of(original))
    kept = {key: value for key, value in reading.items() if key not in _NOT_READING}
    options = Options(bounds, **kept, chosen=frozenset(names), only=True)
    model = registry.find(original).read(original, options)
    chosen = {name: model.tensors[name] for name in names}
    plan = nnc_core.plan(replace(model, tensors=chosen))
    return {name: each.reason for name, each in plan.tensors.items() if each.exact}
