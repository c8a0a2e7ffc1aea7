"""``nnc diff``, ``nnc patch``, ``nnc fold`` and ``nnc chain``: updates of models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from nnc_adapters.cli import console
from nnc_adapters.cli.errors import ExitCode
from nnc_adapters.cli.json_output import plain
from nnc_adapters.cli.options import file_path, force_option, json_option, limit_option, talking_options, threads_option
from nnc_core import Limits, LossyOptions, UpdateOptions
from nnc_core.planner.patterns import finder

_DIGITS = 12


def _pattern(ctx: click.Context, param: click.Parameter, value: str | None) -> Callable[[str], bool] | None:
    try:
        return None if value is None else finder(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@click.argument("base", metavar="BASE", type=file_path)
@click.argument("new", metavar="NEW", type=file_path)
@click.option("-o", "--output", type=file_path, required=True, help="The update to write.")
@click.option("--exact", is_flag=True, help="Restore NEW bit for bit; without it, changes are quantized.")
@click.option(
    "--step",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="Quantization step relative to the rms of all changes; larger steps give smaller, coarser updates.",
)
@click.option("--qp", type=int, help="Absolute step instead of --step; it doubles with every 16.")
@click.option("--no-dq", is_flag=True, help="Use uniform instead of dependent quantization.")
@click.option(
    "--sparsity",
    type=click.FloatRange(min=0, max=1, max_open=True),
    default=0.0,
    help="Leave this share of the weights' changes, the smallest, for the next update.",
)
@click.option("--structured", is_flag=True, help="With --sparsity: leave whole rows.")
@click.option("--predict", is_flag=True, help="With --state: send the difference from the last update if smaller.")
@click.option(
    "--order",
    type=click.Choice(["base", "parent", "none"]),
    default="base",
    show_default=True,
    help="The order of exact differences: by exponents of the chain's first model or of BASE, or unchanged.",
)
@click.option("--only", metavar="REGEX", callback=_pattern, help="Look only at tensors whose name matches.")
@click.option(
    "--state", type=file_path, help="Keep in this file what the next update builds on: the updates form a chain."
)
@click.option("--restart", is_flag=True, help="Begin a new chain: the update needs nothing but BASE.")
@threads_option
@limit_option
@force_option
@talking_options
@json_option
def diff(
    base: Path,
    new: Path,
    output: Path,
    exact: bool,
    only: Callable[[str], bool] | None,
    state: Path | None,
    restart: bool,
    threads: int | None,
    limits: Limits,
    force: bool,
    as_json: bool,
    **coding: Any,
) -> None:
    """Write an update: what changed from BASE to NEW, two versions of a model in any formats."""
    from nnc_adapters import updates

    if exact and coding["predict"]:
        raise click.UsageError("--exact and --predict are mutually exclusive")
    lossy = {name: coding[name] for name in ("step", "qp", "sparsity", "structured")}
    options = UpdateOptions(
        exact=exact,
        lossy=LossyOptions(dq_flag=not coding["no_dq"], **lossy),
        order=coding["order"],
        predict="cheaper" if coding["predict"] else "never",
        only=lambda name: only is None or only(name),
    )
    with console.progress("comparing") as meter:
        report = updates.diff(
            base,
            new,
            output,
            options,
            state=state,
            restart=restart,
            threads=threads,
            force=force,
            meter=meter,
            limits=limits,
        )
    if not report.same_structure:
        console.message(
            "note: the files differ in more than numbers (metadata, layout); patched ones have the structure of BASE"
        )
    if as_json:
        console.print_json(report)
    else:
        m = report.manifest
        changed = f"{report.elements} changed values in {console.counted(report.tensors, 'tensor')}"
        console.message(f"{output}: {report.size} bytes, {changed}; update {m.sequence} of the chain {_short(m.chain)}")


@click.command()
@click.argument("base", metavar="BASE", type=file_path)
@click.argument("updates", metavar="UPDATE.nnr...", type=file_path, nargs=-1, required=True)
@click.option("-o", "--output", type=file_path, required=True, help="The model to write, in the format of BASE.")
@click.option("--state", type=file_path, help="The state file that the last patch wrote; it is updated.")
@click.option("--skip-applied", is_flag=True, help="Skip updates that BASE already has.")
@click.option("--unverified", is_flag=True, help="Accept updates that do not say which model they apply to.")
@threads_option
@limit_option
@force_option
@talking_options
@json_option
def patch(
    base: Path,
    updates: tuple[Path, ...],
    output: Path,
    state: Path | None,
    skip_applied: bool,
    unverified: bool,
    threads: int | None,
    limits: Limits,
    force: bool,
    as_json: bool,
) -> None:
    """Apply updates to BASE in the order given, and write the new model; BASE is a model or a bitstream."""
    from nnc_adapters import updates as api

    with console.progress("patching") as meter:
        report = api.patch(
            base,
            updates,
            output,
            state=state,
            skip_applied=skip_applied,
            unverified=unverified,
            threads=threads,
            force=force,
            meter=meter,
            limits=limits,
        )
    if as_json:
        console.print_json(report)
    else:
        skipped = f", {report.skipped} skipped" if report.skipped else ""
        applied, tensors = console.counted(report.applied, "update"), console.counted(report.tensors, "tensor")
        console.message(f"{output}: {applied} applied{skipped}, {tensors} changed")


@click.command()
@click.argument("updates", metavar="[MODEL] UPDATE.nnr...", type=file_path, nargs=-1, required=True)
@click.option("-o", "--output", type=file_path, required=True, help="The update or bitstream to write.")
@click.option("--base", type=file_path, help="The model that the first update applies to; lossy updates need it.")
@threads_option
@limit_option
@force_option
@talking_options
@json_option
def fold(
    updates: tuple[Path, ...],
    output: Path,
    base: Path | None,
    threads: int | None,
    limits: Limits,
    force: bool,
    as_json: bool,
) -> None:
    """Merge consecutive updates into one; the first must begin a chain.

    With a MODEL in front, which may be a bitstream, make one lossless bitstream of it and all updates.
    """
    from nnc_adapters import updates as api

    with console.progress("folding") as meter:
        if base is None and len(updates) > 1 and not api.is_update(updates[0], limits=limits):
            whole = api.fold_whole(
                updates[0], updates[1:], output, threads=threads, force=force, meter=meter, limits=limits
            )
            said: Any = {"output": output, "bytes": whole.bytes_after, "updates": len(updates) - 1}
            text = f"{whole.bytes_after} bytes, a whole model with {console.counted(len(updates) - 1, 'update')}"
        else:
            manifest = api.fold(updates, output, base=base, threads=threads, force=force, meter=meter, limits=limits)
            said = {"output": output, "manifest": manifest}
            span = f"{_short(manifest.base)} to {_short(manifest.result)}"
            text = f"{output.stat().st_size} bytes, {console.counted(len(updates), 'update')} in one, from {span}"
    if as_json:
        console.print_json(said)
    else:
        console.message(f"{output}: {text}")


@click.command()
@click.argument("paths", metavar="FOLDER|UPDATE.nnr...", type=file_path, nargs=-1, required=True)
@limit_option
@json_option
def chain(paths: tuple[Path, ...], limits: Limits, as_json: bool) -> None:
    """List updates in order; the exit code is 1 if one is missing."""
    from nnc_adapters import updates as api

    found = api.links(paths, limits=limits)
    if as_json:
        console.print_json([{**plain(link), "file": str(link.file)} for link in found])
    else:
        for link in found:
            m = link.manifest
            follows = "begins a chain" if m.restart else f"follows on {link.follows.name if link.follows else '?'}"
            gap = "  UPDATE BEFORE IS MISSING" if link.missing else ""
            digests = f"{_short(m.base)} -> {_short(m.result)}"
            click.echo(console.printable(f"{link.file}  {m.kind} {m.sequence}  {digests}  {follows}{gap}"))
    if any(link.missing for link in found):
        raise click.exceptions.Exit(ExitCode.NEGATIVE_FINDING)


def _short(digest: str) -> str:
    return digest[:_DIGITS]
