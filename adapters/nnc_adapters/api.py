"""Files in, files out: compress a model into NNR, and bring it back."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict

import numpy as np
from numpy.typing import NDArray

import nnc_core
from nnc_adapters import registry
from nnc_adapters.base import Accepted, Adapter, Options
from nnc_adapters.containers import plain
from nnc_adapters.remote import reaching
from nnc_adapters.reports import CompressReport, DecompressReport, Meter, Progress, Watched, passing
from nnc_adapters.sharded.names import index_of
from nnc_adapters.shared.files import check_free, replacing, size_of
from nnc_adapters.shared.logs import inform
from nnc_adapters.targets import BITSTREAM, default_target, pruned_writer, write_into, writer
from nnc_core.bitstream import Bitstream
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel, Topology
from nnc_core.stored import StoredBytes
from nnc_core.tables.code_points import NnrUnitType

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from nnc_core import CodingParameters, ModelPlan, Prediction

__all__ = [
    "CompressReport",
    "DecompressReport",
    "Progress",
    "compress",
    "compress_model",
    "decompress",
    "predict",
    "write_into",
]

Calibrating = str | Path | Mapping[str, NDArray[Any]] | Callable[[SourceModel], SourceModel]
"""Inputs of a model: a file, or arrays by name; or what adds to a model what was measured of it elsewhere."""

_COMPRESSED = (b"PK\3\4", b"\x1f\x8b")  # zip and gzip


class _Coding(TypedDict):
    """How a model is coded: what `compress` passes on."""

    parameters: CodingParameters | None
    plan: ModelPlan | None
    keep_plan: Callable[[ModelPlan], None] | None
    threads: int | None
    meter: Meter | None
    limits: Limits | None


class _Reading(TypedDict):
    """What becomes of a model's parts when it is read."""

    keep_optimizer: bool
    opaque: bool
    strip_debug: bool
    drop_masked: bool


@reaching(["source"], "target")
def compress(
    source: str | Path,
    target: str | Path | BinaryIO | None = None,
    *,
    folder: Path | None = None,
    parameters: CodingParameters | None = None,
    plan: ModelPlan | None = None,
    keep_plan: Callable[[ModelPlan], None] | None = None,
    calibrate: Calibrating | None = None,
    keep_optimizer: bool = True,
    opaque: bool = False,
    strip_debug: bool = False,
    drop_masked: bool = False,
    threads: int | None = None,
    sharded: bool | None = None,
    executor: Executor | None = None,
    force: bool = False,
    progress: Progress | None = None,
    meter: Meter | None = None,
    limits: Limits | None = None,
) -> CompressReport:
    """Compress the model ``source`` into the NNR bitstream ``target``.

    ``target`` is a path (default: that of ``source`` with the suffix ``.nnr``, or this name in ``folder``), or a binary
    file open for writing. A file appears complete or not at all. Both may be URLs, see `nnc_adapters.remote`.

    How it is coded: ``parameters``, or in their place a ``plan``, as `predict` returns it; ``keep_plan`` is called with
    the plan that was used, once all is written.

    What is carried: optimizer state in checkpoints exactly, or as zeros without ``keep_optimizer``; objects in pickles
    that are not mere data only if ``opaque``, as they are, and never run; no comments, documentation and stack traces
    with ``strip_debug``. What the masks of PyTorch and TensorFlow hide is described as pruning topology, and becomes
    zeros with ``drop_masked``.

    With ``calibrate``, weights are quantized so that the model's outputs change least, and those that matter more get
    finer steps; ``sqnr`` then sets the steps, and is not measured. It is a ``.npz`` file or arrays, by the names of the
    inputs of an ONNX model, or of a Keras model in a ``.keras`` or ``.h5`` file; the model is run on them once for each
    weight and once more. For other formats it is a function that returns the model with its ``inputs`` and
    ``sensitivities`` (see `SourceModel`), as `nnc_adapters.shared.calibration` measures them.

    With ``sharded``, a model of several files becomes a folder of bitstreams, which an ``executor`` makes in other
    processes or on other machines, see `nnc_adapters.sharded`.

    ``progress`` is called with the number of tensors that are done and of all, ``meter`` with the stage, the bytes that
    are done and all bytes. Raises `ModelError` if the model cannot be read or inputs do not fit it, `UnsupportedError`
    or `MissingDependencyError` for its format, `LimitError` if it exceeds ``limits``, and `FileExistsError` if
    ``target`` exists, unless ``force``.
    """
    started = time.perf_counter()
    source = Path(source)
    registry.check_exists(source)
    adapter = registry.find(source)
    target = _bitstream_of(source, adapter, folder) if target is None else target
    coding = _Coding(parameters=parameters, plan=plan, keep_plan=keep_plan, threads=threads, meter=meter, limits=limits)
    if sharded or executor is not None:
        from nnc_adapters.sharded import compress as compress_files

        reading = _Reading(
            keep_optimizer=keep_optimizer, opaque=opaque, strip_debug=strip_debug, drop_masked=drop_masked
        )
        if calibrate is not None or not isinstance(target, str | Path):
            raise ModelError("a sharded model is written to a folder, and cannot be calibrated", file=str(source))
        return compress_files(source, target, executor=executor, force=force, **reading, **coding)
    chosen = overruled(parameters)
    options = Options(_limits(source, limits), keep_optimizer, opaque, chosen=chosen, strip_debug=strip_debug)
    with _opened(target, source, force) as stream:
        model = _read(adapter, source, options, calibrate, drop_masked=drop_masked)
        inform(__name__, "%s: read as %s, %d tensors", source, adapter.name, len(model.tensors))
        report = compress_model(model, stream, source=source, progress=progress, **coding)
    return replace(report, payload_bytes=payload_bytes(target, limits), seconds=time.perf_counter() - started)


def compress_model(
    model: SourceModel,
    stream: BinaryIO,
    *,
    parameters: CodingParameters | None = None,
    plan: ModelPlan | None = None,
    keep_plan: Callable[[ModelPlan], None] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    meter: Meter | None = None,
    limits: Limits | None = None,
    source: Path | int,
) -> CompressReport:
    """Compress what an adapter has read from the file ``source``, or from so many bytes."""
    from nnc_adapters.cautions import Cautions

    started = time.perf_counter()
    size = source if isinstance(source, int) else size_of(source)
    planned = Watched(model.tensors, passed=passing(meter, "planning", size))
    if plan is None:
        plan = nnc_core.plan(replace(model, tensors=planned), _in_bytes(parameters, model, source), threads=threads)
    cautions = Cautions(plan)
    tensors = Watched(model.tensors, look=cautions.look, passed=passing(meter, "coding", planned.nbytes or size))
    watched = replace(model, tensors=tensors)
    after = nnc_core.write(stream, watched, plan=plan, threads=threads, progress=progress, limits=limits)
    if keep_plan is not None:
        keep_plan(plan)
    before = source if isinstance(source, int) else _bytes_before(source, model.topology, tensors.nbytes)
    rules = parameters.rules if parameters else ()
    calibrated = [name for name in model.inputs if plan.tensors[name].method == nnc_core.Method.QUANTIZED]
    others = _weights(model, plan) if model.inputs or model.sensitivities else []
    return CompressReport(
        bytes_before=before,
        bytes_after=after,
        tensors=len(tensors),
        weights=tensors.weights,
        seconds=time.perf_counter() - started,
        warnings=tuple(cautions.warnings(rules, model.remarks, tensors.nbytes, before)),
        calibrated=tuple(calibrated),
        uncalibrated=tuple(name for name in others if name not in calibrated),
    )


def _weights(model: SourceModel, plan: ModelPlan) -> list[str]:
    """The tensors of layers that are quantized as weights."""
    types = model.model_info.get("parameter_type", {})
    quantized = (name for name, tensor in plan.tensors.items() if tensor.method == nnc_core.Method.QUANTIZED)
    return [name for name in quantized if types.get(name) in ("conv.weight", "fc.weight")]


def _read(
    adapter: Adapter, source: Path, options: Options, calibrate: Calibrating | None, *, drop_masked: bool = False
) -> SourceModel:
    model = adapter.read(source, options)
    if masks := adapter.masks(model.tensors):
        from nnc_adapters.shared.masks import with_pruning_topology

        model = with_pruning_topology(model, masks, drop=drop_masked)
    if calibrate is None:
        return model
    if callable(calibrate):
        return calibrate(model)
    if isinstance(calibrate, Mapping):
        return adapter.calibrated(model, source, calibrate, options)
    from nnc_adapters.shared.inputs import read_inputs

    return adapter.calibrated(model, source, read_inputs(Path(calibrate), options.limits), options)


def _in_bytes(parameters: CodingParameters | None, model: SourceModel, source: Path | int) -> CodingParameters | None:
    """The parameters with a target size in bytes, where it is in percent of what the model takes on disk."""
    if parameters is None or not isinstance(parameters.target_size, str):
        return parameters
    weights = 0 if isinstance(source, int) else sum(model.tensors[name].nbytes for name in model.tensors)
    before = source if isinstance(source, int) else _bytes_before(source, model.topology, weights)
    return replace(parameters, target_size=int(before * float(parameters.target_size.rstrip("%")) / 100))


@reaching(["source"])
def predict(
    source: str | Path,
    *,
    parameters: CodingParameters | None = None,
    plan: ModelPlan | None = None,
    calibrate: Calibrating | None = None,
    keep_optimizer: bool = True,
    opaque: bool = False,
    strip_debug: bool = False,
    drop_masked: bool = False,
    threads: int | None = None,
    limits: Limits | None = None,
) -> tuple[ModelPlan, dict[str, Prediction]]:
    """What `compress` would decide about each tensor, and the size and error to expect; writes nothing.

    Arguments and errors as for `compress`.
    """
    source = Path(source)
    chosen = overruled(parameters)
    options = Options(_limits(source, limits), keep_optimizer, opaque, chosen=chosen, strip_debug=strip_debug)
    model = _read(registry.find(source), source, options, calibrate, drop_masked=drop_masked)
    if plan is None:
        plan = nnc_core.plan(model, _in_bytes(parameters, model, source), threads=threads)
    return plan, nnc_core.predict(model, plan, threads=threads)


def payload_bytes(target: str | Path | BinaryIO, limits: Limits | None) -> int | None:
    """What the data units in a file take."""
    if not isinstance(target, str | Path) or not Path(target).is_file():
        return None
    data = StoredBytes(Path(target))
    try:
        units = Bitstream(data, limits).units
        return sum(unit.size for unit in units if unit.type == NnrUnitType.NNR_NDU)
    finally:
        data.release()


def overruled(parameters: CodingParameters | None, prefix: str = "") -> frozenset[str]:
    """The tensors that a rule has quantized, whatever they are; rules know their names with a ``prefix``."""
    rules = [rule for rule in parameters.rules if _quantizes(dict(rule.changes))] if parameters else []
    return Accepted(lambda name: any(rule.applies_to(prefix + name) for rule in rules)) if rules else frozenset()


def _quantizes(changes: Mapping[str, int | bool]) -> bool:
    return not changes.get("exact", "qp" not in changes)


def _limits(source: Path, limits: Limits | None) -> Limits:
    return (limits or Limits()).following(size_of(source))


def _opened(target: str | Path | BinaryIO, source: Path, force: bool) -> AbstractContextManager[BinaryIO]:
    if not isinstance(target, str | Path):
        return nullcontext(target)
    _check_other(source, Path(target))
    return replacing(Path(target), force=force)


def _bitstream_of(source: Path, adapter: Adapter, folder: Path | None) -> Path:
    """Beside ``source``, or in ``folder``; the suffix of a model that is a folder may be part of its name."""
    source = Path(os.path.abspath(source)) if source.name in ("", "..") else source
    known = (suffix for suffix in adapter.suffixes if source.name.lower().endswith(suffix))
    suffix = max(known, key=len, default="" if source.is_dir() else source.suffix)
    stem = source.name[: len(source.name) - len(suffix)]
    name = (stem or source.name) + BITSTREAM
    return source.with_name(name) if folder is None else folder / name


def _check_other(source: Path, target: Path) -> None:
    if target.exists() and source.exists() and target.samefile(source):
        from shutil import SameFileError

        raise SameFileError(f"{target} cannot be input and output at once")


@reaching(["source", "into"], "target")
def decompress(
    source: str | Path,
    target: str | Path | None = None,
    *,
    folder: Path | None = None,
    into: str | Path | None = None,
    opaque: bool = False,
    pruned: bool = False,
    threads: int | None = None,
    executor: Executor | None = None,
    force: bool = False,
    progress: Progress | None = None,
    meter: Meter | None = None,
    limits: Limits | None = None,
) -> DecompressReport:
    """Restore the model in the NNR bitstream ``source`` as ``target``, in the format it had.

    ``source`` may also be a container of NNR, see `nnc_adapters.containers`, or a sharded model, whose files an
    ``executor`` restores in other processes or on other machines, see `nnc_adapters.sharded`. Both may be URLs, see
    `nnc_adapters.remote`. Without ``target`` the model is written beside ``source``, or into ``folder``, with the usual
    suffix of its format. If ``target`` ends in ``.safetensors`` or ``.npz`` and the model has another format, all its
    tensors are written by name.

    ``into`` names an existing model, of which only the weights are replaced. With ``pruned``, tensors are written to a
    ``.safetensors`` or ``.npz`` file without what the pruning topology says is gone: rows and columns, and single
    weights, which become zero. Files with objects that loading them could run are written only if ``opaque``.

    ``progress`` and ``meter`` as for `compress`. Raises `BitstreamError`, `UnsupportedError` or `LimitError` if the
    bitstream cannot be decoded, `ModelError` if its tensors do not fit the model or the suffix of ``target`` is that of
    another format, and `FileExistsError` if ``target`` exists, unless ``force``.
    """
    started = time.perf_counter()
    source = Path(source)
    into = None if into is None else Path(into)
    options = Options(_limits(source, limits), opaque=opaque)
    if (index := index_of(source)) is not None:
        from nnc_adapters.sharded import decompress as decompress_files

        if into is not None or pruned:
            raise ModelError("is a sharded model, which is restored as it was", file=str(source))
        target = _files_of(index.parent, folder) if target is None else Path(target)
        _check_other(index.parent, target)
        how: dict[str, Any] = {"threads": threads, "force": force, "meter": meter, "limits": limits}
        return decompress_files(source, target, executor=executor, opaque=opaque, **how)
    if executor is not None:
        raise ModelError("is not a sharded model: several workers can restore only those", file=str(source))
    with plain(source, options.limits) as path, nnc_core.open(path, limits=limits) as file:
        target = _restored_as(source, file.topology, into, folder) if target is None else Path(target)
        _check_other(source, target)
        check_free(target, force=force)  # the adapter would find out only after its preparations
        write = pruned_writer(file, target, into) if pruned else writer(source, file.topology, target, into)
        inform(__name__, "%s: %d tensors, to be written as %s", source, len(file), target)
        with file.decoding_ahead(threads) as decoded:
            passed = passing(meter, "decoding", decoded_bytes(file)) if meter is not None else None
            tensors = Watched(decoded, progress, passed=passed)
            write(tensors, options, force)
        return DecompressReport(target, len(tensors), tensors.weights, time.perf_counter() - started)


def _files_of(sharded: Path, folder: Path | None) -> Path:
    """Where a sharded model is restored."""
    beside = sharded.absolute().with_suffix("")
    if beside == sharded.absolute() and folder is None:
        raise ModelError("does not tell a name for the restored model; give a target", file=str(sharded))
    return beside if folder is None else folder / beside.name


def _restored_as(source: Path, topology: Topology | None, into: Path | None, folder: Path | None) -> Path:
    beside = default_target(source, topology, into)
    return beside if folder is None else folder / beside.name


def decoded_bytes(file: nnc_core.NnrFile) -> int:
    """What all tensors of a bitstream take in memory."""
    return sum(math.prod(info.shape) * np.dtype(info.dtype).itemsize for info in file.tensors.values())


def _bytes_before(source: Path, topology: Topology | None, weights: int) -> int:
    """What is on disk; but where the weights are in files beside it, what the model is made of."""
    on_disk = size_of(source)
    if on_disk >= weights or source.is_dir() or _is_compressed(source):
        return on_disk
    return weights + (len(topology.data) if topology else 0)


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(max(map(len, _COMPRESSED))).startswith(_COMPRESSED)
