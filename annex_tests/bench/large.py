"""How much memory do models of several gigabytes take, compressed and restored?

    python -m annex_tests.bench.large [--gb 3]

Makes an ONNX model with external data and a checkpoint of safetensors shards, both with random weights in tensors of
16 to 64 MiB, in a temporary folder that needs three times their size. The program ``nnc`` compresses and restores
each; some tensors of the result are compared with what the codec decodes, and with the original. Of the checkpoint it
also makes an exact and a lossy update to another version, and patches it.

What is judged is the memory of the process's own (RssAnon and RssShmem of /proc, sampled): at most 1 GiB and the
largest tensor. The other figure is the peak of all resident pages; those of mapped files among them are the system's
cache, which it takes back whenever it needs memory. Where there is no /proc that figure is judged instead.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from rich.console import Console
from rich.table import Table

import nnc_core
from nnc_adapters import registry
from nnc_core.approximator.step import step_size

MIB, GIB = 1 << 20, 1 << 30
BOUND = GIB
ROWS = 4096
COLUMNS = (1024, 2048, 4096)
SHARD = GIB // 2
CHECKED = 6  # tensors of each model
QP = -38
STEP = step_size(QP, 2)

Shapes = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Run:
    """One process: seconds, and peaks of memory in bytes."""

    seconds: float
    resident: int
    own: int | None

    @property
    def judged(self) -> int:
        return self.resident if self.own is None else self.own


def shapes(size: int) -> Shapes:
    """Names and shapes of tensors of about ``size`` bytes in total."""
    found: Shapes = {}
    for columns in cycle(COLUMNS):
        if size < 4 * ROWS * columns:
            break
        size -= 4 * ROWS * columns
        found[f"layers.{len(found)}.weight"] = (ROWS, columns)
    return found


def weights(name: str, shape: tuple[int, int]) -> NDArray[np.float32]:
    """The same Laplace-distributed values for the same name, with a spread of 1.5 steps."""
    generator = np.random.default_rng(list(name.encode()))
    array = generator.standard_exponential(shape, np.float32)
    array *= np.float32(1.5 * STEP)
    return np.negative(array, out=array, where=generator.integers(0, 2, shape, bool))


def make_onnx(folder: Path, model: Shapes) -> Path:
    path = folder / "model.onnx"
    initializers, offset = [], 0
    with (folder / "model.onnx.data").open("wb") as stream:
        for name, shape in model.items():
            data = weights(name, shape).data
            stream.write(data)
            tensor = TensorProto(name=name, data_type=1, dims=shape, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", stream.name), ("offset", offset), ("length", data.nbytes)):
                tensor.external_data.add(key=key, value=Path(value).name if key == "location" else str(value))
            initializers.append(tensor)
            offset += data.nbytes
    nodes = [helper.make_node("MatMul", ["x", name], [f"{name}.y"]) for name in model]
    inputs = [helper.make_tensor_value_info("x", 1, [1, ROWS])]
    outputs = [helper.make_tensor_value_info(f"{name}.y", 1, [1, shape[1]]) for name, shape in model.items()]
    graph = helper.make_graph(nodes, "large", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


Values = Callable[[str, tuple[int, int]], NDArray[np.float32]]


def trained(name: str, shape: tuple[int, int]) -> NDArray[np.float32]:
    """The weights after a step of training: one in a hundred has changed a little."""
    array = weights(name, shape)
    generator = np.random.default_rng(len(name))
    places = generator.integers(0, array.size, array.size // 100)
    array.reshape(-1)[places] += generator.normal(0, STEP / 100, len(places)).astype(np.float32)
    return array


def make_safetensors(folder: Path, model: Shapes, values: Values = weights) -> Path:
    path = folder / "checkpoint"
    path.mkdir(parents=True)
    shards = list(split(model))
    where: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        where |= dict.fromkeys(shard, file)
        write_shard(path / file, shard, values)
    index = {"metadata": {"total_size": sum(map(nbytes, model.values()))}, "weight_map": where}
    (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    return path


def nbytes(shape: tuple[int, int]) -> int:
    return 4 * shape[0] * shape[1]


def split(model: Shapes) -> Iterator[Shapes]:
    shard: Shapes = {}
    for name, shape in model.items():
        if sum(map(nbytes, shard.values())) + nbytes(shape) > SHARD:
            yield shard
            shard = {}
        shard[name] = shape
    yield shard


def write_shard(path: Path, shard: Shapes, values: Values) -> None:
    header, at = {}, 0
    for name, shape in shard.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + nbytes(shape)]}
        at += nbytes(shape)
    text = json.dumps(header).encode()
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shard.items():
            stream.write(values(name, shape).data)


def measured(*arguments: str | Path) -> Run:
    """Run ``nnc``; `SystemExit` where it fails."""
    started, own = time.perf_counter(), None
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([sys.executable, "-m", "nnc_adapters.cli", *arguments], stderr=errors)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            own = max(filter(None, (own, own_memory(process.pid))), default=None)
            time.sleep(0.01)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(f"nnc {arguments[0]} failed:\n{errors.read().decode()}")
    resident = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Run(time.perf_counter() - started, resident, own)


def own_memory(pid: int) -> int | None:
    """Bytes of memory that no file backs; `None` where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(("RssAnon:", "RssShmem:"))) or None


def differences(bitstream: Path, restored: Path, model: Shapes) -> list[str]:
    """What is wrong with the first, the last and some other tensors; and with the names."""
    tensors = registry.find(restored).read(restored).tensors
    with nnc_core.open(bitstream) as file:
        if not list(file) == list(tensors) == list(model):
            return ["the tensors are others, or in another order"]
        names = list(model)
        some = random.Random(0).sample(names[1:-1], min(CHECKED - 2, len(names) - 2))
        return [
            f"{name} {wrong}" for name in {names[0], *some, names[-1]} if (wrong := difference(file, tensors, name))
        ]


def difference(file: nnc_core.NnrFile, tensors: Mapping[str, NDArray[Any]], name: str) -> str | None:
    found, decoded = tensors[name], file[name]
    if not np.array_equal(found, decoded):
        return "is not what the bitstream says"
    if np.abs(found - weights(name, found.shape)).max() > 2 * STEP:  # the trellis saves bits where two are near
        return "is far from the original"
    return None


Make = Callable[[Path, Shapes], Path]
KINDS: dict[str, Make] = {"ONNX, external data": make_onnx, "safetensors, sharded": make_safetensors}


def bench(kind: str, model: Shapes, console: Console, table: Table) -> bool:
    """Measure one kind of model, add its rows; returns whether all is well."""
    with tempfile.TemporaryDirectory() as name, console.status(f"{kind}: making") as status:
        folder = Path(name)
        source, bitstream = KINDS[kind](folder, model), folder / "model.nnr"
        restored = folder / "restored" / source.name
        restored.parent.mkdir()
        status.update(f"{kind}: compressing")
        runs = {"compress": measured("compress", source, "-o", bitstream, "--qp", str(QP))}
        status.update(f"{kind}: restoring")
        runs["decompress"] = measured("decompress", bitstream, "-o", restored)
        status.update(f"{kind}: comparing")
        wrong = differences(bitstream, restored, model)
        return reported(kind, runs, bitstream, wrong, model, console, table)


def bench_updates(kind: str, options: list[str], model: Shapes, console: Console, table: Table) -> bool:
    """Measure the way from one checkpoint to another over an update, add its rows; returns whether all is well."""
    with tempfile.TemporaryDirectory() as name, console.status(f"{kind}: making") as status:
        folder = Path(name)
        base, new = make_safetensors(folder / "base", model), make_safetensors(folder / "new", model, trained)
        update, patched = folder / "update.nnr", folder / "patched"
        status.update(f"{kind}: comparing versions")
        runs = {"diff": measured("diff", base, new, "-o", update, *options)}
        status.update(f"{kind}: patching")
        runs["patch"] = measured("patch", base, update, "-o", patched)
        found, exact = registry.find(patched).read(patched).tensors, "--exact" in options
        wrong = [
            f"{name} is far from the new version"
            for name in list(model)[:: max(1, len(model) // CHECKED)]
            if np.abs(found[name] - trained(name, model[name])).max() > (0 if exact else STEP / 10)
        ]
        return reported(kind, runs, update, wrong, model, console, table)


def reported(
    kind: str, runs: dict[str, Run], bitstream: Path, wrong: list[str], model: Shapes, console: Console, table: Table
) -> bool:
    """Add a row for each run; returns whether all is well."""
    total = sum(map(nbytes, model.values()))
    bound = BOUND + max(map(nbytes, model.values()))
    percent = 100 * bitstream.stat().st_size / total
    for what, run in runs.items():
        row = [
            kind,
            what,
            f"{total / GIB:.2f}",
            f"{percent:.2f}",
            f"{run.seconds:.1f}",
            f"{total / MIB / run.seconds:.0f}",
        ]
        peaks = [run.resident, run.judged, bound]
        table.add_row(*row, *(f"{peak / MIB:.0f}" for peak in peaks), "yes" if run.judged <= bound else "NO")
    for text in wrong:
        console.print(f"{kind}: {text}")
    return not wrong and all(run.judged <= bound for run in runs.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=3, help="size of each model [3]")
    model = shapes(int(parser.parse_args().gb * GIB))
    if len(model) < 3:
        parser.error("too small: a model has at least three tensors")
    table = Table(title=f"{len(model)} tensors, the largest of {max(map(nbytes, model.values())) // MIB} MiB")
    for column in ("model", "", "GiB", "% left", "seconds", "MiB/s", "peak MiB with files", "own", "bound", "within"):
        table.add_column(column, justify="left" if column in ("model", "") else "right")
    console = Console(stderr=True)
    good = [bench(kind, model, console, table) for kind in KINDS]
    for kind, options in (("exact update", ["--exact"]), ("lossy update", [])):
        good.append(bench_updates(kind, options, model, console, table))
    Console().print(table)
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
