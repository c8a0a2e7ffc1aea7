"""HDF5 files with a dataset of bytes for each bitstream; the package ``h5py`` reads and writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np

from nnc_adapters.containers import names
from nnc_adapters.containers.base import Items, opened
from nnc_adapters.shared.files import replacing
from nnc_core.bitstream.parts import begins_bitstream
from nnc_core.errors import MissingDependencyError, ModelError, NncError
from nnc_core.limits import Limits
from nnc_core.syntax import Buffer

__all__ = ["Hdf5"]

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAD = 8
_T = TypeVar("_T")


class Hdf5:
    """The datasets are in the root group, contiguous, and in the order in which they were written."""

    name: str = "hdf5"
    suffixes: tuple[str, ...] = (".h5", ".hdf5")
    packages: tuple[str, ...] = ("h5py",)

    def sniff(self, path: Path) -> bool:
        """Whether the root group has datasets, and all begin like NNR; without ``h5py``, whether it is HDF5."""
        try:
            if not _is_hdf5(path):
                return False
            with _file(path) as file, _reported(path):
                links = list(file)
                return bool(links) and all(_begins(path, file, link) for link in links)
        except MissingDependencyError:
            return True
        except (NncError, OSError):
            return False

    def open(self, path: Path, limits: Limits | None = None) -> Items:
        """The datasets of the root group; `ModelError` for one whose bytes are not simply in the file."""
        if not _is_hdf5(path):
            raise ModelError("not an HDF5 file", file=str(path))
        context = _file(path)
        file = context.__enter__()
        return Items(path, _found(path, file), partial(context.__exit__, None, None, None), limits)

    def write(self, path: Path, items: Mapping[str, Buffer], *, force: bool = False) -> None:
        """Write the datasets, one after another; equal items make equal bytes."""
        h5py = _h5py()
        with (
            replacing(path, force=force) as stream,
            _Patient.around(stream) as patient,
            h5py.File(_created(h5py, patient)) as file,
        ):
            for key in items:
                data = np.frombuffer(items[key], np.uint8)
                file.create_dataset(names.for_hdf5(key), data=data, track_times=False)


class _Patient:
    """A file whose errors wait until HDF5 is done: where it cannot write, the library crashes."""

    def __init__(self, stream: BinaryIO) -> None:
        self.readinto: Callable[[Buffer], int] = cast(Any, stream).readinto
        self.seek, self.tell, self.truncate = stream.seek, stream.tell, stream.truncate
        self._stream = stream
        self._error: OSError | None = None

    @classmethod
    @contextmanager
    def around(cls, stream: BinaryIO) -> Iterator[_Patient]:
        patient = cls(stream)
        try:
            yield patient
            patient.flush()
        finally:
            if patient._error is not None:
                raise patient._error

    def write(self, data: Buffer) -> int:
        return self._tried(lambda: self._stream.write(data), len(data))

    def flush(self) -> None:
        self._tried(self._stream.flush, None)

    def _tried(self, action: Callable[[], _T], otherwise: _T) -> _T:
        try:
            return action() if self._error is None else otherwise
        except OSError as error:
            self._error = error
            return otherwise


def _h5py() -> Any:
    try:
        import h5py  # type: ignore[import-untyped]
    except ModuleNotFoundError as error:
        raise MissingDependencyError("h5py", "containers", "NNR in an HDF5 file") from error
    return h5py


def _created(h5py: Any, stream: _Patient) -> Any:
    """A new file without the time in it, that keeps the order of its datasets."""
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, stream)
    properties = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    properties.set_obj_track_times(False)
    properties.set_link_creation_order(h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED)
    return h5py.h5f.create(repr(stream).encode(), h5py.h5f.ACC_TRUNC, fapl=access, fcpl=properties)


def _is_hdf5(path: Path) -> bool:
    with opened(path) as stream:
        return stream.read(len(_SIGNATURE)) == _SIGNATURE


@contextmanager
def _file(path: Path) -> Iterator[Any]:
    h5py = _h5py()
    with opened(path) as stream:
        with _reported(path):
            file = h5py.File(stream, "r")
        with file:
            yield file


@contextmanager
def _reported(path: Path, key: str | None = None) -> Iterator[None]:
    try:
        yield
    except NncError:
        raise
    except Exception as error:  # the library has no error of its own: damage comes out as whatever it leads to
        raise ModelError(f"the file is damaged: {error}", file=str(path), tensor=key) from error


def _found(path: Path, file: Any) -> Iterator[tuple[str, Callable[[], Buffer]]]:
    with _reported(path):
        links = list(file)
    for link in links:
        with _reported(path, link):
            dataset, key = _dataset(path, file, link), names.unquoted(link)
        yield key, partial(_read, path, dataset)


def _dataset(path: Path, file: Any, link: str) -> Any:
    """The dataset; `ModelError` if reading it would lead into other files or make more than the file has."""
    h5py = _h5py()
    if not isinstance(file.get(link, getlink=True), h5py.HardLink):
        raise ModelError("is a link", file=str(path), tensor=link)
    dataset = file[link]
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype != np.uint8 or dataset.ndim != 1:
        raise ModelError("is not a vector of bytes that holds an NNR", file=str(path), tensor=link)
    simple = dataset.chunks is None and dataset.external is None and not dataset.is_virtual
    if not simple or dataset.id.get_storage_size() != dataset.size:
        raise ModelError("is not stored as it is", file=str(path), tensor=link)
    return dataset


def _read(path: Path, dataset: Any) -> Buffer:
    with _reported(path, dataset.name):
        data: Buffer = dataset[:].data
    return data


def _begins(path: Path, file: Any, link: str) -> bool:
    with _reported(path, link):
        return begins_bitstream(_dataset(path, file, link)[:_HEAD].tobytes())
