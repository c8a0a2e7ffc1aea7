"""What a fuzz run does with hostile files: all that the suite does with files of their kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

import nnc_adapters
from annex_tests.fuzz.guard import AbsentError, Box, guarded
from conformance.fuzz import damage
from conformance.fuzz.damage import Damage
from nnc_adapters import containers, registry, verification
from nnc_adapters.api import write_into
from nnc_adapters.base import Adapter
from nnc_adapters.containers import Container, Extendable
from nnc_adapters.shared import packing
from nnc_core.bitstream.parts import join
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel, Topology

Files = Mapping[str, bytes]
Use = Callable[[Files, Box], None]
Assembly = Callable[[Files], Files]

LIMITS = Limits(tensor_elements=1 << 20, decoded_bytes=1 << 24, units=1 << 12, topology_bytes=1 << 22)
"""Enough for all that the cases are made from."""


@dataclass(frozen=True)
class Reader:
    """Something that reads files; ``seeds`` are valid ones, by name, or the parts that ``use`` makes files from.

    ``names`` are those that a file may get instead of its own. One that is ``slow``, or reads
    what others are there for, has fewer cases.
    """

    name: str
    seeds: Mapping[str, Files]
    use: Use
    damages: tuple[Damage, ...] = damage.ANY
    names: tuple[str, ...] = ()
    slow: bool = False


def exercise(reader: Reader, files: Files) -> str:
    """Have ``files`` read; gives ``read`` or the class of the first error on purpose. Any other error is a finding."""
    with guarded() as box:
        try:
            reader.use(files, box)
        except AbsentError:
            return "absent"
        return box.ending


def as_they_are(files: Files) -> Files:
    """No parts, but files already."""
    return files


# Models ---------------------------------------------------------------------------------------------------------------


def model(adapter: Adapter, name: str, assemble: Assembly = as_they_are) -> Use:
    """Reads, writes, compresses and restores the model ``name`` among the files that ``assemble`` makes."""

    def use(files: Files, box: Box) -> None:
        path = box.put(assemble(files), name)
        sniff(path)
        with box.step():
            _use_model(adapter, path, box)

    return use


def sniff(path: Path) -> None:
    """Ask everybody whether they know what is at ``path``."""
    for each in (*registry.adapters(), *containers.carriers()):
        if not isinstance(each.sniff(path), bool):
            raise TypeError(f"{each.name} neither knows nor does not know")


def _use_model(adapter: Adapter, path: Path, box: Box) -> None:
    found = adapter.read(path)
    tensors = checked(found)
    same = box.target(f"same-{path.name}")
    with box.step(same):
        adapter.write(tensors, found.topology, same)
    into = box.target(f"into-{path.name}")
    with box.step(into):
        write_into(adapter, dict(list(tensors.items())[:1]), path, into)
    coded = box.target("coded.nnr")
    with box.step(coded):
        nnc_adapters.compress(path, coded, threads=1)
        suffixes = adapter.suffixes_of(found.topology) if found.topology else ()
        restored = box.target("restored" + next(iter(suffixes), ""))
        with box.step(restored):
            nnc_adapters.decompress(coded, restored, threads=1)
        verification.verify(path, coded, threads=1)


def checked(found: SourceModel) -> dict[str, NDArray[Any]]:
    """All tensors of a model, which are no more than a small file can have."""
    tensors = {name: found.tensors[name] for name in found.tensors}
    if sum(array.nbytes for array in tensors.values()) > LIMITS.decoded_bytes:
        raise ValueError("more came out than there can be")
    return tensors


# Topologies -----------------------------------------------------------------------------------------------------------


def topology(
    adapter: Adapter, target: str, tensors: Mapping[str, NDArray[Any]], assemble: Callable[[Files], Topology]
) -> Use:
    """Writes the model of a topology that may lie, and reads what came of it."""

    def use(files: Files, box: Box) -> None:
        lying = assemble(files)
        with box.step():
            adapter.default_suffix(lying)
        path = box.target(target)
        with box.step(path):
            adapter.write(tensors, lying, path)
        if path.exists():
            with box.step():
                checked(adapter.read(path))

    return use


def topologies(
    adapter: Adapter,
    honest: Mapping[str, tuple[str, Files]],
    apart: Callable[[Topology], Files],
    assemble: Callable[[Files], Topology],
    **options: Any,
) -> list[Reader]:
    """A reader for the topology of each of the ``honest`` models: by name, the path to it and the files."""
    found = []
    for name, (path, files) in honest.items():
        with guarded() as box:
            read = adapter.read(box.put(files, path))
            tensors = {key: array.copy() for key, array in checked(read).items()}
        assert read.topology is not None
        seeds = {name: apart(read.topology)}
        use = topology(adapter, path.rpartition("/")[2], tensors, assemble)
        found.append(Reader(f"topology/{adapter.name}/{name}", seeds, use, **options))
    return found


def unpacked(found: Topology) -> Files:
    """The parts of a topology that is made of parts."""
    return packing.unpack(found.data, LIMITS)


def packed(adapter: Adapter, files: Files) -> Topology:
    """A topology of parts."""
    return Topology(adapter.topology_storage_format, packing.pack(files))


# Containers -----------------------------------------------------------------------------------------------------------


def container(each: Container, name: str, assemble: Assembly = as_they_are) -> Use:
    """Reads the bitstreams in a container, takes them out, and puts them into others."""

    def use(files: Files, box: Box) -> None:
        path = box.put(assemble(files), name)
        sniff(path)
        with box.step(), each.open(path, LIMITS) as items:
            join({key: items[key] for key in items}, LIMITS)
        carry(path, box)
        if isinstance(each, Extendable):
            extended = box.target("extended")
            with box.step(extended):
                each.write_into(path, extended, {"b": b"\0\4\1\0", "e": b"\0\4\1\0"})

    return use


def carry(path: Path, box: Box) -> None:
    """Take the bitstreams in ``path`` out, and put them into another container."""
    for name, way in {"plain.nnr": containers.extract, "other.zip": partial(containers.embed, per_tensor=True)}.items():
        target = box.target(name)
        with box.step(target):
            way(path, target, limits=LIMITS)
