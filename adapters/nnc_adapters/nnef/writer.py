"""From a topology and tensors to an NNEF archive, tensor by tensor."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

import nnc_core
from nnc_adapters.nnef import archive, dat, output, private, syntax
from nnc_adapters.nnef.reader import DAT, NNR, file_stem
from nnc_adapters.shared.lazy import check_names
from nnc_core import CodingParameters, ModelPlan
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.nnr_model import SourceModel, Topology
from nnc_core.records import dataclass
from nnc_core.tables.code_points import TopologyStorageFormat


@dataclass(frozen=True, slots=True)
class Plan:
    """The files of an archive: those at hand, and the variables' by label."""

    files: dict[str, bytes]
    variables: dict[str, tuple[int, ...]]
    headers: Mapping[str, dat.Header]


def planned(tensors: Mapping[str, NDArray[Any]], topology: Topology, limits: Limits) -> Plan:
    """What to write for a topology; `ModelError` where ``tensors`` are not its variables."""
    shapes = syntax.variables(topology.data)
    described = private.unpack(topology.private, shapes, limits)
    files = {archive.GRAPH: topology.data}
    if topology.quantization is not None:
        files[archive.QUANTIZATION] = topology.quantization
    if strange := described.files.keys() & files.keys():
        raise ModelError(f"the private topology has a file {strange.pop()!r}")
    files |= described.files
    variables = {label: shape for label, shape in shapes.items() if file_stem(label) + DAT not in files}
    check_names(tensors, variables)
    return Plan(files, variables, described.headers)


def write(
    tensors: Mapping[str, NDArray[Any]], topology: Topology, target: Path, limits: Limits, *, force: bool
) -> None:
    """Write the archive with every tensor in ``<label>.dat``."""
    plan = planned(tensors, topology, limits)

    def content(label: str) -> output.Pieces:
        try:
            return _dat(tensors[label], plan.variables[label], plan.headers.get(label))
        except ModelError as error:
            raise ModelError(error.message, tensor=label) from error

    output.write(target, members(plan, DAT, content), force=force)


def embed(
    model: SourceModel,
    target: Path,
    limits: Limits,
    *,
    parameters: CodingParameters,
    threads: int | None,
    force: bool,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the archive with every tensor as a bitstream ``<label>.nnr``; what NNR cannot carry stays as it is."""
    topology = model.topology
    if topology is None:
        raise ModelError("an NNEF archive needs a graph")
    plan = planned(model.tensors, topology, limits)
    coding = nnc_core.plan(model, parameters, threads=threads)
    done = itertools.count(1)

    def content(label: str) -> output.Pieces:
        data = alone(model, label, coding, plan.headers.get(label), threads)
        if progress is not None:
            progress(next(done), len(plan.variables))
        return (data,)

    output.write(target, members(plan, NNR, content), force=force)


def members(plan: Plan, suffix: str, content: Callable[[str], output.Pieces]) -> Iterator[tuple[str, output.Pieces]]:
    """The files of the archive by name, each variable's with ``suffix`` and what ``content`` says of its label.

    `ModelError` where two files would have the same name.
    """
    names = {label: file_stem(label) + suffix for label in plan.variables}
    if len({*names.values(), *plan.files}) < len(names) + len(plan.files):
        raise ModelError("two files of the archive have the same name")
    archive.check_together({**plan.files, **dict.fromkeys(names.values())})
    for name in (archive.GRAPH, archive.QUANTIZATION):
        if name in plan.files:
            yield name, (plan.files[name],)
    for label, name in names.items():
        yield name, content(label)
    for name, data in plan.files.items():
        if name not in (archive.GRAPH, archive.QUANTIZATION):
            yield name, (data,)


def _dat(array: NDArray[Any], shape: tuple[int, ...], header: dat.Header | None) -> output.Pieces:
    # NNR has no tensors without dimensions
    if array.shape != shape and not (shape == () and array.shape == (1,)):
        raise ModelError(f"has shape {array.shape}, the model has {shape}")
    header = header or dat.default(shape, array.dtype)
    return header.pack(), dat.dump(header, array.reshape(shape))


def alone(
    model: SourceModel, label: str, plan: ModelPlan, header: dat.Header | None = None, threads: int | None = None
) -> bytes:
    """One tensor as a bitstream of its own, with the header of its file where the tensor does not say it."""
    described = None if header is None else private.pack(private.Private({label: header}))
    unnamed = Topology(TopologyStorageFormat.NNR_TPL_UNREC, b"", private=described)
    topology = None if described is None else unnamed
    return nnc_core.encode({label: model.tensors[label]}, plan=plan, topology=topology, threads=threads)
