"""A bitstream inside a SavedModel (ISO/IEC 15938-17, Annex D): in ``assets.extra``, which loaders leave alone."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nnc_core
from nnc_adapters.base import Options
from nnc_adapters.shared.dtypes import named
from nnc_adapters.shared.files import replacing, replacing_folder
from nnc_adapters.shared.lazy import LazyTensors
from nnc_adapters.tensorflow import TensorflowAdapter, folder, manifest, reader, writer
from nnc_adapters.tensorflow.manifest import EMBEDDED, Manifest
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel
from nnc_core.tables.code_points import TopologyStorageFormat

__all__ = ["PLACE", "EmptiedSavedModel", "SavedModel", "embed", "extract"]

PLACE = Path(EMBEDDED)
"""Where in the folder the bitstream lies."""


class SavedModel:
    """One bitstream, in the folder ``assets.extra`` that loaders leave alone."""

    name: str = "savedmodel"
    suffixes: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    annex: str = TensorflowAdapter.annex
    way: str = "the bitstream lies beside the variables, in assets.extra"
    empty: bool = False

    def sniff(self, path: Path) -> bool:
        """Whether it is a SavedModel with a bitstream in it."""
        return _is_saved_model(path) and (path / PLACE).is_file()

    def takes(self, path: Path) -> bool:
        """Whether it is a SavedModel."""
        return _is_saved_model(path)

    def embed(self, source: Path, target: Path, *, into: Path | None, force: bool, limits: Limits) -> None:
        """Put the bitstream into the SavedModel ``target``, or into a copy of the one that ``into`` is."""
        if into is None:
            embed(source, target, force=force, empty=self.empty, limits=limits)
            return
        with replacing_folder(target, force=force) as copy:
            shutil.copytree(into, copy, dirs_exist_ok=True)
            with _named(into, copy):
                embed(source, copy, force=True, empty=self.empty, limits=limits)

    def extract(self, source: Path, target: Path, *, force: bool, limits: Limits) -> None:
        """Copy the bitstream."""
        extract(source, target, force=force)


class EmptiedSavedModel(SavedModel):
    """The same in place of the values of its variables, which become zeros."""

    name: str = "savedmodel-emptied"
    way: str = "the bitstream lies in assets.extra; the variables that it has are zeros"
    empty: bool = True

    def sniff(self, path: Path) -> bool:
        """No: it is a SavedModel as others are."""
        return False

    def takes(self, path: Path) -> bool:
        """No: values become zeros only where that is asked for."""
        return False


@contextmanager
def _named(model: Path, copy: Path) -> Iterator[None]:
    """Let errors name the model instead of the temporary copy of it."""
    try:
        yield
    except ModelError as error:
        error.file = str(model) if error.file == str(copy) else error.file
        raise


def embed(
    bitstream: Path, saved_model: Path, *, force: bool = False, empty: bool = False, limits: Limits | None = None
) -> Path:
    """Put a bitstream into the SavedModel that it is of, and return where.

    An earlier one is replaced only with ``force``. The variables that are in the bitstream become zeros if they are to
    be ``empty``; these take next to nothing in an archive. `ModelError` where the bitstream is of another model.
    """
    if not _is_saved_model(saved_model):
        raise ModelError("is not a SavedModel", file=str(saved_model))
    limits = limits or Limits()
    with nnc_core.open(bitstream, limits=limits) as file:
        if file.topology is None or file.topology.storage_format != TopologyStorageFormat.NNR_TPL_TEF:
            raise ModelError("does not carry the description of a TensorFlow model", file=str(bitstream))
        coded = manifest.unpack(file.topology.data, limits)
    _check_is_of(coded, saved_model, limits)
    target = saved_model / PLACE
    target.parent.mkdir(exist_ok=True)
    _copy(bitstream, target, force)
    if empty:
        _empty(saved_model, coded, limits)
    return target


def _is_saved_model(path: Path) -> bool:
    return any((path / name).is_file() for name in folder.GRAPHS)


def _check_is_of(coded: Manifest, saved_model: Path, limits: Limits) -> None:
    model = _read(saved_model, coded, limits)
    own = manifest.unpack(model.topology.data, limits) if model.topology else coded
    for what, one, other in (
        ("tensors differ", _tensors(own), _tensors(coded)),
        ("graph differs", _graphs(own), _graphs(coded)),
    ):
        if one != other:
            raise ModelError(f"the bitstream is of another model: its {what}", file=str(saved_model))


def _read(saved_model: Path, coded: Manifest, limits: Limits) -> SourceModel:
    """The model, with the tensors that the bitstream has whatever their values are."""
    return reader.read(saved_model, Options(limits=limits, chosen=frozenset(_tensors(coded)), only=True))


def _tensors(found: Manifest) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {p.tensor: (p.dtype, p.shape) for file in found.files for p in file.places if p.tensor is not None}


def _graphs(found: Manifest) -> dict[str, bytes]:
    return {file.path: file.exact for file in found.files if file.path in folder.GRAPHS}


def _empty(saved_model: Path, coded: Manifest, limits: Limits) -> None:
    """Let the variables that are coded be zeros, in a model that is otherwise as it was."""
    model = _read(saved_model, coded, limits)
    if model.topology is None:
        return
    found = manifest.unpack(model.topology.data, limits)
    zeros = {name: partial(_zeros, dtype, shape) for name, (dtype, shape) in _tensors(found).items()}
    with tempfile.TemporaryDirectory(dir=saved_model.parent) as temporary:
        made = Path(temporary, "model")
        writer.write(LazyTensors(zeros), found, made, limits, force=False)
        for path in (each for each in made.rglob("*") if each.is_file()):
            shutil.copy(path, saved_model / path.relative_to(made))


def _zeros(dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    zeros: NDArray[Any] = np.zeros(shape, named(dtype, manifest.EXTRA))
    return zeros


def extract(saved_model: Path, target: Path, *, force: bool = False) -> None:
    """Copy the bitstream in a SavedModel to ``target``; `ModelError` where there is none."""
    if not (saved_model / PLACE).is_file():
        raise ModelError(f"there is no {PLACE.as_posix()} in it", file=str(saved_model))
    _copy(saved_model / PLACE, target, force)


def _copy(source: Path, target: Path, force: bool) -> None:
    with source.open("rb") as stream, replacing(target, force=force) as copy:
        shutil.copyfileobj(stream, copy)
