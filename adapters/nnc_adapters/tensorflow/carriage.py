"""A bitstream inside a SavedModel: in ``assets.extra``, which loaders leave alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from nnc_adapters.files import replacing
from nnc_core.errors import ModelError

__all__ = ["embed", "extract"]

_PLACE = Path("assets.extra", "model.nnr")


def embed(bitstream: Path, saved_model: Path, *, force: bool = False) -> Path:
    """Put a bitstream into a SavedModel, and return where; an earlier one is replaced only with ``force``."""
    if not (saved_model / "saved_model.pb").is_file():
        raise ModelError("is no SavedModel", file=str(saved_model))
    target = saved_model / _PLACE
    target.parent.mkdir(exist_ok=True)
    _copy(bitstream, target, force)
    return target


def extract(saved_model: Path, target: Path, *, force: bool = False) -> None:
    """Copy the bitstream in a SavedModel to ``target``; `ModelError` where there is none."""
    if not (saved_model / _PLACE).is_file():
        raise ModelError(f"there is no {_PLACE.as_posix()} in it", file=str(saved_model))
    _copy(saved_model / _PLACE, target, force)


def _copy(source: Path, target: Path, force: bool) -> None:
    with source.open("rb") as stream, replacing(target, force=force) as copy:
        shutil.copyfileobj(stream, copy)
