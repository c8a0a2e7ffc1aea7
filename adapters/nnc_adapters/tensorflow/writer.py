"""From a topology and tensors to the files of a model, tensor by tensor."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from nnc_adapters.shared.dtypes import fitted, stored
from nnc_adapters.shared.files import replacing, replacing_folder
from nnc_adapters.shared.lazy import check_names
from nnc_adapters.tensorflow import archive, bundle, constants, fingerprint, folder, hdf5, shards
from nnc_adapters.tensorflow.content import Content, Nameless, of_file
from nnc_adapters.tensorflow.manifest import CHECKSUM, GRAPH, File, Manifest, Place
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.stored import NewFile

__all__ = ["skeleton", "suffixes", "write"]

_SUFFIXES = {
    "checkpoint_files": (folder.INDEX,),
    "keras": (".keras",),
    "hdf5": (".h5", ".hdf5"),
    "tflite": (".tflite",),
    constants.FROZEN: (".pb",),
}
"""How the names of files end, by the kind of model; the others are folders."""


def suffixes(manifest: Manifest) -> tuple[str, ...]:
    """How the name of the file may end that the model becomes; none for a folder."""
    alone = manifest.kind == "hdf5" and any(file.path.endswith(hdf5.WEIGHTS) for file in manifest.files)
    return (*((hdf5.WEIGHTS,) if alone else ()), *_SUFFIXES.get(manifest.kind, ()))


_Tensors = Mapping[str, NDArray[Any]]
_Open = tuple[File, IO[bytes]]


def write(tensors: _Tensors, manifest: Manifest, path: Path, limits: Limits, *, force: bool) -> None:
    """Write the model; it appears complete or not at all.

    Raises `ModelError` where names, shapes or ranges do not fit it, `FileExistsError` where ``path`` exists, unless
    ``force``.
    """
    check_names(tensors, {p.tensor: p for file in manifest.files for p in file.places if p.tensor is not None})
    writers = {
        "saved_model": _write_folder,
        "checkpoint": _write_folder,
        "checkpoint_files": _write_checkpoint,
        "keras": _write_archive,
        "hdf5": _write_file,
        constants.FROZEN: _write_file,
        shards.KIND: _write_folder,
        "tflite": _write_file,
    }
    if manifest.kind not in writers:
        raise ModelError(f"the topology is of an unknown kind {manifest.kind!r}")
    writers[manifest.kind](tensors, manifest, path, limits, force)


def _write_folder(tensors: _Tensors, manifest: Manifest, path: Path, limits: Limits, force: bool) -> None:
    with replacing_folder(path, force=force) as root:
        for name in manifest.folders:
            (root / name).mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            opened: list[_Open] = []
            for file in manifest.files:
                (root / file.path).parent.mkdir(parents=True, exist_ok=True)
                if file.places:
                    opened.append((file, stack.enter_context(NewFile(root / file.path))))
                else:
                    (root / file.path).write_bytes(file.exact)
            _fill(opened, tensors)
        for prefix in folder.prefixes(file.path for file in manifest.files):
            _refresh(prefix, {file.path: root / file.path for file in manifest.files}, limits)
        _refresh_fingerprint(manifest, root)


def _refresh_fingerprint(manifest: Manifest, root: Path) -> None:
    paths = {file.path: root / file.path for file in manifest.files}
    if fingerprint.FILE not in paths or not any(graph in paths for graph in folder.GRAPHS):
        return
    index = next((paths[p + folder.INDEX].read_bytes() for p in folder.prefixes(paths)), None)
    graph = next((f for f in manifest.files if f.path == GRAPH and CHECKSUM in f.attributes), None)
    changed = graph is not None and graph.attributes[CHECKSUM] != zlib.crc32(paths[graph.path].read_bytes())
    target = paths[fingerprint.FILE]
    target.write_bytes(fingerprint.refreshed(target.read_bytes(), index, changed))


def _refresh(prefix: str, paths: Mapping[str, Path], limits: Limits) -> None:
    """Bring the index of a checkpoint up to date with its data files."""
    index = paths[prefix + folder.INDEX]
    data = {path.removeprefix(prefix): of_file(paths[path]) for path in paths if path.startswith(prefix)}
    index.write_bytes(bundle.refreshed(index.read_bytes(), data, limits))


def _write_checkpoint(tensors: _Tensors, manifest: Manifest, path: Path, limits: Limits, force: bool) -> None:
    prefix = path.name.removesuffix(folder.INDEX)
    files = sorted(manifest.files, key=lambda file: file.path != folder.INDEX)
    if not files or files[0].path != folder.INDEX:
        raise ModelError("the topology is damaged: there is no index")
    with ExitStack() as stack:
        # the index is put in its place last: it never refers to data that are not there yet
        opened = [(f, stack.enter_context(replacing(path.with_name(prefix + f.path), force=force))) for f in files]
        _fill(opened, tensors)
        for _, stream in opened:
            stream.flush()
        _refresh("", {file.path: Path(stream.name) for file, stream in opened}, limits)


def _write_archive(tensors: _Tensors, manifest: Manifest, path: Path, limits: Limits, force: bool) -> None:
    with replacing(path, force=force) as stream, zipfile.ZipFile(stream, "w") as target:
        for name in manifest.folders:
            target.writestr(zipfile.ZipInfo(name + "/"), b"")
        for file in manifest.files:
            info = archive.member(file)
            with tempfile.TemporaryFile(dir=path.parent) as whole, target.open(info, "w") as member:
                _fill([(file, whole)], tensors)
                whole.seek(0)
                shutil.copyfileobj(whole, member)


def _write_file(tensors: _Tensors, manifest: Manifest, path: Path, limits: Limits, force: bool) -> None:
    if len(manifest.files) != 1:
        raise ModelError(f"the topology is damaged: it has {len(manifest.files)} files instead of one")
    with replacing(path, force=force) as stream:
        _fill([(manifest.files[0], stream)], tensors)


def _fill(files: Iterable[_Open], tensors: _Tensors) -> None:
    """Write files, asking for each tensor once although it may have several places."""
    places: dict[str, list[tuple[Place, IO[bytes]]]] = {}
    for file, stream in files:
        _write_exact(file, stream)
        for place in file.places:
            if place.tensor is not None:
                places.setdefault(place.tensor, []).append((place, stream))
    for name, found in places.items():
        array = tensors[name]
        for place, stream in found:
            stream.seek(place.offset)
            stream.write(stored(fitted(array, name, place.shape, place.native)))


def _write_exact(file: File, stream: IO[bytes]) -> None:
    exact, at = memoryview(file.exact), 0
    for place in file.places:
        size = place.offset - stream.tell()
        stream.write(exact[at : at + size])
        stream.seek(place.end)
        at += size
    stream.write(exact[at:])
    stream.truncate(file.size)


def skeleton(file: File) -> Content:
    """A file with zeros where tensors are, for which a file system needs no room."""
    stream = Nameless()
    _write_exact(file, stream)
    return Content(stream, 0, file.size)
