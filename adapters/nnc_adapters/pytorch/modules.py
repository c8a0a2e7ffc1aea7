"""Modules of PyTorch: into a bitstream, and back into a module."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, BinaryIO, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import nnc_core
from nnc_adapters.api import compress_model
from nnc_adapters.base import Options
from nnc_adapters.export import every_tensor
from nnc_adapters.pytorch import reader, roles
from nnc_adapters.pytorch.calibration import calibrated
from nnc_adapters.pytorch.layout import REPOSITORY, File, Model, is_companion, is_weights, scan
from nnc_adapters.pytorch.prefixes import fitting
from nnc_adapters.pytorch.views import ITEM_SIZES, Data, View
from nnc_adapters.pytorch.writer import Description
from nnc_adapters.reports import CompressReport, Progress
from nnc_adapters.shared.files import replacing
from nnc_adapters.shared.masks import with_pruning_topology
from nnc_core import (
    CodingParameters,
    Limits,
    ModelError,
    ModelInfo,
    NnrFile,
    SourceModel,
    UnsupportedError,
    approximator,
)
from nnc_core.coder import part18 as coder
from nnc_core.nnr_model import ParameterType
from nnc_core.tables.blocks import Member, parameter_types
from nnc_core.tables.code_points import TopologyStorageFormat

_Convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_Dense = (nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Embedding, nn.EmbeddingBag)
_BatchNorms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_EXTRA = b"_extra_state"
_Others = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)


@overload
def compress(
    module: nn.Module | Mapping[str, Any],
    target: None = None,
    *,
    keep_optimizer: bool = True,
    opaque: bool = False,
    parameters: CodingParameters | None = None,
    calibrate: Iterable[Any] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> bytes: ...


@overload
def compress(
    module: nn.Module | Mapping[str, Any],
    target: str | Path | BinaryIO,
    *,
    keep_optimizer: bool = True,
    opaque: bool = False,
    parameters: CodingParameters | None = None,
    calibrate: Iterable[Any] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> CompressReport: ...


def compress(
    module: nn.Module | Mapping[str, Any],
    target: str | Path | BinaryIO | None = None,
    *,
    keep_optimizer: bool = True,
    opaque: bool = False,
    parameters: CodingParameters | None = None,
    calibrate: Iterable[Any] | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> CompressReport | bytes:
    """Compress the state of a module, a state dict or a checkpoint: the bitstream, or a report if it has a ``target``.

    The modules' types say what each tensor is for. The bitstream can be restored as a file, too. What an optimizer
    keeps becomes zeros without ``keep_optimizer``; objects that are not mere data need ``opaque``, as in
    `PytorchAdapter`. A file appears complete or not at all, and replaces an existing one only with ``force``:
    `FileExistsError`.

    With batches of inputs to ``calibrate`` with, the module runs on them, once for each weight and once more; weights
    are then quantized so that the outputs change least. A batch is what the module takes: a tensor, a tuple of
    arguments, or a dictionary of them by name. `ModelError` for what the module does not take, and inputs that are not
    finite.
    """
    model, before = _source(module, keep_optimizer, opaque)
    if calibrate is not None:
        if not isinstance(module, nn.Module):
            raise ModelError("a state dict cannot run, so there is nothing to calibrate; give the module")
        model = calibrated(model, module, calibrate)

    def write(stream: BinaryIO) -> CompressReport:
        return compress_model(model, stream, parameters=parameters, threads=threads, progress=progress, source=before)

    if target is None:
        whole = io.BytesIO()
        write(whole)
        return whole.getvalue()
    if isinstance(target, str | Path):
        with replacing(Path(target), force=force) as stream:
            return write(stream)
    return write(target)


def _source(module: nn.Module | Mapping[str, Any], keep_optimizer: bool, opaque: bool) -> tuple[SourceModel, int]:
    stream = io.BytesIO()
    torch.save(_on_cpu(module.state_dict() if isinstance(module, nn.Module) else module), stream)
    data = Data(memoryview(stream.getbuffer()))
    options = Options(keep_optimizer=keep_optimizer, opaque=opaque)
    found = scan(data, options.limits, opaque=opaque)
    files = Model(found.kind, [File("", data, found)], nested=not isinstance(module, nn.Module))
    model = reader.described(files, options)
    if isinstance(module, nn.Module):
        model = replace(model, model_info=model_info(module, _shapes(model)))
    return with_pruning_topology(model, roles.masks(model.tensors)), len(data.view)


def _shapes(model: SourceModel) -> roles.Shapes:
    return Description(model.topology.data, Limits()).shapes if model.topology else {}


def _on_cpu(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """``state`` with its tensors in memory; those that are tied stay so."""
    copies: dict[tuple[Any, ...], torch.Tensor] = {}
    moved = {}
    for name, tensor in state.items():
        if isinstance(tensor, torch.Tensor) and tensor.device.type != "cpu":
            view = (tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape)
            moved[name] = copies.setdefault((*view, tensor.stride()), tensor.cpu())
    if not moved:
        return state
    result = copy(state)  # of the same type, with its attributes
    cast(dict[str, Any], result).update(moved)
    return result


def model_info(module: nn.Module, shapes: roles.Shapes) -> ModelInfo:
    """The roles of the tensors in ``shapes``, by the types of the modules that own them, and their blocks."""
    found: roles.Roles = {}
    owned: dict[str, dict[str, str]] = {}
    for path, owner in module.named_modules():
        names = {name: f"{path}.{name}" if path else name for name in (*owner._parameters, *owner._buffers)}
        coded = {name: full for name, full in names.items() if full in shapes}
        found.update((full, role) for name, full in coded.items() if (role := _role(owner, name)) is not None)
        if coded and not isinstance(owner, _Convolutions[3:]):  # whose rows are input channels
            owned[path] = coded
    return roles.info(found, shapes, owned)


def _role(owner: nn.Module, name: str) -> ParameterType | None:
    if isinstance(owner, _BatchNorms):
        return roles.NORM.get(name)
    if isinstance(owner, _Convolutions):
        return "conv.bias" if name == "bias" else "conv.weight"
    if isinstance(owner, _Dense):
        return "fc.bias" if "bias" in name else "fc.weight"
    # a buffer of another module is a table or a statistic, but nothing that was learned
    return "unspecified" if isinstance(owner, _Others) or name in owner._buffers else None


def state_dict(
    source: str | Path | bytes, *, threads: int | None = None, limits: Limits | None = None
) -> dict[str, torch.Tensor]:
    """The tensors of a bitstream (a path, or the bytes) as a state dict; tied tensors share their storage again.

    Of a model in another format these are all tensors by name, and without a topology those that are coded; then local
    scaling is applied. Raises `BitstreamError`, `UnsupportedError` or `LimitError` where the bitstream cannot be
    decoded, `ModelError` where its topology is damaged.
    """
    limits = limits or Limits()
    opened = NnrFile(source, limits) if isinstance(source, bytes) else nnc_core.open(source, limits=limits)
    with opened as file, file.decoding_ahead(threads) as tensors:
        topology = file.topology
        if topology is None or topology.storage_format != TopologyStorageFormat.NNR_TPL_PYT:
            found = _scaled(source, limits, threads) if _has_scaling(file) else tensors
            with every_tensor(found, topology, Options(limits)) as every:
                return {name: _from_numpy(np.array(every[name])) for name in every}
        description = Description(topology.data, limits)
        return dict(_restored(description, tensors, limits))


def _has_scaling(file: NnrFile) -> bool:
    types = (unit.header.compressed_parameter_types for unit in file.bitstream.data_units)
    return any(each & parameter_types([Member.SCALING]) for each in types)


def _scaled(source: str | Path | bytes, limits: Limits, threads: int | None) -> Mapping[str, Any]:
    """The tensors with local scaling multiplied into weights."""
    data, info = source if isinstance(source, bytes) else Path(source).read_bytes(), ModelInfo()
    return approximator.restored(coder.decode(data, info, limits=limits, threads=threads), info)["parameters"]


def _from_numpy(array: NDArray[Any]) -> torch.Tensor:
    """The same numbers, also of types that numpy does not have itself."""
    if array.dtype.kind != "V":
        return torch.from_numpy(array)
    return torch.from_numpy(array.view(f"i{array.dtype.itemsize}")).view(getattr(torch, array.dtype.name))


def _restored(
    description: Description, tensors: Mapping[str, Any], limits: Limits
) -> Iterator[tuple[str, torch.Tensor]]:
    depth = len(description.root)
    for file in description.files:
        if is_companion(file.name) or (description.kind == REPOSITORY and not is_weights(file.name)):
            continue
        stream = io.BytesIO()
        description.fill(stream, file, tensors)
        data = Data(stream.getbuffer())
        fetch = _tensors(data)
        for view in scan(data, limits, opaque=True).views:  # nothing is run
            if len(view.path) > depth and view.path[:depth] == description.root and not _is_inside_extra(view):
                yield ".".join(view.path[depth:]), fetch(view)
        if _EXTRA in file.data and description.kind in ("zip", "legacy"):
            yield from _extra_states(stream, description.root)


def _is_inside_extra(view: View) -> bool:
    return any(key.endswith(_EXTRA.decode()) for key in view.path[:-1])


def _extra_states(stream: BinaryIO, root: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    """What modules add to their state that is not a tensor; PyTorch reads it, as far as it takes it for mere data."""
    stream.seek(0)
    try:
        with torch.serialization.safe_globals([io.BytesIO]):
            state = torch.load(stream, weights_only=True)
    except UnpicklingError:  # without it, loading says what is missing
        return
    for key in root:
        state = state[key]
    yield from ((name, value) for name, value in state.items() if str(name).endswith(_EXTRA.decode()))


def _tensors(data: Data) -> Callable[[View], torch.Tensor]:
    storages: dict[tuple[int, int], torch.Tensor] = {}

    def fetch(view: View) -> torch.Tensor:
        dtype = getattr(torch, view.dtype, None)
        if view.dtype not in ITEM_SIZES or not isinstance(dtype, torch.dtype):
            raise UnsupportedError(f"data type {view.dtype} of tensor {'.'.join(view.path)!r}")
        begin, end = view.storage
        if not view.elements:
            return torch.empty(view.shape, dtype=dtype)
        if view.storage not in storages:
            # a copy: storages lie anywhere in a file, numbers want to be aligned
            storages[view.storage] = torch.frombuffer(bytearray(data.view[begin:end]), dtype=torch.uint8)
        offset = (view.start - begin) // ITEM_SIZES[view.dtype]
        return _typed(storages[view.storage], dtype).as_strided(view.shape, view.strides, offset)

    return fetch


def _typed(storage: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(0, dtype=dtype).set_(storage.untyped_storage())


def load(
    source: str | Path | bytes,
    module: nn.Module,
    *,
    strict: bool = True,
    prefix: str | None = None,
    threads: int | None = None,
    limits: Limits | None = None,
) -> nn.Module:
    """Load a bitstream (a path, or the bytes) into ``module``, and return it.

    ``strict`` as for ``Module.load_state_dict``. Names with ``module.`` or ``_orig_mod.``, which parallel training and
    compiling leave, fit those without, and the other way round. Of a checkpoint with several state dicts, that which
    fits is taken, or the one whose names begin with ``prefix``. Otherwise as `state_dict`; `ModelError` where the
    tensors do not fit the module, or several state dicts do.
    """
    state = fitting(state_dict(source, threads=threads, limits=limits), module.state_dict(), prefix)
    try:
        module.load_state_dict(state, strict=strict)
    except RuntimeError as error:
        raise ModelError(str(error)) from error
    return module
