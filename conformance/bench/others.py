"""Others than NNCodec that make weights smaller, and whole processes: start-up, files and all."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save_file

from conformance.support import peer_codec

NNC = (sys.executable, "-c", "from nnc_adapters.program import main; main()")
_PACKAGES = {"zstandard": "zstd", "zipnn": "ZipNN"}


class Packer(NamedTuple):
    """A way to bytes and back; ``exact`` says that these are the bytes that went in."""

    name: str
    pack: Callable[[np.ndarray], bytes]
    unpack: Callable[[bytes], Any]
    exact: bool


def missing() -> list[str]:
    """What cannot be compared, for want of a package."""
    return [
        f"{name}: the package {package} is not installed" for package, name in _PACKAGES.items() if not _has(package)
    ]


def _has(package: str) -> bool:
    return find_spec(package) is not None


def _packers() -> Iterator[Packer]:
    if _has("zstandard"):
        import zstandard

        unpack = zstandard.ZstdDecompressor().decompress
        for level in (3, 19):
            pack = zstandard.ZstdCompressor(level=level).compress
            yield Packer(f"zstd -{level}", lambda values, pack=pack: pack(values.tobytes()), unpack, True)  # type: ignore[misc]
        small = zstandard.ZstdCompressor(level=3).compress
        yield Packer("int8 + zstd -3", lambda values: small(_int8(values).tobytes()), unpack, False)
    if _has("zipnn"):
        import zipnn

        packer = zipnn.ZipNN(input_format="byte", bytearray_dtype="float32", threads=1)
        yield Packer("ZipNN", lambda values: packer.compress(bytearray(values.tobytes())), packer.decompress, True)


def _int8(values: np.ndarray) -> np.ndarray:
    """The usual symmetric quantization of a tensor to 8 bits."""
    peak = float(np.abs(values).max(initial=0))
    return np.rint(values * np.float32(127 / peak if peak else 0)).astype(np.int8)


def packers(workload: str, folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of byte packers on the tensors of a workload, each packed alone."""
    with np.load(folder / "tensors.npz") as archive:
        tensors = [a for a in (archive[name] for name in archive.files) if a.dtype == np.float32 and a.size]
    weights = sum(each.size for each in tensors)
    for name, pack, unpack, exact in _packers():
        cpu, wall = time.process_time(), time.perf_counter()
        packed = [pack(each) for each in tensors]
        cpu, wall, start, begun = time.process_time(), time.perf_counter(), cpu, wall
        sizes = {"workload": workload, "tool": name, "weights": weights, "bytes": sum(map(len, packed))}
        sqnr = None if exact else _sqnr_of_int8(tensors)
        yield {**sizes, "what": "encode", "cpu": cpu - start, "wall": wall - begun, "sqnr": sqnr}
        start, begun = time.process_time(), time.perf_counter()
        for each in packed:
            unpack(each)
        yield {**sizes, "what": "decode", "cpu": time.process_time() - start, "wall": time.perf_counter() - begun}


def _sqnr_of_int8(tensors: list[np.ndarray]) -> float:
    noise = energy = 0.0
    for values in tensors:
        restored = _int8(values) * np.float32(float(np.abs(values).max(initial=0)) / 127)
        energy += float(np.square(values, dtype=np.float64).sum())
        noise += float(np.square(values - restored, dtype=np.float64).sum())
    return 10 * float(np.log10(energy / noise))


def processes(workload: str, folder: Path, rounds: int, with_peer: bool) -> Iterator[dict[str, Any]]:
    """Rows of ``nnc compress`` and ``nnc decompress`` on a file of safetensors, beside NNCodec's process on arrays."""
    source, coded, restored = (folder / name for name in ("model.safetensors", "model.nnr", "back.safetensors"))
    with np.load(folder / "tensors.npz") as archive:
        tensors = {name: np.ascontiguousarray(archive[name]) for name in archive.files}
    save_file(tensors, source)
    weights = sum(each.size for each in tensors.values())
    pack = (*NNC, "compress", source, "-o", coded, "-f", "--qp", "-38", "--threads", "1")
    unpack = (*NNC, "decompress", coded, "-o", restored, "-f", "--threads", "1")
    theirs, back = folder / "theirs.nnr", folder / "back.npz"
    commands = {
        "encode": (pack, peer_codec.command("encode", folder / "tensors.npz", theirs)),
        "decode": (unpack, peer_codec.command("decode", theirs, back)),
    }
    for what, (ours, peers) in commands.items():
        _cpu(ours)
        pairs = [(_cpu(ours), _cpu(peers) if with_peer else None) for _ in range(rounds)]
        row = {"workload": f"{workload}, whole process", "what": what, "weights": weights}
        cpu, wall = (median(mine[i] for mine, _ in pairs) for i in range(2))
        ratio = median(peer[0] / mine[0] for mine, peer in pairs if peer) if with_peer else None
        yield {**row, "tool": "nnc", "bytes": coded.stat().st_size, "cpu": cpu, "wall": wall, "ratio": ratio}
        if with_peer:
            cpu, wall = (median(peer[i] for _, peer in pairs if peer) for i in range(2))
            yield {**row, "tool": "NNCodec", "bytes": theirs.stat().st_size, "cpu": cpu, "wall": wall}


def _cpu(command: tuple[str | Path, ...]) -> tuple[float, float]:
    """CPU and wall time of a process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # modules are compiled once, as for anybody who works with them
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(list(map(str, command)), capture_output=True, env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.perf_counter() - begun
