"""From a model to a bitstream: plan, code, write (ISO/IEC 15938-18, module `coder`)."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from functools import partial
from math import prod
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnc_core.bitstream import BitstreamWriter
from nnc_core.bitstream.references import with_reference_list
from nnc_core.coder.block import unit_dtype
from nnc_core.coder.encoder import CodedUnit
from nnc_core.coder.pool import Job, in_order
from nnc_core.coder.units import Format, block_units, data_units
from nnc_core.errors import ModelError
from nnc_core.inputs import as_model, opened_for_writing
from nnc_core.limits import Limits
from nnc_core.nnr_model import ModelInfo, SourceModel, Topology
from nnc_core.nnr_model.blocks import Block
from nnc_core.planner.parameters import CodingParameters
from nnc_core.planner.plan import ModelPlan, TensorPlan
from nnc_core.planner.planning import plan as plan_model
from nnc_core.syntax.model_parameter_set import ModelParameterSet
from nnc_core.tables.code_points import QuantizationMethodFlags


def encode(
    tensors: Mapping[str, Any],
    *,
    parameters: CodingParameters | None = None,
    plan: ModelPlan | None = None,
    topology: Topology | None = None,
    model_info: ModelInfo | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    limits: Limits | None = None,
    **settings: Any,
) -> bytes:
    """Code named tensors into one NNR bitstream: arrays, tensors of PyTorch, or what numpy makes arrays of.

    Floating-point values of any width are quantized as their float32 values, as the ``plan`` says or else the
    ``parameters``, or the ``settings`` in their place, which are fields of `CodingParameters`. The few values that
    cannot be quantized (not finite, or far too large for the step) are sent beside the others as they are. Integers are
    coded exactly and must lie within +-(2**31 - 1), or within as much of their median; truth values become int8. A
    scalar becomes a tensor of shape (1,). The result does not depend on ``threads`` (default: one per core) or on the
    ``executor`` used in their place. Raises `ModelError` for tensors that NNR cannot express, `LimitError` for what a
    decoder with the same ``limits`` would refuse.

    >>> import nnc_core, numpy as np
    >>> data = nnc_core.encode({"w": np.array([[0.5, -0.25], [0.0, 1.0]], np.float32)})
    >>> nnc_core.decode(data)["w"].tolist()
    [[0.5, -0.25], [0.0, 1.0]]
    """
    stream = io.BytesIO()
    write(
        stream,
        as_model(tensors, topology, model_info),
        parameters=_parameters(parameters, settings),
        plan=plan,
        threads=threads,
        executor=executor,
        limits=limits,
    )
    return stream.getvalue()


def _parameters(parameters: CodingParameters | None, settings: dict[str, Any]) -> CodingParameters | None:
    if not settings:
        return parameters
    if parameters is not None:
        raise TypeError(f"parameters and {', '.join(settings)} are mutually exclusive")
    return CodingParameters(**settings)


def write(
    target: BinaryIO | str | os.PathLike[str],
    model: SourceModel | Mapping[str, Any],
    *,
    parameters: CodingParameters | None = None,
    plan: ModelPlan | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
    limits: Limits | None = None,
    **settings: Any,
) -> int:
    """Code a model, or named tensors, into a file, unit by unit; return the number of bytes.

    ``target`` is a path, where the file appears complete or not at all, or a binary file object. Tensors are fetched in
    model order, one at a time; those in work fit a window of bytes (see `pool`). Without a ``plan``, which `plan`
    makes, they are fetched once more before. ``progress`` is called with the number of tensors written and their
    total. Otherwise as `encode`. Raises `ModelError` for a plan that lacks a tensor.

    >>> import nnc_core, numpy as np, tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "weights.nnr")
    ...     _ = nnc_core.write(path, {"w": np.eye(3, dtype=np.float32)}, qp=-20)
    ...     nnc_core.decode(path)["w"].tolist()
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    """
    model = as_model(model)
    if plan is None:
        plan = plan_model(model, _parameters(parameters, settings), threads=threads, executor=executor)
    with opened_for_writing(target) as stream:
        if not plan.indexed_reference_flag:
            return _write(stream, model, plan, threads, executor, progress, limits)
        whole = io.BytesIO()
        _write(whole, model, plan, threads, executor, progress, limits)
        return stream.write(with_reference_list(whole.getvalue(), limits))


def _write(
    stream: BinaryIO,
    model: SourceModel,
    plan: ModelPlan,
    threads: int | None,
    executor: Executor | None,
    progress: Callable[[int, int], None] | None,
    limits: Limits | None,
) -> int:
    writer = BitstreamWriter(stream, _model_parameter_set(plan, model), plan.general_profile_idc, limits)
    if model.topology is not None:
        writer.topology(model.topology)
    decoded, limits = 0, limits or Limits()
    jobs = _jobs(model, plan)
    done = 0
    for tensors, units in in_order(jobs, threads, executor, running=1.5, result_size=_held):
        for unit in units:
            decoded = limits.check("decoded_bytes", decoded + _decoded_size(unit))
            writer.data_unit(unit.header, unit.payload.data)
        done += tensors
        if progress is not None:
            progress(done, len(model.tensors))
    return writer.size


def _model_parameter_set(plan: ModelPlan, model: SourceModel) -> ModelParameterSet:
    return ModelParameterSet(
        topology_carriage_flag=model.topology is not None,
        mps_quantization_method_flags=QuantizationMethodFlags.NNR_QSU,
        mps_qp_density=plan.qp_density,
        mps_quantization_parameter=0,
    )


class _Coded(NamedTuple):
    """How many tensors were coded, and the units that hold them."""

    tensors: int
    units: tuple[CodedUnit, ...]


def _decoded_size(unit: CodedUnit) -> int:
    h = unit.header
    vectors = max(0, len(h.topology_elements_ids_list.topology_elem_id_list) - 1) * h.tensor_dimensions[0]
    return (prod(h.tensor_dimensions) + vectors) * unit_dtype(h).itemsize


def _held(coded: _Coded) -> int:
    return sum(len(unit.payload) for unit in coded.units)


def _jobs(model: SourceModel, plan: ModelPlan) -> Iterator[Job[_Coded]]:
    """One job for each tensor or block, in model order; a block stands where its weight does."""
    form = Format(plan.qp_density, plan.general_profile_idc)
    blocks = {block.weight: block for block in plan.blocks}
    inside = {name for block in plan.blocks for name in block.names.values()}
    for name in model.tensors:
        if name not in plan.tensors:
            raise ModelError("is not in the plan", tensor=name)
        if name in blocks:
            arrays = {member: np.asarray(model.tensors[member]) for member in blocks[name].names.values()}
            plans = {member: plan.tensors[member] for member in arrays}
            size = sum(4 * array.size for array in arrays.values())
            yield Job(partial(_code_block, blocks[name], arrays, plans, form), size)
        elif name not in inside:
            array = np.asarray(model.tensors[name])
            yield Job(partial(_code, name, array, plan.tensors[name], form), 4 * array.size)


def _code(name: str, array: NDArray[Any], plan: TensorPlan, form: Format) -> _Coded:
    return _Coded(1, data_units(name, array, plan, form))


def _code_block(
    block: Block, arrays: Mapping[str, NDArray[Any]], plans: Mapping[str, TensorPlan], form: Format
) -> _Coded:
    return _Coded(len(arrays), block_units(block, arrays, plans, form))
