"""``nnc verify``."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import click

import nnc_core
from nnc_adapters import registry
from nnc_adapters.cli import console
from nnc_adapters.cli.errors import ExitCode
from nnc_adapters.cli.options import (
    drop_optimizer_option,
    file_path,
    json_option,
    limit_option,
    pipe_path,
    readable,
    threads_option,
)
from nnc_adapters.comparison import TensorComparison, compare, compare_topology
from nnc_adapters.containers import plain
from nnc_adapters.files import about
from nnc_core import Limits


@click.command()
@click.argument("original", metavar="ORIGINAL", type=file_path)
@click.argument("compressed", metavar="FILE.nnr", type=pipe_path)
@click.option("--min-sqnr", type=float, metavar="DB", help="The worst signal-to-noise ratio that is acceptable.")
@drop_optimizer_option
@threads_option
@limit_option
@json_option
def verify(
    original: Path,
    compressed: Path,
    min_sqnr: float | None,
    drop_optimizer: bool,
    threads: int | None,
    limits: Limits,
    as_json: bool,
) -> None:
    """Compare a bitstream with the model it was made from.

    Exits with 1 if the topology differs, a tensor is missing or has another shape, integers changed, or an error is
    not finite or worse than asked for. FILE.nnr may be - for stdin, and a container that carries NNR.
    """
    adapter = registry.configured(registry.find(original), limits=limits, keep_optimizer=not drop_optimizer)
    with about(original):
        model = adapter.read(original)
    with readable(compressed) as given, plain(given, limits) as path, nnc_core.open(path, limits=limits) as file:
        topology = compare_topology(model.topology, file.topology)
        with file.decoding_ahead(threads) as decoded:
            tensors = [_judged(result, min_sqnr) for result in compare(model.tensors, decoded)]
    accepted = topology != "different" and all(t.problem is None for t in tensors)
    if as_json:
        console.print_json({"accepted": accepted, "topology": topology, "tensors": tensors})
    else:
        _show(tensors)
        console.message(f"topology {topology}, {_verdict(tensors)}")
    if not accepted:
        raise click.exceptions.Exit(ExitCode.NEGATIVE_FINDING)


def _judged(result: TensorComparison, min_sqnr: float | None) -> TensorComparison:
    too_noisy = min_sqnr is not None and result.sqnr_db is not None and result.sqnr_db < min_sqnr
    if result.problem or not too_noisy:
        return result
    return replace(result, problem=f"less than {min_sqnr:g} dB")


def _verdict(tensors: list[TensorComparison]) -> str:
    bad = sum(t.problem is not None for t in tensors)
    return f"{bad} of {len(tensors)} tensors not acceptable" if bad else f"all {len(tensors)} tensors acceptable"


def _show(tensors: list[TensorComparison]) -> None:
    table = console.table("~tensor", "dtype", "~shape", ">max error", ">relative", ">SQNR dB", "~problem")
    for t in tensors:
        shape = "x".join(map(str, t.shape)) or "scalar"
        numbers = [_number(t.max_abs_error, ".3g"), _number(t.relative_error, ".3g"), _number(t.sqnr_db, ".1f")]
        table.add_row(console.printable(t.name), t.dtype, shape, *numbers, t.problem or "")
    console.print_table(table)


def _number(value: float | None, form: str) -> str:
    if value is None:
        return ""
    return "exact" if value == math.inf and form == ".1f" else format(value, form)
