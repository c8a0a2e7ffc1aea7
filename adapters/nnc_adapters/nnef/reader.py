"""From an NNEF archive to a `SourceModel`: which tensors are coded, which are exact, which files stay as they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import nnc_core
from nnc_adapters.nnef import archive, dat, graph, private
from nnc_adapters.shared import selection
from nnc_adapters.shared.lazy import LazyTensors
from nnc_core.errors import ModelError, UnsupportedError
from nnc_core.limits import Limits
from nnc_core.nnr_model import ModelInfo, SourceModel, Topology
from nnc_core.tables.code_points import TopologyStorageFormat

DAT, NNR = ".dat", ".nnr"


@dataclass(frozen=True, slots=True)
class _Variable:
    """A tensor of the archive; ``padding`` are bits after its last item that are not zero."""

    label: str
    file: str
    header: dat.Header
    load: Callable[[], NDArray[Any]]
    padding: bool = False


def file_stem(label: str) -> str:
    """The name of a variable's file, without its suffix; `ModelError` for a label that leads out of the archive."""
    try:
        return archive.safe_name(label.removeprefix("/"))
    except ModelError as error:
        raise ModelError(f"the label leads out of the archive: {error.message}", tensor=label) from None


def read(path: Path, limits: Limits, *, chosen: frozenset[str] = frozenset()) -> SourceModel:
    """Read an archive; the tensors called ``chosen`` are coded whatever the rules say.

    Tensors may be in ``<label>.dat`` or, as `NnefAdapter.embed` puts them, in ``<label>.nnr``.
    """
    try:
        return _read(path, limits, chosen)
    except ModelError as error:
        raise ModelError(error.message, file=error.file or str(path), tensor=error.tensor) from error


def _read(path: Path, limits: Limits, chosen: frozenset[str]) -> SourceModel:
    files = archive.files_of(path, limits)
    _refuse_vendors(files)
    text = _small(files, archive.GRAPH, limits)
    quantization = _small(files, archive.QUANTIZATION, limits) if archive.QUANTIZATION in files else None
    found = graph.parsed(text, quantization)
    variables = [_variable(label, shape, files, limits) for label, shape in found.shapes.items()]
    coded = {v.label: v for v in variables if v.label in chosen or _is_coded(v, found)}
    exact = {v.label: v for v in variables if v.label not in coded and _fits(v)}
    tensors = {v.label: v for v in variables if v.label in coded or v.label in exact}
    topology = Topology(
        TopologyStorageFormat.NNR_TPL_NNEF, text, quantization, _private(list(tensors.values()), files, limits)
    )
    return SourceModel(
        LazyTensors({label: variable.load for label, variable in tensors.items()}),
        topology,
        ModelInfo(parameter_type={label: role for label, role in found.roles.items() if label in coded}),
        {v.label: _reason(v, found) for v in exact.values() if v.header.item_type == dat.ItemType.FLOAT},
    )


def _refuse_vendors(files: archive.Files) -> None:
    """`UnsupportedError` for item types of vendors, ahead of the graph: those who use them extend that as well."""
    for name, file in files.items():
        if name.endswith(DAT) and file.size >= dat.HEADER_SIZE:
            try:
                dat.refuse_vendor(file.read(dat.HEADER_SIZE))
            except UnsupportedError as error:
                raise UnsupportedError(error.feature, f"tensor {name.removesuffix(DAT)!r} {error}") from None


def _small(files: archive.Files, name: str, limits: Limits) -> bytes:
    limits.check("topology_bytes", files[name].size, name)
    return bytes(files[name].data())


def _variable(label: str, shape: tuple[int, ...], files: archive.Files, limits: Limits) -> _Variable:
    stem = file_stem(label)
    present = [stem + suffix for suffix in (DAT, NNR) if stem + suffix in files]
    if len(present) != 1:
        fault = f"both {stem + DAT} and {stem + NNR}" if present else f"no file {stem + DAT}"
        raise ModelError(f"the archive has {fault}", tensor=label)
    found = (_from_dat if present[0].endswith(DAT) else _from_nnr)(label, shape, present[0], files[present[0]], limits)
    if found.header.shape != shape:
        message = f"{found.file} has shape {list(found.header.shape)}, graph.nnef says {list(shape)}"
        raise ModelError(message, tensor=label)
    return found


def _from_dat(label: str, shape: tuple[int, ...], name: str, file: archive.File, limits: Limits) -> _Variable:
    try:
        header = dat.Header.parse(file.read(min(file.size, dat.HEADER_SIZE)), file.size)
    except ModelError as error:
        raise ModelError(error.message, tensor=label) from error
    except UnsupportedError as error:
        raise UnsupportedError(error.feature, f"tensor {label!r}: {error}") from error
    unused = 8 * header.data_length - header.elements * header.bits_per_item
    padding = bool(unused and file.data()[-1] & ((1 << unused) - 1))
    return _Variable(label, name, header, partial(_load, header, file), padding)


def _load(header: dat.Header, file: archive.File) -> NDArray[Any]:
    return dat.load(header, file.data()[dat.HEADER_SIZE :])


def _from_nnr(label: str, shape: tuple[int, ...], name: str, file: archive.File, limits: Limits) -> _Variable:
    bitstream = nnc_core.NnrFile(file.data(), limits)
    if list(bitstream) != [label]:
        raise ModelError(f"{name} holds the tensors {list(bitstream)}", tensor=label)
    topology = bitstream.topology
    headers = private.unpack(topology.private if topology else None, {label: shape}, limits).headers
    info = bitstream.tensors[label]
    coded_shape = () if shape == () and info.shape == (1,) else info.shape
    header = headers.get(label) or dat.default(coded_shape, np.dtype(info.dtype))
    return _Variable(label, name, header, partial(_decode, label, file, limits, header))


def _decode(label: str, file: archive.File, limits: Limits, header: dat.Header) -> NDArray[Any]:
    array = nnc_core.NnrFile(file.data(), limits).decode(label).reshape(header.shape)
    return dat.load(header, dat.dump(header, array))


def _is_coded(variable: _Variable, found: graph.Graph) -> bool:
    """Whether a tensor of floats may lose precision."""
    is_float = variable.header.item_type == dat.ItemType.FLOAT
    name, elements = variable.header.dtype.name, variable.header.elements
    allowed = is_float and variable.label not in found.arguments
    return allowed and selection.is_coded(name, elements, variable.load)


def _reason(variable: _Variable, found: graph.Graph) -> str:
    """Why a tensor of floats is exact."""
    return "argument of an operation" if variable.label in found.arguments else "too few values"


def _fits(variable: _Variable) -> bool:
    """Whether NNR can carry the tensor without any loss."""
    if variable.padding or not variable.header.elements:
        return False
    if variable.header.item_type != dat.ItemType.FLOAT:
        return selection.fits(variable.header.dtype.name, variable.load)
    array = variable.load()
    with np.errstate(over="ignore", invalid="ignore"):
        back = array.astype(np.float32).astype(array.dtype)
    # bit by bit: there are many NaN
    return dat.dump(variable.header, back) == dat.dump(variable.header, array)


def _private(tensors: list[_Variable], files: archive.Files, limits: Limits) -> bytes | None:
    """What is needed besides the graph and the ``tensors`` that are carried as such."""
    known = {archive.GRAPH, archive.QUANTIZATION, *(variable.file for variable in tensors)}
    others = {name: file for name, file in files.items() if name not in known}
    limits.check("topology_bytes", sum(file.size for file in others.values()), "files that stay as they are")
    kept = {name: bytes(file.data()) for name, file in others.items()}
    return private.pack(private.Private({v.label: v.header for v in tensors}, kept))
