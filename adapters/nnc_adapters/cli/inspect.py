"""``nnc inspect``."""

from __future__ import annotations

from dataclasses import fields
from enum import IntEnum
from math import prod
from pathlib import Path
from typing import Any

import click

import nnc_core
from nnc_adapters.cli import console
from nnc_adapters.cli.options import json_option, limit_option, pipe_path, readable
from nnc_adapters.containers import plain
from nnc_core import Limits, NnrFile
from nnc_core.bitstream import UnitRecord
from nnc_core.syntax import (
    CompressedDataUnitHeader,
    ModelParameterSet,
    QuantizationUnitHeader,
    StartUnitHeader,
    TopologyUnitHeader,
    TracedElement,
)
from nnc_core.tables.code_points import (
    GeneralProfileIdc,
    NnrUnitType,
    QuantizationStorageFormat,
    TopologyCompressionFormat,
    TopologyStorageFormat,
)

_BITS_SHOWN = 64


@click.command()
@click.argument("source", metavar="FILE.nnr", type=pipe_path)
@click.option("--trace", is_flag=True, help="Show every syntax element above the arithmetic coder, with its bits.")
@limit_option
@json_option
def inspect(source: Path, trace: bool, limits: Limits, as_json: bool) -> None:
    """Show the units and tensors of a bitstream without decoding it.

    FILE.nnr may be - for stdin, and a container that carries NNR.
    """
    with readable(source) as given, plain(given, limits) as path, nnc_core.open(path, limits=limits) as file:
        if as_json:
            console.print_json(_description(file, trace))
        elif trace:
            _show_trace(file)
        else:
            _show_units(file)


def _description(file: NnrFile, trace: bool) -> dict[str, Any]:
    units = [_unit(unit) for unit in file.units]
    if trace:
        for described, unit in zip(units, file.units, strict=True):
            described["elements"] = [element._asdict() for element in file.bitstream.trace(unit)]
    return {"bytes": sum(unit.size for unit in file.units), "units": units, "tensors": file.tensors}


def _unit(unit: UnitRecord) -> dict[str, Any]:
    """What a unit record says, without the context that it was read in."""
    description = {f.name: getattr(unit, f.name) for f in fields(unit) if f.name != "context"}
    return {**description, "type": _name(NnrUnitType, unit.type)}


def _show_units(file: NnrFile) -> None:
    table = console.table(
        "unit", ">offset", ">bytes", "payload", ">qp", ">dq", ">scan", ">bits/weight", "~shape", "~content"
    )
    for unit in file.units:
        table.add_row(_name(NnrUnitType, unit.type), str(unit.offset), str(unit.size), *_columns(unit, file))
    console.print_table(table)


def _columns(unit: UnitRecord, file: NnrFile) -> tuple[str, ...]:
    content = console.printable(_content(unit))
    h = unit.header
    if not isinstance(h, CompressedDataUnitHeader):
        return *[""] * 6, content
    infos = [file.tensors[name] for name in unit.names if name in file.tensors]
    weights = sum(prod(info.shape) for info in infos)
    return (
        h.nnr_compressed_data_unit_payload_type.name,
        " ".join(str(info.qp) for info in infos if info.qp is not None),
        str(int(h.dq_flag)),
        str(h.scan_order),
        f"{8 * unit.size / weights:.3f}" if weights else "",
        " ".join("x".join(map(str, info.shape)) or "scalar" for info in infos),
        content,
    )


def _content(unit: UnitRecord) -> str:
    h = unit.header
    if isinstance(h, StartUnitHeader):
        return _name(GeneralProfileIdc, h.general_profile_idc)
    if isinstance(h, ModelParameterSet):
        quantized = h.mps_qp_density is not None
        return f"qp {h.mps_quantization_parameter}, qp_density {h.mps_qp_density}" if quantized else ""
    if isinstance(h, TopologyUnitHeader):
        storage = _name(TopologyStorageFormat, h.topology_storage_format)
        return f"{storage} {_name(TopologyCompressionFormat, h.topology_compression_format)}"
    if isinstance(h, QuantizationUnitHeader):
        storage = _name(QuantizationStorageFormat, h.quantization_storage_format)
        return f"{storage} {_name(TopologyCompressionFormat, h.quantization_compression_format)}"
    return " ".join(unit.names)


def _name(kind: type[IntEnum], value: int) -> str:
    """The standard's name for a code point, or the number of a reserved or private one."""
    return kind(value).name if value in kind._value2member_map_ else str(value)


def _show_trace(file: NnrFile) -> None:
    for unit in file.units:
        click.echo(f"unit {unit.index}, byte {unit.offset}: {_name(NnrUnitType, unit.type)}")
        for element in file.bitstream.trace(unit):
            click.echo(_line(element))


def _line(element: TracedElement) -> str:
    bits = element.bits if len(element.bits) <= _BITS_SHOWN else f"{element.bits[:_BITS_SHOWN]}..."
    value = "" if element.value is None else f" = {console.printable(str(console.plain(element.value)))}"
    return f"  {element.bit_offset:>8}  {element.descriptor:<8} {element.name}{value}  {bits}"
