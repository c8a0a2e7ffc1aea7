"""Modules of PyTorch: into a bitstream, and back into a module."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, overload

import torch
from torch import nn

import nnc_core
from nnc_adapters.pytorch import reader, roles
from nnc_adapters.pytorch.layout import File, Model, is_companion, scan
from nnc_adapters.pytorch.views import ITEM_SIZES, Data, View
from nnc_adapters.pytorch.writer import Description
from nnc_adapters.reports import CompressReport, Progress
from nnc_adapters.shared.files import replacing
from nnc_core import CodingParameters, Limits, ModelError, ModelInfo, NnrFile, SourceModel, UnsupportedError
from nnc_core.nnr_model import ParameterType
from nnc_core.tables.code_points import TopologyStorageFormat

_Convolutions = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_Dense = (nn.Linear, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention, nn.Embedding, nn.EmbeddingBag)
_BatchNorms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_Others = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.PReLU)
_PREFIX = "module."


@overload
def compress(
    module: nn.Module,
    target: None = None,
    *,
    parameters: CodingParameters | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> bytes: ...


@overload
def compress(
    module: nn.Module,
    target: str | Path | BinaryIO,
    *,
    parameters: CodingParameters | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> CompressReport: ...


def compress(
    module: nn.Module,
    target: str | Path | BinaryIO | None = None,
    *,
    parameters: CodingParameters | None = None,
    threads: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> CompressReport | bytes:
    """Compress the state of a module: the bitstream itself, or a report where it goes to a ``target``.

    The modules' types say what each tensor is for. The bitstream can be restored as a state dict, too. A file appears
    complete or not at all, and replaces an existing one only with ``force``: `FileExistsError`.
    """
    started = time.perf_counter()
    model, before = _source(module)

    def write(stream: BinaryIO) -> CompressReport:
        after = nnc_core.write(stream, model, parameters=parameters, threads=threads, progress=progress)
        weights = sum(tensor.size for tensor in model.tensors.values())
        return CompressReport(before, after, len(model.tensors), weights, time.perf_counter() - started)

    if target is None:
        whole = io.BytesIO()
        write(whole)
        return whole.getvalue()
    if isinstance(target, str | Path):
        with replacing(Path(target), force=force) as stream:
            return write(stream)
    return write(target)


def _source(module: nn.Module) -> tuple[SourceModel, int]:
    state = module.state_dict()
    copies: dict[tuple[Any, ...], torch.Tensor] = {}
    for name, tensor in state.items():
        if isinstance(tensor, torch.Tensor) and tensor.device.type != "cpu":
            view = (tensor.device, tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape)
            state[name] = copies.setdefault((*view, tensor.stride()), tensor.cpu())
    stream = io.BytesIO()
    torch.save(state, stream)
    data = Data(memoryview(stream.getbuffer()))
    limits = Limits()
    found = scan(data, limits)
    model = reader.described(Model(found.kind, [File("", data, found)]), limits)
    shapes = {name: tensor.shape for name, tensor in model.tensors.items()}
    return SourceModel(model.tensors, model.topology, model_info(module, shapes)), len(data.view)


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

    Without a topology of PyTorch, the tensors are those that are coded. Raises `BitstreamError`, `UnsupportedError` or
    `LimitError` where the bitstream cannot be decoded, `ModelError` where its topology is damaged.
    """
    limits = limits or Limits()
    opened = NnrFile(source, limits) if isinstance(source, bytes) else nnc_core.open(source, limits=limits)
    with opened as file, file.decoding_ahead(threads) as tensors:
        topology = file.topology
        if topology is None or topology.storage_format != TopologyStorageFormat.NNR_TPL_PYT:
            return {name: torch.from_numpy(array) for name, array in tensors.items()}
        description = Description(topology.data, limits)
        return dict(_restored(description, tensors, limits))


def _restored(
    description: Description, tensors: Mapping[str, Any], limits: Limits
) -> Iterator[tuple[str, torch.Tensor]]:
    depth = len(description.root)
    for file in description.files:
        if is_companion(file.name):
            continue
        stream = io.BytesIO()
        description.fill(stream, file, tensors)
        data = Data(stream.getbuffer())
        fetch = _tensors(data)
        for view in scan(data, limits).views:
            if len(view.path) > depth and view.path[:depth] == description.root:
                yield ".".join(view.path[depth:]), fetch(view)


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
    threads: int | None = None,
    limits: Limits | None = None,
) -> nn.Module:
    """Load a bitstream (a path, or the bytes) into ``module``, and return it.

    ``strict`` as for ``Module.load_state_dict``; a prefix ``module.``, which parallel training leaves, is taken off
    where the module has none. Otherwise as `state_dict`; `ModelError` where the tensors do not fit the module.
    """
    state = state_dict(source, threads=threads, limits=limits)
    own = module.state_dict()
    if not own.keys() & state.keys() and all(name.startswith(_PREFIX) for name in state):
        state = {name[len(_PREFIX) :]: tensor for name, tensor in state.items()}
    try:
        module.load_state_dict(state, strict=strict)
    except RuntimeError as error:
        raise ModelError(str(error)) from error
    return module
