"""``nnc report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nnc_adapters import report as reports
from nnc_adapters.cli import console, json_output
from nnc_adapters.cli.options import (
    PIPE,
    any_path,
    file_path,
    force_option,
    json_option,
    limit_option,
    pipe_path,
    readable,
    reading_options,
    rule_option,
    stdout,
    talking_options,
    threads_option,
)
from nnc_adapters.cli.sections import Sectioned
from nnc_adapters.report.compare import beside, settings
from nnc_adapters.shared.files import check_free, replacing
from nnc_core import Limits, Rule


def _check_compared(texts: tuple[str, ...], original: Path | None) -> None:
    for text in texts:
        try:
            is_setting = not Path(text).exists() and settings(text) is not None
        except (ValueError, TypeError) as error:
            raise click.BadParameter(str(error), param_hint="--compare") from None
        if is_setting and original is None:
            message = f"{text!r} are settings, which need ORIGINAL to be compressed with them"
            raise click.BadParameter(message, param_hint="--compare")


@click.command(cls=Sectioned)
@click.argument("source", metavar="FILE.nnr", type=any_path)
@click.argument("original", metavar="[ORIGINAL]", type=file_path, required=False)
@click.option(
    "-o",
    "--output",
    type=pipe_path,
    help="The page to write, - for stdout [default: FILE.html]; with the suffix .md or .json: Markdown or JSON.",
)
@click.option(
    "--compare",
    multiple=True,
    metavar="FILE.nnr|SETTINGS",
    help="Put another bitstream beside this one, or ORIGINAL compressed with SETTINGS such as level=9 or "
    "bits-per-weight=3; may be repeated.",
)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown to stdout, for pull requests.")
@rule_option
@reading_options
@threads_option
@limit_option
@force_option
@talking_options
@json_option
def report(
    source: Path,
    original: Path | None,
    output: Path | None,
    compare: tuple[str, ...],
    as_markdown: bool,
    rules: tuple[Rule, ...],
    reading: dict[str, Any],
    threads: int | None,
    limits: Limits,
    force: bool,
    as_json: bool,
) -> None:
    """Make a page for the browser that shows where the bytes of a bitstream go and what its tensors lost.

    The page needs no network. It has a map of the bytes by module, the largest and worst tensors, what was kept exact
    and why, and every syntax element. It shows errors if ORIGINAL is given, the model that FILE.nnr was made from; give
    the same --rule as to compress. FILE.nnr may also be - for stdin, or a container that carries NNR. With --json or
    --markdown a page is written only if --output is given.
    """
    if as_json and as_markdown:
        raise click.UsageError("--json and --markdown are mutually exclusive")
    _check_compared(compare, original)
    output = _output(source, output, printed=as_json or as_markdown)
    if output is not None and str(output) != PIPE:
        check_free(output, force=force)
    common = {**reading, "threads": threads, "limits": limits}
    with (
        readable(source) as path,
        console.progress("reporting") as meter,
        beside(compare, original, meter, **common) as others,
    ):
        found = reports.report(path, original, beside=others, rules=rules, meter=meter, label=_label(source), **common)
    if output is not None:
        _write(found, output, as_json=as_json or as_markdown, force=force)
    if as_markdown:
        click.echo(reports.markdown(found), nl=False)
    if as_json:
        console.print_json(reports.described(found))


def _label(source: Path) -> str:
    return "stdin" if str(source) == PIPE else source.name


def _output(source: Path, output: Path | None, *, printed: bool) -> Path | None:
    """Where the page goes: beside the bitstream, if nothing else is said or printed."""
    if output is not None or printed:
        return output
    if str(source) == PIPE:
        raise click.UsageError("cannot derive an output name from stdin; give --output")
    return source.with_suffix(".html")


def _write(found: reports.Report, output: Path, *, as_json: bool, force: bool) -> None:
    text = _FORMATS.get(output.suffix.lower(), reports.page)(found).encode()
    if str(output) == PIPE:
        stdout(as_json=as_json, force=force).write(text)
        return
    with replacing(output, force=force) as stream:
        stream.write(text)
    console.message(
        f"{output}: {len(text)} bytes, {len(found.stream.tensors)} tensors, {len(found.stream.units)} units"
    )


def _json(found: reports.Report) -> str:
    return "".join(json_output.pieces(reports.described(found)))


_FORMATS = {".md": reports.markdown, ".json": _json}
