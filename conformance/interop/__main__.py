"""Does the public codec NNCodec read what we write, and we what it writes; and whose files are smaller?

    python -m conformance.interop [--json]

For each case: both decoders return the same bits from our bitstreams (with row skipping as the encoder chooses, and
without) and from the peer's; and ours is never larger than the peer's at equal settings. Exit code 1 if anything of
this fails, 2 if the peer is not there. Combinations in which the peer itself is defective are left out where the
cases are made, and named there. In the end the peer decodes the rows of the conformance suite that it supports; of the
others it says why not. ``make interop`` sets up the peer.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import nnc_core
from conformance.bench.checkpoint import read_checkpoint
from conformance.bench.synthetic import Tensors, laplace, matrices, vectors
from conformance.interop import features as interop_features
from conformance.interop import quality as interop_quality
from conformance.interop import updates as interop_updates
from conformance.suite import reports
from conformance.suite.files import Folder
from conformance.suite.generate import generate
from conformance.suite.peer import Peer, reason_against
from conformance.suite.procedures import Outcome, outcomes_of
from conformance.suite.rows import all_rows, runs
from conformance.support import peer_codec
from conformance.support.shared import SHARED
from nnc_core import CodingParameters, NnrFile
from nnc_core.bitstream import UnitRecord
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.tables.code_points import PayloadType


def absolute(**parameters: Any) -> CodingParameters:
    """Parameters with the peer's own steps, where no others are given: it has none that follow from the tensors."""
    return CodingParameters(**{"qp": -38, "nonweight_qp": -75, "qp_density": 2} | parameters)


@dataclass(frozen=True)
class Case:
    """Tensors and settings; what the peer's encoder is told beyond them, or that it is not asked."""

    name: str
    tensors: Tensors
    parameters: CodingParameters = field(default_factory=lambda: absolute())
    row_skip: bool = False
    codebook: int = 0
    peer_encodes: bool = True


@dataclass
class Result:
    """The sizes in bytes (payloads: of the data units, without headers), the raw tensors, and what went wrong."""

    case: str
    raw: int
    ours: int
    ours_without_row_skip: int
    theirs: int | None = None
    our_payload: int = 0
    their_payload: int | None = None
    failures: list[str] = field(default_factory=list)


def cases() -> Iterator[Case]:
    yield from settings()
    yield from scans()
    yield from row_skipping_and_codebooks()
    yield from ours_alone()
    yield from checkpoints()


def settings() -> Iterator[Case]:
    every = matrices() | vectors()
    yield Case("default", every)
    yield Case("no dq", every, absolute(dq_flag=False))
    yield Case("no opt", every, absolute(param_opt_flag=False))
    yield Case("no dq, no opt", every, absolute(dq_flag=False, param_opt_flag=False))
    for density in range(5):
        p = absolute(qp=-10 * 2**density, nonweight_qp=-19 * 2**density, qp_density=density)
        yield Case(f"density {density}", every, p)
    for unary in (0, 1, 4, 9, 15, 30):
        yield Case(f"unary {unary}", every, absolute(cabac_unary_length_minus1=unary))
    for qp in (-70, -24):
        yield Case(f"qp {qp}", every, absolute(qp=qp, nonweight_qp=qp))
        yield Case(f"qp {qp}, no dq", every, absolute(qp=qp, nonweight_qp=qp, dq_flag=False))


def scans() -> Iterator[Case]:
    """Block scans; the peer's encoder fails for tensors with one row or column, so there are no `vectors` here.

    In dependent quantization the peer takes a skipped row of a block to be as wide as the tensor, which it gets away
    with where both widths are multiples of four; our encoder skips none elsewhere.
    """
    even = {name: tensor for name, tensor in matrices().items() if tensor[0].size % 4 == 0}
    for scan in range(1, 5):
        p = absolute(scan_order=scan)
        yield Case(f"scan {scan}", matrices(), p)
        yield Case(f"scan {scan}, even widths, peer skips rows", even, p, row_skip=True)
        yield Case(f"scan {scan}, no dq", matrices(), replace(p, dq_flag=False))


def row_skipping_and_codebooks() -> Iterator[Case]:
    """What the peer's encoder does only when told to."""
    every = matrices() | vectors()
    yield Case("peer skips rows", every, row_skip=True)
    for scan in range(5):
        p = absolute(scan_order=scan, dq_flag=False)
        yield Case(f"peer skips rows, scan {scan}, no dq", every if scan == 0 else matrices(), p, row_skip=True)
    few = {f"levels.{n}": np.sign(laplace((40, 30), n, n)) * laplace((1, 1), 9, n) for n in range(1, 4)}
    for mode in (1, 2):
        for dq in (True, False):
            name = f"peer's codebook {mode}" + ("" if dq else ", no dq")
            yield Case(name, few, absolute(dq_flag=dq, codebook_flag=True), codebook=mode)


def ours_alone() -> Iterator[Case]:
    """What the peer's encoder cannot write (raw floats, blocks of thin tensors) or has no option for (profile 0)."""
    every = matrices() | vectors()
    for scan in (0, 3):
        p = absolute(general_profile_idc=0, scan_order=scan)
        yield Case(f"profile 0, scan {scan}", every, p, peer_encodes=False)
    for scan in range(1, 5):
        yield Case(f"thin, scan {scan}", vectors(), absolute(scan_order=scan), peer_encodes=False)
    floats: Tensors = {name: laplace((12, 5), 9).astype(name) for name in ("float16", "float64")}
    floats["raw"] = np.array([[np.nan, -0.0], [np.inf, 1.5]], np.float32)
    integers: Tensors = {name: np.arange(-60, 60).reshape(10, 12).astype(name) for name in ("int8", "int16", "int64")}
    yield Case("types", floats | integers, peer_encodes=False)


def checkpoints() -> Iterator[Case]:
    path = SHARED / "models" / "ResNet56_CIFAR100.pt"
    if not path.is_file():
        return
    tensors = read_checkpoint(path)
    yield Case("ResNet-56", tensors)
    yield Case("ResNet-56, no dq", tensors, absolute(dq_flag=False))
    yield Case("ResNet-56, no opt", tensors, absolute(param_opt_flag=False))
    for qp in (-44, -32, -26, -20):
        yield Case(f"ResNet-56, qp {qp}", tensors, absolute(qp=qp))
    yield Case("ResNet-56, qp -20, peer skips rows", tensors, absolute(qp=-20), row_skip=True)
    yield Case("ResNet-56, scan 1", tensors, absolute(scan_order=1), peer_encodes=False)


def check(case: Case, folder: Path) -> Result:
    """Code and decode both ways."""
    p = case.parameters
    ours = nnc_core.encode(case.tensors, parameters=p)
    plain = nnc_core.encode(case.tensors, parameters=replace(p, row_skip_enabled_flag=False))
    raw = sum(map(is_raw, NnrFile(ours).units))
    result = Result(case.name, raw, len(ours), len(plain), our_payload=payload_size(ours))
    for what, data in (("ours", ours), ("ours without row skipping", plain)):
        result.failures += differences(what, data, folder)
    if not case.peer_encodes:
        return result
    try:
        theirs = peer_encode(case, folder)
    except peer_codec.PeerError as error:
        result.failures.append(str(error))
        return result
    result.theirs, result.their_payload = len(theirs), payload_size(theirs)
    result.failures += differences("the peer's", theirs, folder)
    return replace(result, failures=[*result.failures, *too_large(result, case)])


def too_large(result: Result, case: Case) -> Iterator[str]:
    theirs = result.theirs or 0
    if result.ours > theirs:
        yield f"ours is {result.ours - theirs} bytes larger"
    if result.ours_without_row_skip > theirs and not case.row_skip:
        yield f"ours without row skipping is {result.ours_without_row_skip - theirs} bytes larger"


def payload_size(data: bytes) -> int:
    return sum(unit.payload_size for unit in NnrFile(data).units if unit.names)


def peer_encode(case: Case, folder: Path) -> bytes:
    source, target = folder / "source.npz", folder / "theirs.nnr"
    np.savez(source, **case.tensors)
    options = peer_codec.options(case.parameters, row_skip=case.row_skip, codebook=case.codebook)
    peer_codec.run("encode", source, target, *options)
    return target.read_bytes()


def differences(what: str, data: bytes, folder: Path) -> list[str]:
    """Where our decoder and the peer's disagree about a bitstream."""
    source = folder / "bitstream.nnr"
    data = for_the_peer(data)
    source.write_bytes(data)
    try:
        ours, theirs = nnc_core.decode(data), peer_codec.decode(source, folder / "decoded.npz")
    except (nnc_core.NncError, peer_codec.PeerError) as error:
        return [f"{what}: {error}"]
    if list(ours) != list(theirs):
        return [f"{what}: different tensors, {list(ours)[:3]} and {list(theirs)[:3]} ..."]
    return [f"{what}: {name} differs" for name in ours if not same(ours[name], theirs[name])]


def for_the_peer(data: bytes) -> bytes:
    """The bitstream with at most one raw tensor, at its end: the peer's decoder fails at any unit after a raw one."""
    units = NnrFile(data).units
    raw = [unit for unit in units if is_raw(unit)]
    kept = [unit for unit in units if not is_raw(unit)] + raw[-1:]
    return b"".join(data[unit.offset : unit.offset + unit.size] for unit in kept)


def is_raw(unit: UnitRecord) -> bool:
    header = unit.header
    data = isinstance(header, CompressedDataUnitHeader)
    return data and header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_RAW_FLOAT


def same(ours: np.ndarray[Any, Any], theirs: np.ndarray[Any, Any]) -> bool:
    """Bit for bit; the peer disregards the format that is asked for, and has codebooks in float64."""
    return ours.shape == theirs.shape and ours.tobytes() == theirs.astype(ours.dtype).tobytes()


def table_of(results: list[Result]) -> Table:
    table = Table(title="bytes at equal settings", caption="payload: of the data units, without any header")
    table.add_column("case")
    for column in ("raw tensors", "ours", "no row skip", "theirs", "difference", "%", "payload difference"):
        table.add_column(column, justify="right")
    table.add_column("")
    for r in results:
        verdict = "[red]" + "; ".join(r.failures[:3]) if r.failures else "[green]ok"
        table.add_row(r.case, str(r.raw), str(r.ours), str(r.ours_without_row_skip), *compared(r), verdict)
    return table


def compared(r: Result) -> list[str]:
    if r.theirs is None or r.their_payload is None:
        return ["-"] * 4
    difference = r.ours - r.theirs
    return [
        str(r.theirs),
        f"{difference:+}",
        f"{100 * difference / r.theirs:+.2f}",
        f"{r.our_payload - r.their_payload:+}",
    ]


def conformance(folder: Path, console: Console) -> list[Outcome]:
    """The rows of the conformance suite, decoded by the peer; those that it does not support with the reason."""
    supported = [row for row in all_rows() if reason_against(row) is None]
    groups = track(list(runs(supported)), "making the conformance suite", console=console)
    for group in groups:
        list(generate(group, Folder(folder)))
    outcomes = outcomes_of(Peer(), all_rows(), Folder(folder))
    return list(track(outcomes, "conformance", total=len(all_rows()), console=console))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the results as JSON instead of a table")
    as_json = parser.parse_args().json
    if reason := peer_codec.missing():
        print(f"interop: {reason}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        console = Console(stderr=True)
        results = [check(case, Path(folder)) for case in track(list(cases()), "checking", console=console)]
        listed = track(list(interop_features.features()), "features", console=console)
        features = [interop_features.check(feature, Path(folder)) for feature in listed]
        qualities = [interop_quality.check(quality, Path(folder)) for quality in interop_quality.qualities()]
        chains = [interop_updates.check(chain, Path(folder)) for chain in interop_updates.chains()]
        rows = conformance(Path(folder), console)
    failed = sum(bool(r.failures) for r in [*results, *features, *qualities, *chains]) + sum(  # type: ignore[attr-defined]
        r.status == "failed" for r in rows
    )
    if as_json:
        described = {"sizes": list(map(asdict, results)), "features": list(map(asdict, features))}
        described["conformance"] = [{"row": r.row.name, "status": r.status, "reason": r.reason} for r in rows]
        described["chains"] = list(map(asdict, chains))
        described["qualities"] = list(map(asdict, qualities))
        print(json.dumps(described, indent=1))
    else:
        count = f"{len(results)} cases, {len(features)} features, {len(chains)} chains of updates, {failed} failed"
        tables = interop_features.table_of(features), interop_quality.table_of(qualities)
        others = interop_updates.table_of(chains), reports.table(rows, Peer.name)
        Console().print(table_of(results), *tables, *others, count)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
