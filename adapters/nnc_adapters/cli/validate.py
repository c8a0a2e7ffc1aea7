"""``nnc validate``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from nnc_adapters.cli import console
from nnc_adapters.cli.errors import ExitCode
from nnc_adapters.cli.options import any_path, json_option, limit_option, readable
from nnc_adapters.containers import plain
from nnc_core import Limits, NnrFile
from nnc_core.bitstream.parts import begins_bitstream
from nnc_core.bitstream.validate import PROFILES, violations
from nnc_core.errors import BitstreamError, UnsupportedError, UpdateError

_WIDTH = 80


@click.command()
@click.argument("source", metavar="FILE.nnr", type=any_path)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="2024",
    show_default=True,
    help="Also check against an edition, or against the draft of a 3GPP profile.",
)
@click.option("--headers-only", is_flag=True, help="Do not decode the payloads.")
@limit_option
@json_option
def validate(source: Path, profile: str, headers_only: bool, limits: Limits, as_json: bool) -> None:
    """List every violation of ISO/IEC 15938-17 in a bitstream, with its position, rule and an explanation.

    The exit code is 1 if there are any. FILE.nnr may also be - for stdin, or a container that carries NNR.
    """
    with readable(source) as given:
        data = _bitstream(given, limits)
    found = violations(data, limits, profile=profile)
    unchecked: list[str] = []
    if not found and not headers_only:
        found = list(_in_payloads(NnrFile(data, limits), unchecked))
    if as_json:
        console.print_json({"valid": not found, "violations": list(map(_described, found)), "not_checked": unchecked})
    else:
        _show(found, unchecked)
    if found:
        raise click.exceptions.Exit(ExitCode.NEGATIVE_FINDING)


def _bitstream(path: Path, limits: Limits) -> bytes:
    """The bytes of a bitstream, as they are, or of what a container carries."""
    if path.is_file():
        data = path.read_bytes()
        if begins_bitstream(data[:8]):
            return data
    with plain(path, limits) as carried:
        return carried.read_bytes()


def _in_payloads(file: NnrFile, unchecked: list[str]) -> Iterator[BitstreamError]:
    """What shows only when tensors are decoded; ``unchecked`` gets what cannot be, without more than the file."""
    for name in {info.unit: name for name, info in file.tensors.items()}.values():
        violation = _decoding_problem(file, name, unchecked)
        if violation is not None:
            yield violation


def _decoding_problem(file: NnrFile, name: str, unchecked: list[str]) -> BitstreamError | None:
    try:
        file.decode(name)
    except BitstreamError as error:
        return error
    except (UnsupportedError, UpdateError) as error:
        unchecked.append(f"unit {file.tensors[name].unit}: {error}")
    return None


def _described(violation: BitstreamError) -> dict[str, Any]:
    rule = violation.rule
    return {
        "rule": rule.id,
        "clause": rule.clause,
        "unit": violation.unit,
        "bit_offset": violation.bit_offset,
        "element": violation.element,
        "tensor": violation.tensor,
        "message": violation.message,
        "expected": violation.expected,
        "explanation": rule.sentence,
    }


def _show(found: list[BitstreamError], unchecked: list[str]) -> None:
    for violation in found:
        rule = violation.rule
        click.echo(textwrap.fill(console.printable(f"{violation}"), _WIDTH))
        explanation = f"{rule.sentence} [{rule.id}, clause {rule.clause}]"
        click.echo(textwrap.fill(explanation, _WIDTH, initial_indent="  ", subsequent_indent="  "))
    for message in unchecked:
        click.echo(console.printable(f"not checked: {message}"))
    count = len(found)
    click.echo("no violations" if not count else f"{count} violation{'s' * (count > 1)}")
    if found and found[0].unit is not None:
        click.echo(f"nnc inspect --trace --unit {found[0].unit} shows the place of the first")
