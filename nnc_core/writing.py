"""From a model to a bitstream: plan, code, write (ISO/IEC 15938-18, module `coder`)."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from nnc_core.bitstream.references import with_reference_list
from nnc_core.coder.plan import ModelPlan
from nnc_core.coder.planned import write_planned
from nnc_core.inputs import as_model, opened_for_writing
from nnc_core.limits import Limits
from nnc_core.nnr_model import ModelInfo, SourceModel, Topology
from nnc_core.planner.parameters import CodingParameters
from nnc_core.planner.planning import plan as plan_model

if TYPE_CHECKING:
    from concurrent.futures import Executor


def encode(
    tensors: Mapping[str, Any],
    *,
    parameters: CodingParameters | None = None,
    plan: ModelPlan | None = None,
    topology: Topology | None = None,
    model_info: ModelInfo | None = None,
    calibrate: Mapping[str, Any] | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    limits: Limits | None = None,
    **settings: Any,
) -> bytes:
    """Code named tensors into one NNR bitstream: numpy arrays, PyTorch tensors, or anything numpy makes an array of.

    Floating-point values of any width are quantized as float32, as a ``plan`` says, or by ``parameters``, which may
    also be given as ``settings``, the fields of `CodingParameters`. The few values that cannot be quantized (not
    finite, or far too large for the step) are sent unchanged beside the others. Integers are coded exactly and must lie
    within +-(2**31 - 1), or that close to their median; booleans become int8. A scalar becomes a tensor of shape (1,).

    With ``calibrate``, weights are quantized for the least error of the products of their rows and their inputs; it
    has, by the name of a weight, an array (..., width) of inputs, or a `LayerInputs`.

    The result does not depend on ``threads`` (default: one per core) or on an ``executor``, which replaces them. Raises
    `ModelError` for tensors that NNR cannot express and inputs that do not fit, and `LimitError` for what a decoder
    with the same ``limits`` would refuse.

    >>> import nnc_core, numpy as np
    >>> data = nnc_core.encode({"w": np.array([[0.5, -0.25], [0.0, 1.0]], np.float32)})
    >>> nnc_core.decode(data)["w"].tolist()
    [[0.5, -0.25], [0.0, 1.0]]
    """
    stream = io.BytesIO()
    write(
        stream,
        as_model(tensors, topology, model_info, calibrate),
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
    model order, one at a time; those being coded fit a window of bytes (see `nnc_core.coder.pool`). Without a ``plan``
    all tensors are first fetched once to make one. ``progress`` is called with the number of tensors written and their
    total. Raises `ModelError` for a plan that lacks a tensor; otherwise as `encode`.

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
            return write_planned(stream, model, plan, threads, executor, progress=progress, limits=limits)
        whole = io.BytesIO()
        write_planned(whole, model, plan, threads, executor, progress=progress, limits=limits)
        return stream.write(with_reference_list(whole.getvalue(), limits))
