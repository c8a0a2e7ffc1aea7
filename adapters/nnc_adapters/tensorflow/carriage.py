"""A bitstream inside a SavedModel: in ``assets.extra``, which loaders leave alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from nnc_adapters.files import replacing
from nnc_core.errors import ModelError

__all__ = ["PLACE", "embed", "extract"]

PLACE = Path("assets.extra", "model.nnr")
"""Where in the folder the bitstream lies."""


def embed(bitstream: Path, saved_model: Path, *, force: bool = False) -> Path:
    """Put a bitstream into a SavedModel, and return where; an earlier one is replaced only with ``force``."""
    if not (saved_model / "saved_model.pb").is_file():
        raise ModelError("is no SavedModel", file=str(saved_model))
    target = saved_model / PLACE
    target.parent.mkdir(exist_ok=True)
    _copy(bitstream, target, force)
    return target


def extract(saved_model: Path, target: Path, *, force: bool = False) -> None:
    """Copy the bitstream in a SavedModel to ``target``; `ModelError` where there is none."""
    if not (saved_model / PLACE).is_file():
        raise ModelError(f"there is no {PLACE.as_posix()} in it", file=str(saved_model))
    _copy(saved_model / PLACE, target, force)


def _copy(source: Path, target: Path, force: bool) -> None:
    with source.open("rb") as stream, replacing(target, force=force) as copy:
        shutil.copyfileobj(stream, copy)
