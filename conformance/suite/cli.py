"""The command line of the conformance suite."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from conformance.suite import reports
from conformance.suite.claims import Claim, ClaimError, missing, verdict
from conformance.suite.coverage import covered
from conformance.suite.decoders import Command, Decoder, MissingDecoderError, Native, Plain
from conformance.suite.files import DEFAULT, Folder
from conformance.suite.generate import Generated, generate, update_description
from conformance.suite.pack import pack
from conformance.suite.peer import Peer
from conformance.suite.procedures import FAILED, TOLERANCE, outcomes_of, refusals
from conformance.suite.rows import PLATFORMS, Row, all_rows, selected
from conformance.suite.verify import report, verified
from nnc_core.bitstream.validate import PROFILES

_ERRORS = Console(stderr=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 if all is well, 1 for a negative finding, 2 for wrong usage."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_list(commands)
    _add_generate(commands)
    _add_run(commands)
    _add_verify(commands)
    _add_pack(commands)
    _add_coverage(commands)
    return parser


def _add_rows(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("rows", nargs="*", metavar="ROW", help="a number such as 1.16, or a part of an id; all if none")
    parser.add_argument("--small", action="store_true", help="only rows that any decoder gets through in seconds")
    parser.add_argument(
        "--table", type=int, choices=(1, 2, 3), help="1: whole models, 2: incremental ones, 3: beyond these"
    )
    parser.add_argument("--platform", choices=PLATFORMS, default="full", help="only the rows of this bit depth (4.5.1)")


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--suite", type=Path, default=DEFAULT, help=f"the folder of the suite (default: {DEFAULT})")


def _rows(options: argparse.Namespace) -> list[Row]:
    rows = selected(all_rows(), options.rows, small=options.small, platform=options.platform, table=options.table)
    if not rows:
        raise SystemExit("there is no such row; 'list' shows all")
    return rows


# --- list -------------------------------------------------------------------------------------------------------------


def _add_list(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("list", help="what the suite has")
    _add_rows(parser)
    parser.add_argument("--json", action="store_true", help="for programs; with the whole configuration of each row")
    parser.set_defaults(command=_list)


def _list(options: argparse.Namespace) -> int:
    rows = _rows(options)
    if options.json:
        print(json.dumps([row.described() for row in rows], indent=1))
    else:
        Console().print(reports.listing(rows))
    return 0


# --- generate ---------------------------------------------------------------------------------------------------------


def _add_generate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("generate", help="write the bitstreams, and what decoders must make of them")
    _add_rows(parser)
    _add_folder(parser)
    parser.add_argument("--full-size", action="store_true", help="whole models of their true sizes (takes gigabytes)")
    parser.add_argument("--update", action="store_true", help="let suite.toml have the digests of what is written")
    parser.set_defaults(command=_generate)


def _generate(options: argparse.Namespace) -> int:
    made = [_noted(each) for each in generate(_rows(options), Folder(options.suite), full_size=options.full_size)]
    if options.update:
        update_description(made)
    problems = [] if options.update or options.full_size else [p for each in made for p in each.problems]
    for problem in problems:
        _ERRORS.print(f"[red]{problem}")
    size = sum(sum(each.bytes) for each in made)
    _ERRORS.print(f"{len(made)} rows, {size} bytes, in {options.suite}")
    return 1 if problems else 0


def _noted(made: Generated) -> Generated:
    _ERRORS.print(f"{made.row.name:5} {sum(made.bytes):9} bytes  {made.row.id}", highlight=False)
    return made


# --- run --------------------------------------------------------------------------------------------------------------


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("run", help="test a decoder with the bitstreams (Part 18, 4.5)")
    _add_rows(parser)
    _add_folder(parser)
    parser.add_argument(
        "--decoder",
        default="native",
        help="native (default), plain, peer, or any command: COMMAND IN.nnr OUT.npz [--state DIR] [--oob FILE]",
    )
    parser.add_argument("--claim", type=Path, help="a TOML file in which the decoder says what it supports")
    parser.add_argument("--negative", action="store_true", help="test refusals of bitstreams that break a rule instead")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE, help="how much floats may differ (default: 1e-6)")
    parser.add_argument("--timeout", type=float, default=600, help="seconds for each run of a command")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write JUnit XML as well")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page as well")
    parser.set_defaults(command=_run)


def _decoder(name: str, timeout: float) -> Decoder:
    """The decoder that a user means: a name that is known here, or else a command."""
    known: dict[str, Callable[[], Decoder]] = {"native": Native, "plain": Plain, "peer": Peer}
    return known[name]() if name in known else Command(name, timeout)  # type: ignore[return-value]


def _run(options: argparse.Namespace) -> int:
    try:
        decoder = _decoder(options.decoder, options.timeout)
        claim = Claim.load(options.claim) if options.claim else Claim(platform=options.platform)
    except (ClaimError, MissingDecoderError) as error:
        _ERRORS.print(str(error))
        return 2
    return _run_negative(decoder, options) if options.negative else _run_rows(decoder, claim, options)


def _run_negative(decoder: Decoder, options: argparse.Namespace) -> int:
    found = list(refusals(decoder, options.suite / "negative"))
    if options.json:
        print(json.dumps(reports.refusals_as_dictionary(found, decoder.name), indent=1))
    else:
        Console().print(reports.refusals_table(found, decoder.name))
    return 1 if any(each.status == FAILED for each in found) else 0


def _run_rows(decoder: Decoder, claim: Claim, options: argparse.Namespace) -> int:
    rows, folder, name = _rows(options), Folder(options.suite), claim.decoder or decoder.name
    if (absent := _absent(rows, folder)) is not None:
        return absent
    outcomes = list(outcomes_of(decoder, rows, folder, options.tolerance, claim.reason_against))
    if options.junit:
        options.junit.write_text(reports.junit(outcomes, name), "utf-8")
    if options.html:
        options.html.write_text(reports.html(outcomes, name, claim, all_rows()), "utf-8")
    if options.json:
        print(json.dumps(reports.as_dictionary(outcomes, name, claim, all_rows()), indent=1))
    else:
        Console().print(reports.table(outcomes, name), verdict(claim, all_rows(), outcomes), highlight=False)
    claimed = bool(options.claim and missing(claim, all_rows(), outcomes))
    return 1 if claimed or any(outcome.status == FAILED for outcome in outcomes) else 0


def _absent(rows: Sequence[Row], folder: Folder) -> int | None:
    """The exit code where files of the rows are not there, which is said."""
    absent = next((name for row in rows for name in row.files if not folder.expected(name).is_file()), None)
    if absent is None:
        return None
    _ERRORS.print(f"{folder.stream(absent)} is not there; make it with 'python -m conformance generate'")
    return 2


# --- verify -----------------------------------------------------------------------------------------------------------


def _add_verify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("verify", help="test bitstreams of any encoder (Part 18, 4.6)")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--updates", action="store_true", help="the files are updates that follow each other")
    parser.add_argument("--profile", choices=PROFILES, default="2024", help="the edition (default: 2024)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(command=_verify)


def _verify(options: argparse.Namespace) -> int:
    found = list(verified(options.files, updates=options.updates, profile=options.profile))
    print(report(found, as_json=options.json))
    return 1 if any(each.problems for each in found) else 0


# --- pack -------------------------------------------------------------------------------------------------------------


def _add_pack(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("pack", help="pack the suite into an archive for people who write decoders")
    _add_folder(parser)
    parser.add_argument("-o", dest="target", type=Path, required=True, metavar="FILE.zip")
    parser.set_defaults(command=_pack)


def _pack(options: argparse.Namespace) -> int:
    rows, folder = all_rows(), Folder(options.suite)
    if (absent := _absent(rows, folder)) is not None:
        return absent
    _ERRORS.print(f"{options.target}: {pack(rows, folder, options.target)} bytes")
    return 0


# --- coverage ---------------------------------------------------------------------------------------------------------


def _add_coverage(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("coverage", help="which rows exercise which element, code point, context and branch")
    _add_rows(parser)
    _add_folder(parser)
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(command=_coverage)


def _coverage(options: argparse.Namespace) -> int:
    rows, folder = _rows(options), Folder(options.suite)
    if (absent := _absent(rows, folder)) is not None:
        return absent
    found = covered(rows, folder)
    if options.json:
        print(json.dumps(found.described(), indent=1))
    else:
        Console().print(*reports.coverage_tables(found))
    for what in found.missing():
        _ERRORS.print(f"[red]{what} is not exercised, without a stated reason", highlight=False)
    return 1 if found.missing() else 0
