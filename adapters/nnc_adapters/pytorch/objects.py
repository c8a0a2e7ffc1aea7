"""What to do with a checkpoint that has objects in it which are not mere data."""

from __future__ import annotations

from typing import Any

from nnc_adapters.pytorch.admitted import ALLOWED
from nnc_adapters.pytorch.data_classes import DATA
from nnc_adapters.pytorch.pickles import Global, Object

OPAQUE = (
    "only tensors, numbers, texts and containers are read. Other objects are carried as they are, and never run, "
    "with --opaque-objects (opaque=True)"
)
DISTRIBUTED = (
    f"{OPAQUE}. If you trust it, convert it: "
    "python -m torch.distributed.checkpoint.format_utils dcp_to_torch folder checkpoint.pt"
)


def hint(value: Any) -> str:
    """What to do where ``value`` is what was saved, objects included."""
    return f"{OPAQUE}. If you trust it, convert it: {_conversion(value)}"


def _conversion(value: Any) -> str:
    """A line of Python that saves the tensors, and of a checkpoint everything else that is mere data."""
    if _is_module(value):
        return "torch.save(torch.load(file, weights_only=False).state_dict(), 'weights.pt')"
    saved = "c"
    if isinstance(value, dict):
        modules = [key for key, inner in value.items() if _is_module(inner)]
        others = [key for key, inner in value.items() if key not in modules and _has_objects(inner)]
        if modules:
            saved = f"c | {{k: c[k].state_dict() for k in {modules!r}}}"
        if others:
            kept = f"({saved})" if modules else saved
            saved = f"{{k: v for k, v in {kept}.items() if k not in {others!r}}}"
    return f"c = torch.load(file, weights_only=False); torch.save({saved}, 'weights.pt')"


def _is_module(value: Any) -> bool:
    return isinstance(value, Object) and isinstance(value.state, dict) and "_parameters" in value.state


def _has_objects(value: Any) -> bool:
    """Whether there is more than mere data in ``value``."""
    left, seen = [value], set[int]()
    while left:
        part = left.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, (Object, Global)) and part.name not in DATA | ALLOWED:
            return True
        if isinstance(part, Object):
            left += part.parts()
        elif isinstance(part, dict):
            left += part.values()
        elif isinstance(part, (list, tuple)):
            left += part
    return False
