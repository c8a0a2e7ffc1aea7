"""``nnc decompress --test`` and ``--list``: what gzip and zstd users ask of a file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from pathlib import Path
from typing import Any

from nnc_adapters import registry
from nnc_adapters.api import decoded_bytes
from nnc_adapters.cli import console
from nnc_adapters.cli.batch import Job, run
from nnc_adapters.cli.options import PIPE, readable
from nnc_adapters.containers import plain
from nnc_adapters.sharded.names import INDEX, is_sharded
from nnc_adapters.shared import titles
from nnc_adapters.targets import BITSTREAMS
from nnc_core import Limits, NnrFile
from nnc_core import open as open_bitstream
from nnc_core.errors import UnsupportedError
from nnc_core.tables.code_points import TopologyStorageFormat

__all__ = ["bitstreams", "bitstreams_in", "look"]


def bitstreams_in(folder: Path) -> Iterator[Path]:
    """The bitstreams in a folder and its folders, in the order of their names; a sharded model counts as one."""
    sharded = {index.parent for index in folder.rglob(INDEX)}
    files = (path for path in folder.rglob("*") if path.suffix.lower() in BITSTREAMS and path.is_file())
    yield from sorted([*sharded, *(path for path in files if path.parent not in sharded)])


def bitstreams(sources: Iterable[Path], *, recurse: bool) -> Iterator[Path]:
    """``sources``, with what is in sharded models in place of these, and in other folders if that is asked for."""
    for source in sources:
        for path in bitstreams_in(source) if recurse and source.is_dir() else (source,):
            yield from _shards(path) if is_sharded(path) else (path,)


def _shards(source: Path) -> Iterator[Path]:
    """The bitstreams of a sharded model, as long as they are those that its index lists."""
    from nnc_adapters.sharded.index import checked, read_index

    index = read_index(source)
    for shard in index.shards:
        yield checked(index.folder / shard.file, shard.content)


def look(found: Sequence[Job], threads: int | None, limits: Limits, *, test: bool, as_json: bool) -> None:
    """Decode all tensors of each bitstream, or list what is in them; print a line for each, or JSON."""
    table = console.table(">compressed", ">tensors' bytes", ">ratio", ">tensors", ">bits/w", "format", "~file")

    def work(job: Job) -> dict[str, Any]:
        with readable(job.source) as given, plain(given, limits) as path, open_bitstream(path, limits=limits) as file:
            about = _about(file)
            if test:
                _decode(file, threads)
                about["sound"] = True
        if test and not as_json:
            console.message(
                f"{_named(job.source)}: sound, {console.counted(about['tensors'], 'tensor')}, {about['decoded']} bytes"
            )
        table.add_row(*_row(job.source, about))
        return about

    try:
        run(found, work, remove=False, as_json=as_json)
    finally:
        if not test and not as_json and table.rows:
            console.print_table(table)


def _about(file: NnrFile) -> dict[str, Any]:
    size, decoded = sum(unit.size for unit in file.units if unit.within is None), decoded_bytes(file)
    weights = sum(prod(info.shape) for info in file.tensors.values())
    return {
        "compressed": size,
        "decoded": decoded,
        "ratio": size / decoded if decoded else None,
        "tensors": len(file),
        "bits_per_weight": 8 * size / weights if weights else None,
        "format": _format(file),
    }


def _format(file: NnrFile) -> str:
    if file.topology is None:
        return "tensors alone"
    try:
        return registry.adapter(file.topology.storage_format).name
    except UnsupportedError:
        return titles.name_of(TopologyStorageFormat, file.topology.storage_format)


def _decode(file: NnrFile, threads: int | None) -> None:
    total, done = decoded_bytes(file), 0
    with console.progress("testing") as meter:
        for _, array in file.decode_all(threads):
            done += array.nbytes
            if meter is not None:
                meter("testing", done, max(done, total))


def _row(source: Path, about: dict[str, Any]) -> tuple[str, ...]:
    ratio, rate = about["ratio"], about["bits_per_weight"]
    return (
        str(about["compressed"]),
        str(about["decoded"]),
        "" if ratio is None else f"{100 * ratio:.2f} %",
        str(about["tensors"]),
        "" if rate is None else f"{rate:.2f}",
        about["format"],
        _named(source),
    )


def _named(source: Path) -> str:
    return "stdin" if str(source) == PIPE else console.printable(str(source))
