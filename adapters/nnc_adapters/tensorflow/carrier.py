"""A bitstream inside a SavedModel (ISO/IEC 15938-17, Annex D): in ``assets.extra``, which loaders leave alone."""

from __future__ import annotations

import shutil
from pathlib import Path

from nnc_adapters.shared.files import replacing, replacing_folder
from nnc_core.errors import ModelError
from nnc_core.limits import Limits

__all__ = ["PLACE", "SavedModel", "embed", "extract"]

PLACE = Path("assets.extra", "model.nnr")
"""Where in the folder the bitstream lies."""


class SavedModel:
    """One bitstream, in the folder ``assets.extra`` that loaders leave alone."""

    name: str = "savedmodel"
    suffixes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    way: str = "the bitstream lies beside the variables, in assets.extra"

    def sniff(self, path: Path) -> bool:
        """Whether it is a SavedModel with a bitstream in it."""
        return self.takes(path) and (path / PLACE).is_file()

    def takes(self, path: Path) -> bool:
        """Whether it is a SavedModel."""
        return (path / "saved_model.pb").is_file()

    def embed(self, source: Path, target: Path, *, into: Path | None, force: bool, limits: Limits) -> None:
        """Put the bitstream into the SavedModel ``target``, or into a copy of the one that ``into`` is."""
        if into is None:
            embed(source, target, force=force)
            return
        with replacing_folder(target, force=force) as folder:
            shutil.copytree(into, folder, dirs_exist_ok=True)
            embed(source, folder, force=True)

    def extract(self, source: Path, target: Path, *, force: bool, limits: Limits) -> None:
        """Copy the bitstream."""
        extract(source, target, force=force)


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
