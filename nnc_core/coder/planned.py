"""From a model and its plan to a bitstream, or to the bytes that this would take."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.approximator.calibrated import LayerInputs
from nnc_core.bitstream import BitstreamWriter
from nnc_core.coder.block import unit_dtype
from nnc_core.coder.encoder import CodedUnit
from nnc_core.coder.metadata import pruning_of
from nnc_core.coder.performance_maps import parameter_set_fields
from nnc_core.coder.plan import ModelPlan, TensorPlan
from nnc_core.coder.pool import Job, in_order, thread_count
from nnc_core.coder.single import Format
from nnc_core.coder.units import block_units, data_units, squared_error
from nnc_core.errors import ModelError
from nnc_core.limits import Limits
from nnc_core.logs import logger
from nnc_core.nnr_model import SourceModel, Topology
from nnc_core.nnr_model.blocks import Block
from nnc_core.syntax.driver import Buffer
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.tables.code_points import QuantizationMethodFlags

if TYPE_CHECKING:
    from concurrent.futures import Executor

_log = logger(__name__)

__all__ = ["frame_size", "squared_errors", "unit_sizes", "write_planned"]


_ENDLESS = 1 << 60
"""A size that is not known yet."""


def write_planned(
    stream: BinaryIO,
    model: SourceModel,
    plan: ModelPlan,
    threads: int | None = None,
    executor: Executor | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits | None = None,
) -> int:
    """Code a model as planned; see `nnc_core.write`."""
    limits = limits or Limits()
    endless = limits.following(_ENDLESS)
    writer = _started(stream, model, plan, endless)
    decoded, largest, done = 0, 0, 0
    for coded in _coded(model, plan, model.tensors, threads, executor):
        for unit in coded.units:
            decoded = endless.check("decoded_bytes", decoded + _decoded_size(unit))
            largest = max(largest, prod(unit.header.tensor_dimensions))
            writer.data_unit(unit.header, unit.payload.data)
        done += coded.tensors
        if progress is not None:
            progress(done, len(model.tensors))
    _check_whole(limits.following(writer.size), writer.units, decoded, largest, model.topology)
    _log.info("%d tensors in %d bytes", done, writer.size)
    return writer.size


def _check_whole(limits: Limits, units: int, decoded: int, largest: int, topology: Topology | None) -> None:
    """What a decoder checks that knows the size of the file."""
    for data in (topology.data, topology.quantization, topology.private) if topology is not None else ():
        limits.check("topology_bytes", len(data or b""), "topology_data")
    limits.check("units", units, "what is written; fewer tensors, or more of them in one, can be read again")
    limits.check("decoded_bytes", decoded)
    limits.check("tensor_elements", largest)


def frame_size(model: SourceModel, plan: ModelPlan) -> int:
    """The bytes of a bitstream besides its data units."""
    return _started(_Nowhere(), model, plan, None).size


def unit_sizes(
    model: SourceModel,
    plan: ModelPlan,
    names: Iterable[str],
    threads: int | None = None,
    executor: Executor | None = None,
) -> dict[str, int]:
    """The bytes of the data units of each of these tensors; codes them all. Those of a block count for its weight."""
    writer = BitstreamWriter(_Nowhere(), _model_parameter_set(plan, model), plan.general_profile_idc)
    sizes = {}
    for coded in _coded(model, plan, names, threads, executor):
        before = writer.size
        for unit in coded.units:
            writer.data_unit(unit.header, unit.payload.data)
        sizes[coded.name] = writer.size - before
    return sizes


def squared_errors(
    model: SourceModel,
    plan: ModelPlan,
    names: Iterable[str],
    threads: int | None = None,
    executor: Executor | None = None,
) -> dict[str, float]:
    """The sum of squared errors of each of these tensors, which are quantized; finds all their levels."""
    form, names = Format(plan.qp_density, plan.general_profile_idc), list(names)
    jobs = (_error_job(model, name, plan.tensors[name], form) for name in names)
    return dict(zip(names, in_order(jobs, threads, executor, running=2), strict=True))


def _error_job(model: SourceModel, name: str, plan: TensorPlan, form: Format) -> Job[float]:
    array = np.asarray(model.tensors[name])
    return Job(partial(squared_error, name, array, plan, form, model.inputs.get(name)), 4 * array.size)


class _Nowhere(io.BytesIO):
    """Drops what is written."""

    def write(self, data: Buffer, /) -> int:  # type: ignore[override]
        return len(data)


def _started(stream: BinaryIO, model: SourceModel, plan: ModelPlan, limits: Limits | None) -> BitstreamWriter:
    mps = _model_parameter_set(plan, model)
    writer = BitstreamWriter(stream, mps, plan.general_profile_idc, limits, thorough=plan.thorough)
    if model.topology is not None:
        writer.topology(model.topology)
    if (container := pruning_of(model.model_info, ())) is not None:
        writer.pruning(container)
    return writer


def _coded(
    model: SourceModel, plan: ModelPlan, names: Iterable[str], threads: int | None, executor: Executor | None
) -> Iterator[_Coded]:
    share = thread_count(threads) if executor is None else 1
    return in_order(_jobs(model, plan, names, share), threads, executor, running=1.5, result_size=_held)


def _model_parameter_set(plan: ModelPlan, model: SourceModel) -> ModelParameterSet:
    return ModelParameterSet(
        topology_carriage_flag=model.topology is not None,
        mps_quantization_method_flags=QuantizationMethodFlags.NNR_QSU,
        mps_qp_density=plan.qp_density,
        mps_quantization_parameter=0,
        **parameter_set_fields(model.model_info.get("performance_maps", {})),
    )


class _Coded(NamedTuple):
    """A tensor, or the weight of a block, how many tensors were coded with it, and the units that hold them."""

    name: str
    tensors: int
    units: tuple[CodedUnit, ...]


def _decoded_size(unit: CodedUnit) -> int:
    h = unit.header
    vectors = max(0, len(h.topology_elements_ids_list.topology_elem_id_list) - 1) * h.tensor_dimensions[0]
    return (prod(h.tensor_dimensions) + vectors) * unit_dtype(h).itemsize


def _held(coded: _Coded) -> int:
    return sum(len(unit.payload) for unit in coded.units)


def _jobs(model: SourceModel, plan: ModelPlan, names: Iterable[str], threads: int) -> Iterator[Job[_Coded]]:
    """One job for each tensor or block, in model order; a block stands where its weight does."""
    form = Format(plan.qp_density, plan.general_profile_idc, threads)
    blocks = {block.weight: block for block in plan.blocks}
    inside = {name for block in plan.blocks for name in block.names.values()}
    for name in names:
        if name not in plan.tensors:
            raise ModelError("is not in the plan", tensor=name)
        if name in blocks:
            arrays = {member: np.asarray(_tensor(model, member)) for member in blocks[name].names.values()}
            plans = {member: plan.tensors[member] for member in arrays}
            size = sum(4 * array.size for array in arrays.values())
            yield Job(partial(_code_block, blocks[name], arrays, plans, form), size)
        elif name not in inside:
            array = np.asarray(model.tensors[name])
            inputs = model.inputs.get(name)
            yield Job(partial(_code, name, array, plan.tensors[name], form, inputs), 4 * array.size)


def _tensor(model: SourceModel, member: str) -> Any:
    if member not in model.tensors:
        raise ModelError("is in a block of the plan, and not in the model", tensor=member)
    return model.tensors[member]


def _code(name: str, array: NDArray[Any], plan: TensorPlan, form: Format, inputs: LayerInputs | None = None) -> _Coded:
    return _Coded(name, 1, data_units(name, array, plan, form, inputs))


def _code_block(
    block: Block, arrays: Mapping[str, NDArray[Any]], plans: Mapping[str, TensorPlan], form: Format
) -> _Coded:
    return _Coded(block.weight, len(arrays), block_units(block, arrays, plans, form))
