"""Files in, files out: compress a model into NNR, and bring it back."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

import nnc_core
from nnc_adapters import registry
from nnc_adapters.base import Adapter
from nnc_adapters.files import replacing
from nnc_core import CodingParameters, Limits, ModelError
from nnc_core.nnr_model import Topology

__all__ = ["CompressReport", "DecompressReport", "Progress", "compress", "decompress"]

Progress = Callable[[int, int], None]
"""Called with the number of tensors done and their total."""

SUFFIX = ".nnr"


@dataclass(frozen=True, slots=True)
class CompressReport:
    """What `compress` did. ``bytes_before`` counts the model with its weights, wherever the format keeps these."""

    bytes_before: int
    bytes_after: int
    tensors: int
    weights: int
    seconds: float

    @property
    def percent(self) -> float:
        """The size of the bitstream in percent of the model's."""
        return 100 * self.bytes_after / max(self.bytes_before, 1)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the whole bitstream, topology included, for each number in a coded tensor."""
        return 8 * self.bytes_after / max(self.weights, 1)


@dataclass(frozen=True, slots=True)
class DecompressReport:
    """What `decompress` did; ``target`` is the file it wrote."""

    target: Path
    tensors: int
    weights: int
    seconds: float


class _Watched(Mapping[str, NDArray[Any]]):
    """Tensors that are counted as they pass, each name once."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]], progress: Progress | None = None) -> None:
        self._tensors = tensors
        self._progress = progress
        self._seen: dict[str, tuple[int, int]] = {}

    def __getitem__(self, name: str) -> NDArray[Any]:
        array = self._tensors[name]
        self._seen[name] = array.size, array.nbytes
        if self._progress is not None:
            self._progress(len(self._seen), len(self._tensors))
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    @property
    def weights(self) -> int:
        return sum(size for size, _ in self._seen.values())

    @property
    def nbytes(self) -> int:
        return sum(nbytes for _, nbytes in self._seen.values())


def compress(
    source: str | Path,
    target: str | Path | BinaryIO | None = None,
    *,
    parameters: CodingParameters | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> CompressReport:
    """Compress the model ``source`` into the NNR bitstream ``target``.

    ``target`` is a path (default: that of ``source`` with the suffix ``.nnr``), or a binary file open for writing. A
    file appears complete or not at all, and replaces an existing one only with ``force``: `FileExistsError`. Raises
    `ModelError` where the model cannot be read, `UnsupportedError` and `MissingDependencyError` where its format
    cannot.
    """
    started = time.perf_counter()
    source = Path(source)
    if target is None:
        target = source.with_suffix(SUFFIX)
    if isinstance(target, str | Path):
        with replacing(Path(target), force=force) as stream:
            return _compress(source, stream, parameters, threads, progress, started)
    return _compress(source, target, parameters, threads, progress, started)


def _compress(
    source: Path,
    stream: BinaryIO,
    parameters: CodingParameters | None,
    threads: int | None,
    progress: Progress | None,
    started: float,
) -> CompressReport:
    model = registry.find(source).read(source)
    tensors = _Watched(model.tensors)
    watched = replace(model, tensors=tensors)
    after = nnc_core.write(stream, watched, parameters=parameters, threads=threads, progress=progress)
    before = max(_bytes_on_disk(source), tensors.nbytes)
    return CompressReport(before, after, len(tensors), tensors.weights, time.perf_counter() - started)


def decompress(
    source: str | Path,
    target: str | Path | None = None,
    *,
    into: str | Path | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    limits: Limits | None = None,
) -> DecompressReport:
    """Restore the model in the NNR bitstream ``source`` as ``target``, in the format it had.

    Without ``target`` it lies beside ``source``, with the usual suffix of its format. ``into`` names a model whose
    weights are replaced instead; a bitstream without topology needs it. An existing file is replaced only with
    ``force``: `FileExistsError`. Raises `BitstreamError`, `UnsupportedError` or `LimitError` where the bitstream cannot
    be decoded, `ModelError` where its tensors do not fit the model.
    """
    started = time.perf_counter()
    source = Path(source)
    into = None if into is None else Path(into)
    with nnc_core.open(source, limits=limits) as file:
        adapter = _adapter_for(file.topology, into, source)
        target = source.with_suffix(_suffix(adapter, file.topology, into)) if target is None else Path(target)
        if not force and os.path.lexists(target):  # the adapter would find out only after its preparations
            raise FileExistsError(f"{target} exists; use force to replace it")
        with file.decoding_ahead(threads) as decoded:
            tensors = _Watched(decoded, progress)
            adapter.write(tensors, file.topology, target, into=into, force=force)
        return DecompressReport(target, len(tensors), tensors.weights, time.perf_counter() - started)


def _suffix(adapter: Adapter, topology: Topology | None, into: Path | None) -> str:
    if into is not None:
        return into.suffix
    return adapter.suffixes[0] if topology is None else adapter.default_suffix(topology)


def _adapter_for(topology: Topology | None, into: Path | None, source: Path) -> Adapter:
    if into is not None:
        return registry.find(into)
    if topology is None:
        raise ModelError("carries no topology; name a model to decompress into", file=str(source))
    return registry.adapter(topology.storage_format)


def _bytes_on_disk(path: Path) -> int:
    files = (p for p in path.rglob("*") if p.is_file()) if path.is_dir() else (path,)
    return sum(p.stat().st_size for p in files)
