"""Has the public codec NNCodec decode what the options of quality and size make: every way in which levels are found.

Its decoder knows nothing of names with marks, so the units are compared one by one; raw floats, which it fails after,
are not sent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

import nnc_core
from conformance.bench.synthetic import Tensors, matrices, vectors
from conformance.support import peer_codec
from nnc_core import CodingParameters, NnrFile
from nnc_core.coder.decoder import decode_unit
from nnc_core.coder.plan import ModelPlan, TensorPlan
from nnc_core.syntax.data_unit import CompressedDataUnitHeader
from nnc_core.tables.code_points import PayloadType


@dataclass(frozen=True)
class Quality:
    """What is coded, and how; with inputs of layers, where weights are calibrated."""

    name: str
    tensors: Tensors
    parameters: CodingParameters | None = None
    plan: ModelPlan | None = None
    calibrate: Mapping[str, NDArray[Any]] | None = None


@dataclass
class QualityResult:
    """The bytes of a bitstream, how many units were compared, and what went wrong."""

    name: str
    size: int
    units: int
    failures: list[str] = field(default_factory=list)


def qualities() -> Iterator[Quality]:
    every = matrices() | vectors()
    yield Quality("default quality", every)
    for level in (1, 3, 5, 7, 9):
        yield Quality(f"level {level}, 20 dB", every, CodingParameters(level=level, sqnr=20))
    yield Quality("rate-aware, no dq", every, CodingParameters(level=7, dq_flag=False, sqnr=25))
    yield Quality("rate-aware, scan 2", matrices(), CodingParameters(level=7, scan_order=2, bits_per_weight=3))
    yield Quality("3 bits per weight", every, CodingParameters(bits_per_weight=3))
    yield Quality("half a target size", every, CodingParameters(target_size=sum(a.nbytes for a in every.values()) // 6))
    yield Quality("profile 0, 15 dB", every, CodingParameters(general_profile_idc=0, sqnr=15))
    for dq_flag in (True, False):
        yield Quality(f"chosen unary lengths, {'' if dq_flag else 'no '}dq", *fine(dq_flag))
        yield calibrated(dq_flag)
    yield Quality("lossless float32", every, CodingParameters(lossless=True))
    halves = {name: np.clip(array, -9, 9).astype(np.float16) for name, array in every.items()}
    yield Quality("lossless float16", halves, CodingParameters(lossless=True))
    integers = {name: (100 * array).astype(np.int8) for name, array in every.items()}
    yield Quality("integers", integers | {"steps": np.array(123456), "around": np.arange(900, 1000)})


def fine(dq_flag: bool) -> tuple[Tensors, None, ModelPlan]:
    """Levels of many magnitudes, so that several unary lengths are chosen."""
    rng = np.random.default_rng(2)
    tensors: Tensors = {f"scale{s}": rng.normal(0, s, (60, 70)).astype(np.float32) for s in (1, 8, 40, 200)}
    plan = TensorPlan(qp=0, dq_flag=dq_flag, lambda_scale=1.0)
    return tensors, None, ModelPlan(2, tensors=dict.fromkeys(tensors, plan))


def calibrated(dq_flag: bool) -> Quality:
    rng = np.random.default_rng(1)
    inputs = {"w": rng.normal(size=(500, 48)) @ rng.normal(size=(48, 48))}
    tensors: Tensors = {"w": rng.normal(size=(32, 48)).astype(np.float32)}
    name = f"calibrated, {'' if dq_flag else 'no '}dq"
    return Quality(name, tensors, CodingParameters(bits_per_weight=3, dq_flag=dq_flag), calibrate=inputs)


def check(quality: Quality, folder: Path) -> QualityResult:
    """Have both decoders decode the units."""
    data = nnc_core.encode(
        quality.tensors, parameters=quality.parameters, plan=quality.plan, calibrate=quality.calibrate
    )
    file = NnrFile(data)
    units = [unit for unit in file.units if not _is_raw(unit.header)]
    coded = [unit for unit in file.bitstream.data_units if not _is_raw(unit.header)]
    source = folder / "bitstream.nnr"
    source.write_bytes(b"".join(data[unit.offset : unit.offset + unit.size] for unit in units))
    result = QualityResult(quality.name, len(data), len(coded))
    try:
        theirs = peer_codec.decode(source, folder / "decoded.npz")
    except peer_codec.PeerError as error:
        return QualityResult(quality.name, len(data), result.units, [str(error)])
    ours = {name: array for unit in coded for name, array in decode_unit(unit).tensors.items()}
    if list(ours) != list(theirs):
        result.failures.append(f"different tensors, {list(ours)[:3]} and {list(theirs)[:3]} ...")
    result.failures += [f"{name} differs" for name in ours if name in theirs and not _same(ours[name], theirs[name])]
    return result


def _is_raw(header: object) -> bool:
    data = isinstance(header, CompressedDataUnitHeader)
    return data and header.nnr_compressed_data_unit_payload_type == PayloadType.NNR_PT_RAW_FLOAT  # type: ignore[attr-defined]


def _same(ours: NDArray[Any], theirs: NDArray[Any]) -> bool:
    """Bit for bit; the peer disregards the format that is asked for."""
    return ours.shape == theirs.shape and ours.tobytes() == theirs.astype(ours.dtype).tobytes()


def table_of(results: list[QualityResult]) -> Table:
    table = Table(title="every way to find levels, decoded by both")
    for column in ("case", "bytes", "units", ""):
        table.add_column(column, justify="right" if column in ("bytes", "units") else "left")
    for r in results:
        verdict = "[red]" + "; ".join(r.failures[:3]) if r.failures else "[green]ok"
        table.add_row(r.name, str(r.size), str(r.units), verdict)
    return table
