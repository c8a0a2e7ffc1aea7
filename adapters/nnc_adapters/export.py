"""The tensors of a bitstream by name, without the model around them: as arrays, as safetensors or npz."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

import nnc_core
from nnc_adapters import registry
from nnc_adapters.base import Options
from nnc_adapters.containers import plain
from nnc_adapters.remote import reaching
from nnc_adapters.sharded.index import checked, read_index
from nnc_adapters.sharded.names import is_sharded
from nnc_adapters.shared.dtypes import stored
from nnc_adapters.shared.files import about, replacing, size_of
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.nnr_model import Topology

__all__ = ["SUFFIXES", "every_tensor", "export", "load_tensors", "takes"]

_Tensors = Mapping[str, NDArray[Any]]

_SAFETENSORS = {
    "bool": "BOOL",
    "bfloat16": "BF16",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
}


@reaching(["source"])
def load_tensors(
    source: str | Path, *, opaque: bool = False, threads: int | None = None, limits: Limits | None = None
) -> dict[str, NDArray[Any]]:
    """All tensors of the model in the NNR bitstream ``source``, by name, in the shape and type that the model has.

    Unlike `nnc_core.decode` this gives the small ones too, which travel in the topology, and each of those that are
    tied. ``source`` may be a container of NNR, and a bitstream without topology; then there is nothing but what is
    coded. Raises what `decompress` raises.
    """
    source = Path(source)
    if is_sharded(source):
        index = read_index(source, limits)
        shards = [(s.prefix, checked(index.folder / s.file, s.content)) for s in index.shards]
        found = [(prefix, load_tensors(path, opaque=opaque, threads=threads, limits=limits)) for prefix, path in shards]
        return {prefix + name: array for prefix, tensors in found for name, array in tensors.items()}
    options = Options((limits or Limits()).following(size_of(source)), opaque=opaque)
    with (
        about(source),
        plain(source, options.limits) as path,
        nnc_core.open(path, limits=limits) as file,
        file.decoding_ahead(threads) as decoded,
        every_tensor(decoded, file.topology, options) as tensors,
    ):
        return {name: np.array(tensors[name]) for name in tensors}


@contextmanager
def every_tensor(decoded: _Tensors, topology: Topology | None, options: Options) -> Iterator[_Tensors]:
    """The tensors of the model that ``decoded`` ones belong to, lazily, while it lies in a temporary folder."""
    if topology is None:
        yield decoded
        return
    adapter = registry.adapter(topology.storage_format)
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        restored = Path(folder, "model" + adapter.default_suffix(topology))
        adapter.write(decoded, topology, restored, options)
        yield adapter.tensors(restored, options)


def takes(target: Path) -> bool:
    """Whether `export` writes files that are called like this one."""
    return target.name.lower().endswith(SUFFIXES)


def export(tensors: _Tensors, target: Path, *, force: bool = False) -> None:
    """Write ``tensors`` to a file whose suffix is one of `SUFFIXES`.

    `ModelError` for a type or name that the format does not have, `FileExistsError` for an existing file without
    ``force``.
    """
    with replacing(target, force=force) as stream:
        _WRITERS[target.suffix.lower()](tensors, stream)


def write_safetensors(tensors: _Tensors, stream: BinaryIO, metadata: Mapping[str, str] | None = None) -> None:
    """Write ``tensors`` as a safetensors file; `ModelError` for a type or name that the format does not have."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    from shutil import copyfileobj
    from tempfile import TemporaryFile

    with TemporaryFile() as data:  # the header comes first, and is known last
        for name in tensors:
            array = tensors[name]
            if array.dtype.name not in _SAFETENSORS or name in header:
                raise ModelError(f"safetensors has no place for it, its type is {array.dtype}", tensor=name)
            start = data.tell()
            data.write(stored(array))
            kind, shape = _SAFETENSORS[array.dtype.name], list(array.shape)
            header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, data.tell()]}
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        stream.write(len(text).to_bytes(8, "little") + text)
        data.seek(0)
        copyfileobj(data, stream)


def _write_npz(tensors: _Tensors, stream: BinaryIO) -> None:
    from zipfile import ZipFile, ZipInfo

    with ZipFile(stream, "w") as archive:
        for name in tensors:
            array = tensors[name]
            # numpy has no bfloat16, and would keep nothing but its bytes
            array = array.astype(np.float32) if array.dtype.kind == "V" else array
            with archive.open(ZipInfo(name + ".npy"), "w", force_zip64=True) as member:
                npy.write_array(member, np.asarray(array), allow_pickle=False)


_WRITERS = {".safetensors": write_safetensors, ".npz": _write_npz}
SUFFIXES = tuple(_WRITERS)
"""Of the files that any model's tensors can be written to."""
