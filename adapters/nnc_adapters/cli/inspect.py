"""``nnc inspect``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnc_adapters.cli import console
from nnc_adapters.cli.options import any_path, json_option, limit_option, readable
from nnc_adapters.containers import plain
from nnc_adapters.sharded.names import is_sharded
from nnc_adapters.shared import exactly, titles
from nnc_core.errors import BitstreamError, NncError
from nnc_core.lazy import LazyModule
from nnc_core.limits import Limits
from nnc_core.tables.code_points import NnrUnitType

if TYPE_CHECKING:
    from nnc_adapters.cli import shards, trace, tree
    from nnc_core import NnrFile, TensorInfo
    from nnc_core.bitstream import UnitRecord
else:
    shards, trace, tree = (LazyModule(f"nnc_adapters.cli.{name}") for name in ("shards", "trace", "tree"))

_Tensors = Mapping[str, "TensorInfo"]


def _rate(tensors: _Tensors, unit: UnitRecord) -> float:
    """The bits that a unit takes for each of its numbers; none for a unit without."""
    weights = sum(prod(tensors[name].shape) for name in unit.names if name in tensors)
    return 8 * unit.size / weights if weights else 0.0


def _qp(tensors: _Tensors, unit: UnitRecord) -> float:
    return min((i.qp for name in unit.names if (i := tensors.get(name)) and i.qp is not None), default=math.inf)


_ORDERS: dict[str, Callable[[_Tensors, UnitRecord], Any]] = {
    "position": lambda tensors, unit: unit.index,
    "size": lambda tensors, unit: -unit.size,
    "name": lambda tensors, unit: (not unit.names, unit.names, unit.index),
    "bits": lambda tensors, unit: -_rate(tensors, unit),
    "qp": _qp,
    "kind": lambda tensors, unit: (titles.kind(unit), unit.index),
}


@click.command()
@click.argument("source", metavar="FILE.nnr", type=any_path)
@click.option("--trace", "traced", is_flag=True, help="Show every syntax element above the arithmetic coder.")
@click.option("--bins", is_flag=True, help="With --trace: also show every bin of the payloads and its cost.")
@click.option("--unit", type=click.IntRange(min=0), metavar="N", help="Show only this unit.")
@click.option("--tensor", metavar="NAME", help="Show only the units of this tensor.")
@click.option("--offset", type=click.IntRange(min=0), metavar="BYTE", help="Show only the unit with this byte.")
@click.option(
    "--sort", type=click.Choice(list(_ORDERS)), default="position", show_default=True, help="The order of units."
)
@click.option("--tree", "as_tree", is_flag=True, help="Show a tree of modules with their bytes instead of units.")
@click.option("--depth", type=click.IntRange(min=1), metavar="N", help="With --tree: the number of levels to show.")
@limit_option
@json_option
def inspect(
    source: Path,
    traced: bool,
    bins: bool,
    unit: int | None,
    tensor: str | None,
    offset: int | None,
    sort: str,
    as_tree: bool,
    depth: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Show the units and tensors of a bitstream without decoding it.

    FILE.nnr may also be - for stdin, or a container that carries NNR. A damaged bitstream is shown up to the damage.
    For a sharded model the bitstreams are listed, or with --tensor the units of the one that has the tensor.
    """
    with readable(source) as given:
        if is_sharded(given):
            from nnc_adapters.sharded.index import read_index

            index = read_index(given, limits)
            if tensor is None:
                shards.show(index, as_json=as_json)
                return
            given, tensor = shards.place(index, tensor)
        with _plain(given, limits) as path, _opened(path, limits) as (file, violations):
            if violations and not _is_bitstream(file):
                raise violations[0]
            units = list(filter(_wanted(file, unit, tensor, offset), _units(file)))
            units.sort(key=partial(_ORDERS[sort], _tensors(file)))
            if as_tree:
                tree.show(file, given.name, sort=sort, depth=depth, as_json=as_json)
            elif as_json:
                console.print_json(_description(file, units, traced))
            elif traced:
                trace.show(
                    file, units, {each.index: console.printable(titles.title(each)) for each in units}, bins=bins
                )
            else:
                _show_units(file, units)
            if violations:
                raise violations[0]


@contextmanager
def _plain(source: Path, limits: Limits) -> Iterator[Path]:
    """A file with one bitstream and nothing else; ``source`` itself also where it is damaged."""
    with ExitStack() as stack:
        try:
            path = stack.enter_context(plain(source, limits))
        except BitstreamError:
            path = source
        yield path


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[tuple[NnrFile, list[BitstreamError]]]:
    """The file as far as it can be read, and what is wrong with it."""
    from nnc_core.file import NnrFile
    from nnc_core.stored import StoredBytes

    violations: list[BitstreamError] = []
    with NnrFile(StoredBytes(path), limits, sink=violations.append) as file:
        yield file, violations


def _is_bitstream(file: NnrFile) -> bool:
    from nnc_core.syntax.units import StartUnitHeader

    return any(isinstance(unit.header, StartUnitHeader) for unit in file.units[:1])


def _units(file: NnrFile) -> tuple[UnitRecord, ...]:
    rest = file.bitstream.rest
    return file.units if rest is None else (*file.units, rest)


def _wanted(file: NnrFile, index: int | None, tensor: str | None, offset: int | None) -> Callable[[UnitRecord], bool]:
    if tensor is not None and not any(tensor in unit.names for unit in file.units):
        raise click.BadParameter(f"the bitstream has no tensor {tensor!r}", param_hint="--tensor")

    def wanted(unit: UnitRecord) -> bool:
        return (
            (index is None or unit.index == index)
            and (tensor is None or tensor in unit.names)
            and (offset is None or unit.offset <= offset < unit.offset + unit.size)
        )

    return wanted


def _description(file: NnrFile, units: Sequence[UnitRecord], traced: bool) -> dict[str, Any]:
    tensors = _tensors(file)
    size = sum(unit.size for unit in _units(file) if unit.within is None)
    return {"bytes": size, "units": _described(file, units, tensors, traced), "tensors": tensors}


def _described(file: NnrFile, units: Iterable[UnitRecord], tensors: _Tensors, traced: bool) -> Iterator[dict[str, Any]]:
    for unit in units:
        elements = {"elements": [e._asdict() for e in file.bitstream.trace(unit)]} if traced else {}
        yield {**_unit(unit, tensors), **elements}


def _unit(unit: UnitRecord, tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """What a unit record says, without what else is in force for it."""
    left_out = ("context", "quantization")
    description = {f.name: getattr(unit, f.name) for f in fields(unit) if f.name not in left_out}
    exact_as = exactly.form(unit, next((tensors[name] for name in unit.names if name in tensors), None))
    return {**description, "type": titles.name_of(NnrUnitType, unit.type), "exact_as": exact_as}


def _tensors(file: NnrFile) -> Mapping[str, TensorInfo]:
    """What is known of the tensors; nothing where the damage is in their payloads."""
    try:
        return file.tensors
    except NncError:
        return {}


def _show_units(file: NnrFile, units: Sequence[UnitRecord]) -> None:
    bars = console.is_terminal()
    columns = (">#", ">bytes", *["size"] * bars, "kind", ">qp", ">bits/w", "~shape", "~exact as", "~content")
    table = console.table(*columns)
    tensors = _tensors(file)
    most = max((unit.size for unit in units), default=0)
    for unit in units:
        bar = [console.bar(unit.size, most)] * bars
        table.add_row(str(unit.index), str(unit.size), *bar, *_columns(unit, tensors))
    console.print_table(table)


def _columns(unit: UnitRecord, tensors: Mapping[str, TensorInfo]) -> tuple[str, ...]:
    infos = [tensors[name] for name in unit.names if name in tensors]
    rate = _rate(tensors, unit)
    return (
        titles.kind(unit),
        " ".join(str(info.qp) for info in infos if info.qp is not None),
        f"{rate:.2f}" if rate else "",
        " ".join("x".join(map(str, info.shape)) or "scalar" for info in infos),
        exactly.form(unit, infos[0] if infos else None),
        console.printable(titles.content(unit)),
    )
