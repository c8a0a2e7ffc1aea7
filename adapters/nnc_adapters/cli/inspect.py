"""``nnc inspect``."""

from __future__ import annotations

from dataclasses import fields
from math import prod
from pathlib import Path
from typing import Any

import click

import nnc_core
from nnc_adapters.cli import console
from nnc_adapters.cli.options import file_path, json_option, limit_option, readable
from nnc_core import Limits
from nnc_core.bitstream import UnitRecord
from nnc_core.syntax import CompressedDataUnitHeader, StartUnitHeader, TopologyUnitHeader, TracedElement
from nnc_core.tables.code_points import (
    GeneralProfileIdc,
    NnrUnitType,
    PayloadType,
    TopologyCompressionFormat,
    TopologyStorageFormat,
)

_BYTES_SHOWN = 32


@click.command()
@click.argument("source", metavar="FILE.nnr", type=file_path)
@click.option("--trace", is_flag=True, help="Show every syntax element above the arithmetic coder, with its bits.")
@limit_option
@json_option
def inspect(source: Path, trace: bool, limits: Limits, as_json: bool) -> None:
    """Show the units and tensors of a bitstream without decoding it; FILE.nnr may be - for stdin."""
    with readable(source) as path, nnc_core.open(path, limits=limits) as file:
        if as_json:
            console.print_json(_description(file, trace))
        elif trace:
            _show_trace(file)
        else:
            _show_units(file)
