"""The syntax elements of a bitstream, and the bins of its payloads, as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from nnc_adapters.cli import console
from nnc_adapters.cli.json_output import plain
from nnc_core import NnrFile
from nnc_core.bitstream import DataUnit, UnitRecord
from nnc_core.errors import NncError
from nnc_core.syntax import TracedElement

if TYPE_CHECKING:
    from nnc_core.entropy.tracing import TracedBin

_BITS_SHOWN = 32
_WIDTH = 80


def show(file: NnrFile, units: Iterable[UnitRecord], title: dict[int, str], *, bins: bool) -> None:
    """Print every element of ``units``, each unit under its ``title``; on request the bins of its payload, too."""
    starts = {unit.index: data_unit for data_unit in file.bitstream.data_units for unit in data_unit.units[:1]}
    for unit in units:
        click.echo(f"unit {unit.index}, byte {unit.offset}, {unit.size} bytes: {title[unit.index]}")
        for element in file.bitstream.trace(unit):
            for line in _element(element):
                click.echo(line)
        if bins and unit.index in starts:
            for line in _bins(starts[unit.index]):
                click.echo(line)


def _element(element: TracedElement) -> Iterator[str]:
    """Place, descriptor and name with the value; the bits at the end, or below where the line is too long."""
    value = "" if element.value is None else f" = {console.printable(str(plain(element.value)))}"
    line = f"{element.bit_offset:>8}  {element.descriptor:<7} {element.name}{value}"
    bits = element.bits if len(element.bits) <= _BITS_SHOWN else f"{element.bits[:_BITS_SHOWN]}..."
    if len(line) + 2 + len(bits) <= _WIDTH:
        yield f"{line}  {bits}".rstrip()
    else:
        yield line
        yield f"{'':>19}{bits}".rstrip()


def _bins(unit: DataUnit) -> Iterator[str]:
    from nnc_core.coder.bins import traced_bins

    try:
        for tensor in traced_bins(unit):
            spent = sum(bin_.bits for bin_ in tensor.bins)
            yield f"    bins of {console.printable(tensor.name)}: {len(tensor.bins)} for {spent:.2f} bits"
            yield from map(_bin, tensor.bins)
    except NncError as error:
        yield f"    the bins end here: {console.printable(str(error))}"


def _bin(traced: TracedBin) -> str:
    return f"{traced.bit_offset:>8}  {traced.context or 'equiprobable':<32} {traced.value:>12}  {traced.bits:9.4f} bits"
